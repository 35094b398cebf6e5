"""
Where the commands print: answers to standard output, everything else to standard error.

Nothing that is printed here is read as rich's markup, and no character of it reaches a terminal
that `workers.terminal.plain` does not let through. Standard streams may be closed (cron), may lack
characters (an ASCII locale), and their reader may leave early (`| head`).
"""

import csv
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import IO, Annotated, Any, NoReturn

import typer
from redis.exceptions import RedisError
from rich.console import Console, RenderableType
from rich.live import Live
from rich.segment import Segment
from rich.text import Text
from typer.core import TyperGroup

from breakwater.errors import ConfigError
from breakwater.redis.connection import address, redis_url
from breakwater.redis.foreign_keys import named
from workers.terminal.plain import ERRORS, plain_json, plain_lines

IN_A_PIPE = 65_536
"""Columns: a line in a pipe is for grep, and is never broken."""


def is_terminal(stream: IO[str] | None) -> bool:
    """Tell whether a person is there; a stream that is closed is None."""
    return stream is not None and not stream.closed and stream.isatty()


class Terminal(Console):
    """A console that takes every text as it is, and shows no character that is not safe."""

    def __init__(self, *, markup: bool = False, **how: Any) -> None:
        super().__init__(highlight=False, markup=markup, emoji=False, **how)

    def render_str(self, text: str, **how: Any) -> Text:
        """Make safe before it is measured and wrapped."""
        return super().render_str(plain_lines(text), **how)

    def render(self, *given: Any, **how: Any) -> Iterable[Segment]:
        """Make safe what came in another way, such as in a `Text`."""
        for segment in super().render(*given, **how):
            if segment.control:
                yield segment
            else:
                yield Segment(plain_lines(segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        """End well."""
        reader_is_gone()


out = Terminal(width=None if is_terminal(sys.stdout) else IN_A_PIPE)
err = Terminal(stderr=True, soft_wrap=True)

COLOURS = {"closed": "green", "open": "red", "half-open": "yellow"}
LOOK_EVERY_S = 0.5
CHECKS_FAILED = 3
"""Exit code of a command that ended, and some of whose rows or checks failed."""
UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Watched = Annotated[bool, typer.Option("--watch", help="Look again twice a second, until Ctrl-C.")]


class Screen(TyperGroup):
    """A group whose help has room for all its commands on 24 lines."""

    def get_params(self, ctx: typer.Context) -> list[Any]:  # type: ignore[override]
        """Leave out of the help what is wanted once; docs/commands.md tells of it."""
        params = super().get_params(ctx)
        for param in params:
            if param.name in {"show_completion", "install_completion"}:
                param.hidden = True  # type: ignore[attr-defined]
        return params


def group(*, add_completion: bool = False, **how: Any) -> typer.Typer:
    """Make a group of commands whose help needs no frames: 24 lines of 80 columns hold it."""
    return typer.Typer(
        add_completion=add_completion, pretty_exceptions_enable=False, rich_markup_mode=None, **how
    )


def prepare_streams() -> None:
    """Let standard output and error take every character, whatever their encoding."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # it is closed, or somebody's own
            stream.reconfigure(errors=ERRORS)  # type: ignore[union-attr]


def reader_is_gone() -> NoReturn:
    """End the command: its reader has all it wanted (`| head`), which is no fault."""
    _write_to_nobody()
    raise SystemExit(0)


def exit_code(ended: SystemExit) -> int | str | None:
    """Return the code a command ended with; typer takes a reader that left early for a fault."""
    left_early = type(sys.stdout).__name__ == "PacifyFlushWrapper"
    return 0 if left_early else ended.code


def flush_streams() -> None:
    """
    Write what is buffered, before Python does so and says `Exception ignored`.

    Raises:
        OSError: It cannot be written, such as to a disk that is full.
    """
    try:
        if sys.stdout is not None and not sys.stdout.closed:
            sys.stdout.flush()
    except BrokenPipeError:
        _write_to_nobody()
    except OSError:
        _write_to_nobody()
        raise


def _write_to_nobody() -> None:
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _while_it_is_read() -> Any:
    try:
        yield sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - ends with the command
    except BrokenPipeError:
        reader_is_gone()


def fail(message: str) -> NoReturn:
    """Say what went wrong in one line, and end with exit code 1."""
    err.print(message, style="red")
    raise typer.Exit(1)


def refuse(message: str) -> NoReturn:
    """Say in one line which word is wrong, and which would be right; exit code 2."""
    err.print(message, style="red")
    raise typer.Exit(2)


def confirm(question: str, yes: bool, number: int) -> None:
    """
    Ask before something is done to many; end the command unless the answer is yes.

    Args:
        question: What is about to be done, without the question mark.
        yes: It was answered on the command line (`--yes`).
        number: Of things; nothing is asked about none.
    """
    if yes or not number:
        return
    if not is_terminal(sys.stdin):
        refuse(f"{question}? there is no terminal to ask at; add --yes")
    typer.confirm(f"{question}?", abort=True, err=True)


def typed(text: str) -> str:
    """Return what was given on the command line, or standard input where that is `-`."""
    if text != "-":
        return text
    if sys.stdin is None or sys.stdin.closed:
        refuse("`-` reads standard input, which is closed; give the text instead")
    return sys.stdin.read()


def print_json(value: Any) -> None:
    """Print one JSON document."""
    _write(_as_json(value, indent=2) + "\n")


def print_json_line(value: Any) -> None:
    """Print one JSON document on one line."""
    _write(_as_json(value) + "\n")


def print_answer(text: str, end: str = "\n") -> None:
    """Print an answer: to a terminal what is safe, to a pipe or a file exactly what came."""
    if out.is_terminal:
        out.print(text, end=end, soft_wrap=True)
    else:
        _write(text + end)


def print_csv(heads: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Print CSV, of which no cell can do anything to a terminal."""
    with _while_it_is_read() as stream:
        writer = csv.DictWriter(stream, list(heads))
        writer.writeheader()
        for row in rows:
            safe = {k: plain_lines(v) if isinstance(v, str) else v for k, v in row.items()}
            writer.writerow(safe)


def _write(text: str) -> None:
    with _while_it_is_read() as stream:
        stream.write(text)
        stream.flush()


def _as_json(value: Any, indent: int | None = None) -> str:
    """Write JSON that any program reads, also where the encoding lacks characters."""
    narrow = out.encoding.lower().replace("-", "") != "utf8"
    return plain_json(json.dumps(value, indent=indent, ensure_ascii=narrow))


def at_utc(at_ms: int) -> str:
    """Show a moment."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at_ms / 1000))


def number_of(number: int, noun: str) -> str:
    """Show a count with its noun: 1 worker, 2 workers."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun}s"


def seconds(age: str) -> float:
    """Read an age such as 90s, 30m, 2h or 7d."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", age)
    if not found:
        raise typer.BadParameter(f"{age!r} is no age, such as 90s, 30m, 2h or 7d")
    return float(found[1]) * UNITS_S[found[2]]


def moment_ms(text: str) -> int:
    """Read a moment: an age before now, or a date with or without a time (UTC)."""
    if re.fullmatch(r"[\d.]+[smhd]", text):
        return round((time.time() - seconds(text)) * 1000)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no time, such as 24h, 7d, 2026-11-21 or 2026-11-21T08:00"
        ) from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def age(seconds_: float) -> str:
    """Show an age in the largest unit of which it has two; 0 if the clock was set back since."""
    seconds_ = max(seconds_, 0)
    units = [("d", 86400), ("h", 3600), ("m", 60)]
    name, unit = next(((n, u) for n, u in units if seconds_ >= 2 * u), ("s", 1))
    return f"{seconds_ / unit:.0f} {name}"


def watch(look: Callable[[], Any], show: Callable[[Any], RenderableType], as_json: bool) -> None:
    """
    Look again and again, until Ctrl-C; an outage of Redis is waited out.

    Args:
        look: Reads it, as JSON would have it if that is wanted.
        show: Draws what was read.
    """
    if not (as_json or out.is_terminal):
        raise typer.BadParameter("the live table needs a terminal; in a pipe, add --json")
    try:
        if as_json:
            _print_again_and_again(look)
        with Live(console=out, auto_refresh=False) as live:
            while True:
                live.update(_drawn(look, show), refresh=True)
                time.sleep(LOOK_EVERY_S)
    except KeyboardInterrupt:
        raise typer.Exit from None  # the way to end it


def _print_again_and_again(look: Callable[[], Any]) -> NoReturn:
    while True:
        print_json_line(look())
        time.sleep(LOOK_EVERY_S)


def _drawn(look: Callable[[], Any], show: Callable[[Any], RenderableType]) -> RenderableType:
    try:
        return show(look())
    except RedisError as error:
        return f"Redis: {named(error)[0]}; looking again"


def usable_redis_url() -> str:
    """Return REDIS_URL; end the command if it is no address of a Redis."""
    try:
        address()
    except ConfigError as error:
        fail(str(error))
    return redis_url()
