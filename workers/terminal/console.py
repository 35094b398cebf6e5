"""
Print for the commands: answers to standard output, everything else to standard error.

Text that is printed here is not read as rich's markup, and its unsafe characters are escaped by
`workers.terminal.plain` before they reach a terminal. Standard streams may be closed (cron), may
lack characters (an ASCII locale), and their reader may leave early (`| head`).
"""

import csv
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, Annotated, Any, NoReturn, TypedDict, TypeVar, Unpack

import typer
from redis.exceptions import RedisError
from rich.console import (
    Console,
    ConsoleOptions,
    HighlighterType,
    JustifyMethod,
    OverflowMethod,
    RenderableType,
)
from rich.live import Live
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from typer.core import TyperGroup, TyperOption
from typer.models import Default

from breakwater.errors import ConfigError
from breakwater.redis.connection import address, redis_url
from breakwater.redis.foreign_keys import named
from workers.terminal.plain import ENCODING_ERRORS, plain_json, plain_lines

PIPE_COLUMNS = 65_536
"""A line in a pipe is for grep, and is never broken."""

T = TypeVar("T")


def is_terminal(stream: IO[str] | None) -> bool:
    """Return whether a person reads the stream; a closed stream is None."""
    return stream is not None and not stream.closed and stream.isatty()


class _ConsoleSettings(TypedDict, total=False):
    """The settings of rich's Console that are used here."""

    file: IO[str]
    stderr: bool
    width: int | None
    height: int
    soft_wrap: bool
    force_terminal: bool
    no_color: bool


class _TextSettings(TypedDict, total=False):
    """The settings of rich's `render_str`."""

    style: str | Style
    justify: JustifyMethod | None
    overflow: OverflowMethod | None
    emoji: bool | None
    markup: bool | None
    highlight: bool | None
    highlighter: HighlighterType | None


class Terminal(Console):
    """A console that prints every text literally, and only safe characters of it."""

    def __init__(self, *, markup: bool = False, **settings: Unpack[_ConsoleSettings]) -> None:
        super().__init__(highlight=False, markup=markup, emoji=False, **settings)

    def render_str(self, text: str, **settings: Unpack[_TextSettings]) -> Text:
        """Escape text before rich measures and wraps it."""
        return super().render_str(plain_lines(text), **settings)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Escape text that rich did not get as a str, such as a `Text`."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(plain_lines(segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        """End the command without a fault."""
        reader_is_gone()


def _width_of_stdout() -> int | None:
    """Return None for a terminal: rich asks it for its width."""
    if is_terminal(sys.stdout):
        return None
    return PIPE_COLUMNS


out = Terminal(width=_width_of_stdout())
err = Terminal(stderr=True, soft_wrap=True)

COLOURS = {"closed": "green", "open": "red", "half-open": "yellow"}
REFRESH_INTERVAL_S = 0.5
CHECKS_FAILED = 3
"""Exit code of a command that ended, and some of whose rows or checks failed."""

COMPLETION_OPTIONS = {"show_completion", "install_completion"}

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Watched = Annotated[bool, typer.Option("--watch", help="Refresh twice a second, until Ctrl-C.")]


class CompactHelp(TyperGroup):
    """A group whose help fits 24 lines with all its commands."""

    def get_params(self, ctx: typer.Context) -> list[Any]:  # type: ignore[override]
        """Hide options that are needed once; docs/commands.md describes them."""
        params = super().get_params(ctx)
        for param in params:
            if isinstance(param, TyperOption) and param.name in COMPLETION_OPTIONS:
                param.hidden = True
        return params


def group(
    *,
    cls: type[TyperGroup] = TyperGroup,
    help_text: str = "",
    add_completion: bool = False,
    no_args_is_help: bool = False,
    invoke_without_command: bool = False,
) -> typer.Typer:
    """
    Make a group of commands whose help has no frames, so that it fits 80 columns, 24 lines.

    Args:
        help_text: By default the docstring of the group's callback.
    """
    return typer.Typer(
        cls=cls,
        help=help_text or Default(None),
        add_completion=add_completion,
        no_args_is_help=no_args_is_help,
        invoke_without_command=invoke_without_command,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


def prepare_streams() -> None:
    """Let standard output and error take every character, whatever their encoding."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # the stream is closed, or another program's object
            stream.reconfigure(errors=ENCODING_ERRORS)  # type: ignore[union-attr]


def reader_is_gone() -> NoReturn:
    """End the command without a fault: its reader has all that it wanted (`| head`)."""
    _discard_stdout()
    raise SystemExit(0)


