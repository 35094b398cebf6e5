"""`breakwater top`: watch the whole fleet on one screen, all day."""

import os
import select
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import typer
from redis.exceptions import RedisError
from rich.console import RenderableType
from rich.live import Live

from breaker import Breakers
from breakwater.redis.connection import client
from breakwater.redis.foreign_keys import named
from tasks.operations.snapshot import Dashboard
from workers.commands.queues import roles_of_file
from workers.commands.top_view import draw
from workers.terminal.console import out, usable_redis_url

REFRESH_INTERVAL_S = 1.0
MIN_SIZE = (80, 24)
"""Columns and lines."""
TIMEOUT_S = 2.0
QUIT_KEYS = {"q", "Q", "\x1b"}


def top() -> None:
    """
    Watch the whole fleet on one screen; q ends it.

    Breakers, queues and the last events as they are now; calls per minute, ok, p50,
    p95 and dollars per hour of the ledger's last five minutes (LEDGER_URL).
    """
    _check_terminal()
    url = usable_redis_url()
    dashboard = Dashboard(client(url), Breakers.from_url(url, timeout_s=TIMEOUT_S))
    with (
        suppress(KeyboardInterrupt),
        _read_keys() as key_within,
        Live(console=out, screen=True, auto_refresh=False) as live,
    ):
        while True:
            live.update(_frame(dashboard), refresh=True)
            if key_within(REFRESH_INTERVAL_S) in QUIT_KEYS:
                return


def _check_terminal() -> None:
    if not out.is_terminal or not sys.stdin.isatty():
        raise typer.BadParameter(
            "it needs a terminal; in a pipe there are `queues --json`, `breakers --json` and "
            "`ledger summary --json`"
        )
    if (size := out.size) < MIN_SIZE:
        raise typer.BadParameter(
            f"this terminal has {size.width} columns and {size.height} lines; at least "
            f"{MIN_SIZE[0]} and {MIN_SIZE[1]} are needed"
        )


def _frame(dashboard: Dashboard) -> RenderableType:
    try:
        return draw(dashboard.snapshot(roles_of_file()), out.width, out.height)
    except RedisError as error:
        return f"Redis: {named(error)[0]}; trying again"


@contextmanager
def _read_keys() -> Iterator[Callable[[float], str]]:
    """
    Read keys as they are pressed, and restore the terminal's settings afterwards.

    Yields:
        A function that waits for the next key for a time in seconds; it returns an empty text if
        none is pressed.
    """
    file = sys.stdin.fileno()
    settings = termios.tcgetattr(file)
    tty.setcbreak(file)

    def key_within(timeout_s: float) -> str:
        ready, *_ = select.select([file], [], [], timeout_s)
        if not ready:
            return ""
        return os.read(file, 8).decode(errors="replace")

    try:
        yield key_within
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, settings)
