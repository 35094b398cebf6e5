"""Where the commands print: answers to standard output, everything else to standard error."""

import json
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, NoReturn

import typer
from redis.exceptions import RedisError
from rich.console import Console, RenderableType
from rich.live import Live
from typer.core import TyperGroup

from tasks.connection import address, redis_url
from tasks.errors import ConfigError

# A table in a pipe is for grep: nothing is cut off there.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
err = Console(highlight=False, stderr=True, soft_wrap=True)

COLOURS = {"closed": "green", "open": "red", "half-open": "yellow"}
LOOK_EVERY_S = 0.5
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


def fail(message: str) -> NoReturn:
    """Say what went wrong in one line, and end with exit code 1."""
    err.print(message, style="red", markup=False)
    raise typer.Exit(1)


def refuse(message: str) -> NoReturn:
    """Say in one line which word is wrong, and which would be right; exit code 2."""
    err.print(message, style="red", markup=False)
    raise typer.Exit(2)


def print_json(value: Any) -> None:
    """Print one JSON document."""
    out.print_json(json.dumps(value))


def plain(value: object) -> str:
    """Show what came from anywhere without letting it move the cursor."""
    return "".join(c if c.isprintable() else "\ufffd" for c in str(value))


def at_utc(at_ms: int) -> str:
    """Show a moment."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at_ms / 1000))


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
    """Show an age in the largest unit of which it has two."""
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
        with Live(console=out, auto_refresh=False) as live:
            while True:
                if as_json:
                    out.print(json.dumps(look()), soft_wrap=True, markup=False)
                else:
                    live.update(_drawn(look, show), refresh=True)
                time.sleep(LOOK_EVERY_S)
    except KeyboardInterrupt:
        raise typer.Exit from None  # the way to end it


def _drawn(look: Callable[[], Any], show: Callable[[Any], RenderableType]) -> RenderableType:
    try:
        return show(look())
    except RedisError as error:
        return f"Redis does not answer ({type(error).__name__}); looking again"


def usable_redis_url() -> str:
    """Return REDIS_URL; end the command if it is no address of a Redis."""
    try:
        address()
    except ConfigError as error:
        fail(str(error))
    return redis_url()