def exit_code(ended: SystemExit) -> int | str | None:
    """Return the command's exit code; 0 where typer made a fault of a reader that left early."""
    if type(sys.stdout).__name__ == "PacifyFlushWrapper":
        return 0
    return ended.code


def flush_streams() -> None:
    """
    Write what is buffered, before Python does so and prints `Exception ignored`.

    Raises:
        OSError: It cannot be written, such as to a full disk.
    """
    try:
        if sys.stdout is not None and not sys.stdout.closed:
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_stdout()
    except OSError:
        _discard_stdout()
        raise


def _discard_stdout() -> None:
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _stdout() -> Iterator[IO[str]]:
    """Return standard output; if it is closed, a stream that discards what is written."""
    try:
        yield sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - ends with the command
    except BrokenPipeError:
        reader_is_gone()


def fail(message: str) -> NoReturn:
    """Print one line about what went wrong, and end with exit code 1."""
    err.print(message, style="red")
    raise typer.Exit(1)


def refuse(message: str) -> NoReturn:
    """Print one line about a wrong argument and the right one, and end with exit code 2."""
    err.print(message, style="red")
    raise typer.Exit(2)


def confirm(question: str, yes: bool, number: int) -> None:
    """
    Ask before many things are changed; end the command unless the answer is yes.

    Args:
        question: What the command is about to do, without the question mark.
        yes: The answer was given on the command line (`--yes`).
        number: How many things are changed; nothing is asked if it is 0.
    """
    if yes or not number:
        return
    if not is_terminal(sys.stdin):
        refuse(f"{question}? there is no terminal to ask at; add --yes")
    typer.confirm(f"{question}?", abort=True, err=True)


def typed(text: str) -> str:
    """Return a text of the command line; `-` stands for standard input."""
    if text != "-":
        return text
    if sys.stdin is None or sys.stdin.closed:
        refuse("`-` reads standard input, which is closed; give the text instead")
    return sys.stdin.read()


def print_json(value: object) -> None:
    """Print one JSON document."""
    _write(_as_json(value, indent=2) + "\n")


def print_json_line(value: object) -> None:
    """Print one JSON document on one line."""
    _write(_as_json(value) + "\n")


def print_answer(text: str, end: str = "\n") -> None:
    """Print an answer: escaped on a terminal, unchanged to a pipe or a file."""
    if out.is_terminal:
        out.print(text, end=end, soft_wrap=True)
    else:
        _write(text + end)


def print_csv(heads: Iterable[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Print CSV whose cells are escaped: a file may be shown on a terminal later."""
    with _stdout() as stream:
        writer = csv.DictWriter(stream, list(heads))
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _csv_cell(value) for name, value in row.items()})


def _csv_cell(value: object) -> object:
    if isinstance(value, str):
        return plain_lines(value)
    return value


def _write(text: str) -> None:
    with _stdout() as stream:
        stream.write(text)
        stream.flush()


def _as_json(value: object, indent: int | None = None) -> str:
    """Write JSON that any program can read, even if the encoding lacks characters."""
    is_utf8 = out.encoding.lower().replace("-", "") == "utf8"
    return plain_json(json.dumps(value, indent=indent, ensure_ascii=not is_utf8))


def watch(read: Callable[[], T], draw: Callable[[T], RenderableType]) -> NoReturn:
    """Draw again and again, until Ctrl-C; an outage of Redis is shown, and waited out."""
    if not out.is_terminal:
        raise typer.BadParameter("the live table needs a terminal; in a pipe, add --json")

    def frame() -> RenderableType:
        try:
            return draw(read())
        except RedisError as error:
            return f"Redis: {named(error)[0]}; trying again"

    try:
        with Live(console=out, auto_refresh=False) as live:
            while True:
                live.update(frame(), refresh=True)
                time.sleep(REFRESH_INTERVAL_S)
    except KeyboardInterrupt:
        raise typer.Exit from None  # Ctrl-C is how a person ends it


def watch_json(read: Callable[[], object]) -> NoReturn:
    """Print a JSON document per line again and again, until Ctrl-C."""
    try:
        while True:
            print_json_line(read())
            time.sleep(REFRESH_INTERVAL_S)
    except KeyboardInterrupt:
        raise typer.Exit from None


def usable_redis_url() -> str:
    """Return REDIS_URL; end the command if it is not a valid address of a Redis."""
    try:
        address()
    except ConfigError as error:
        fail(str(error))
    return redis_url()
