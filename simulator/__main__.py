"""The command line: `python -m simulator [serve]`, and orders to a running simulator."""

import argparse
import asyncio
import errno
import json
import os
import sys
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, ClassVar

from simulator.client import Simulator
from simulator.faults import KINDS, Fault
from simulator.labels import FLAGS, LISTS, Settings
from simulator.server import serve

DEFAULT_PORT = 8_900


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = _parser()
    if not given or (given[0].startswith("-") and given[0] not in ("-h", "--help")):
        given = ["serve", *given]
    options = vars(parser.parse_args(given))
    command, at = options.pop("command"), options.pop("at", "")
    if command == "serve":
        return _serve(options)
    try:
        _order(Simulator(at), command, options)
    except ConnectionRefusedError:
        return _fail(f"nothing listens at {at}; start one: python -m simulator, or name it: --at")
    except (ValueError, OSError) as error:
        return _fail(f"simulator at {at}: {error}")
    return 0


def _serve(options: dict[str, Any]) -> int:
    try:
        asyncio.run(serve(**options))
    except OSError as error:
        where = f"{options['host']}:{options['port']}"
        taken = error.errno == errno.EADDRINUSE
        why = "is taken; is another simulator running?" if taken else f"cannot be used: {error}"
        return _fail(f"{where} {why} Choose another --port; 0 takes a free one")
    return 0


def _fail(message: str) -> int:
    sys.stderr.write(message + "\n")
    return 1


def _order(simulator: Simulator, command: str, options: dict[str, Any]) -> None:
    set_options = {name: value for name, value in options.items() if value is not None}
    match command:
        case "fault":
            simulator.fault(set_options.pop("label"), **set_options)
        case "set":
            label = set_options.pop("label")
            if not set_options:
                raise ValueError(f"nothing to set of {label!r}; `set --help` lists the options")
            simulator.settings(label, **set_options)
        case "heal":
            simulator.heal(options["label"])
        case "reset":
            simulator.reset()
        case "log":
            for hit in simulator.hits(options["label"], options["since"]):
                sys.stdout.write(json.dumps(hit) + "\n")
        case "state":
            sys.stdout.write(json.dumps(simulator.state(), indent=2) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m simulator", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    server = commands.add_parser("serve", help="serve until stopped (the default)")
    server.add_argument("--host", default="127.0.0.1")
    server.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 takes a free port")
    server.add_argument("--log-size", type=int, default=100_000, help="number of hits to keep")
    server.add_argument("--with-parent", action="store_true", help="end with stdin or the parent")

    fault = _command(commands, "fault", "make calls to a label fail")
    fault.add_argument("label")
    fault.add_argument("--kind", help=", ".join(sorted(KINDS)))
    fault.add_argument("--for", dest="for_s", type=float, help="seconds until it ends")
    for field in fields(Fault):
        if field.name not in ("kind", "for_s"):
            named = str(field.type)
            kind = str if "str" in named else int if "int" in named else float
            fault.add_argument(f"--{field.name.replace('_', '-')}", type=kind)

    settings = _command(commands, "set", "set how a healthy label answers")
    settings.add_argument("label")
    for field in fields(Settings):
        flag = f"--{field.name.replace('_', '-')}"
        if field.name in ("usage", "tool_calls"):
            settings.add_argument(flag, type=_json, metavar="JSON", help="as in the control API")
        elif field.name in LISTS:
            settings.add_argument(flag, nargs="*")
        elif field.name in FLAGS:
            settings.add_argument(flag, action=_Flag)
        else:
            settings.add_argument(flag, type=field.type if field.type in (float, int) else str)

    _command(commands, "heal", "end the faults of a label").add_argument("label")
    _command(commands, "reset", "remove faults, settings and hits")
    _command(commands, "state", "show settings, faults and counts")
    log = _command(commands, "log", "print the hits, one JSON object per line")
    log.add_argument("label", nargs="?")
    log.add_argument("--since", type=int, default=0, help="only hits after this number")
    return parser


class _Parser(argparse.ArgumentParser):
    """A parser whose error for an unknown option lists the allowed ones."""

    def parse_known_args(self, *given: Any, **how: Any) -> Any:
        """Refuse unknown arguments at once."""
        known, unknown = super().parse_known_args(*given, **how)
        if unknown and not self._subparsers:
            flags = [flag for action in self._actions for flag in action.option_strings]
            word = unknown[0].partition("=")[0]
            near = get_close_matches(word, flags, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            self.error(f"unknown argument {word}; allowed are {', '.join(flags)}{hint}")
        return known, unknown


class _Flag(argparse.BooleanOptionalAction):
    """A flag in three forms: `--media`, `--no-media`, and `--media false` as in the control API."""

    WORDS: ClassVar = {
        "true": True,
        "yes": True,
        "on": True,
        "false": False,
        "no": False,
        "off": False,
    }

    def __init__(self, option_strings: list[str], dest: str) -> None:
        super().__init__(option_strings, dest)
        self.nargs, self.metavar = "?", "true|false"

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        value = True if values is None else self.WORDS.get(str(values).lower())
        if value is None:
            raise argparse.ArgumentError(self, f"{values!r} is not true or false")
        setattr(namespace, self.dest, value != str(option_string).startswith("--no-"))


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from None


def _command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text)
    default = os.environ.get("SIMULATOR_URL", f"http://127.0.0.1:{DEFAULT_PORT}")
    command.add_argument("--at", default=default, help="the URL of the simulator")
    return command


if __name__ == "__main__":
    sys.exit(main())
