"""The command line: `python -m simulator [serve]`, and orders to one that runs."""

import argparse
import asyncio
import json
import os
import sys
from dataclasses import fields
from typing import Any

from simulator.client import Simulator
from simulator.faults import KINDS, Fault
from simulator.labels import Settings
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
        asyncio.run(serve(**options))
        return 0
    try:
        _order(Simulator(at), command, options)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"simulator at {at}: {error}\n")
        return 1
    return 0


def _order(simulator: Simulator, command: str, options: dict[str, Any]) -> None:
    set_options = {name: value for name, value in options.items() if value is not None}
    match command:
        case "fault":
            simulator.fault(set_options.pop("label"), **set_options)
        case "set":
            simulator.settings(set_options.pop("label"), **set_options)
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
    parser = argparse.ArgumentParser(prog="python -m simulator", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    server = commands.add_parser("serve", help="serve until stopped (the default)")
    server.add_argument("--host", default="127.0.0.1")
    server.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 takes a free one")
    server.add_argument("--log-size", type=int, default=100_000, help="hits kept")
    server.add_argument("--with-parent", action="store_true", help="end when stdin or parent does")

    fault = _command(commands, "fault", "let calls of a label fail")
    fault.add_argument("label")
    fault.add_argument("--kind", help=", ".join(sorted(KINDS)))
    fault.add_argument("--for", dest="for_s", type=float, help="seconds until it ends")
    for field in fields(Fault):
        if field.name not in ("kind", "for_s"):
            named = str(field.type)
            kind = str if "str" in named else int if "int" in named else float
            fault.add_argument(f"--{field.name.replace('_', '-')}", type=kind)

    settings = _command(commands, "set", "say how a healthy label answers")
    settings.add_argument("label")
    for field in fields(Settings):
        flag, named = f"--{field.name.replace('_', '-')}", str(field.type)
        if field.name in ("usage", "tool_calls"):
            settings.add_argument(flag, type=json.loads, help="JSON, as in the control API")
        elif "tuple" in named:
            settings.add_argument(flag, nargs="*")
        elif named == "bool":
            settings.add_argument(flag, action=argparse.BooleanOptionalAction)
        else:
            numbers: dict[str, Any] = {"float": float, "int": int}
            settings.add_argument(flag, type=numbers.get(named, str))

    _command(commands, "heal", "end the faults of a label").add_argument("label")
    _command(commands, "reset", "forget faults, settings and hits")
    _command(commands, "state", "show settings, faults and counts")
    log = _command(commands, "log", "print the hits, one JSON object a line")
    log.add_argument("label", nargs="?")
    log.add_argument("--since", type=int, default=0, help="only hits after this number")
    return parser


def _command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text)
    default = os.environ.get("SIMULATOR_URL", f"http://127.0.0.1:{DEFAULT_PORT}")
    command.add_argument("--at", default=default, help="where the simulator listens")
    return command


if __name__ == "__main__":
    sys.exit(main())
