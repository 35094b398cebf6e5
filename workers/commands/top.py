"""`breakwater top`: the whole fleet on one screen, all day."""

import os
import select
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from redis.exceptions import RedisError
from rich.live import Live

from breaker import Breakers
from breakwater.config import role_names
from breakwater.errors import ConfigError
from breakwater.redis.connection import client
from breakwater.redis.foreign_keys import named
from tasks.operations.snapshot import Dashboard
from workers.commands.top_view import draw
from workers.terminal.console import out, usable_redis_url

LOOK_EVERY_S = 1.0
LEAST = (80, 24)
TIMEOUT_S = 2.0


def top() -> None:
    """
    Watch the whole fleet on one screen; q ends it.

    Breakers, queues and the last events as they are; calls a minute, ok, p50, p95 and
    dollars an hour are of the ledger's last five minutes (LEDGER_URL).
    """
    if not out.is_terminal or not sys.stdin.isatty():
        raise typer.BadParameter(
            "it needs a terminal; in a pipe there are `queues --json`, `breakers --json` and "
            "`ledger summary --json`"
        )
    if (size := out.size) < LEAST:
        raise typer.BadParameter(
            f"this terminal has {size.width} columns and {size.height} lines; at least "
            f"{LEAST[0]} and {LEAST[1]} are needed"
        )
    url = usable_redis_url()
    watch = Dashboard(client(url), Breakers.from_url(url, timeout_s=TIMEOUT_S))
    with _keys() as pressed, Live(console=out, screen=True, auto_refresh=False) as live:
        try:
            while True:
                try:
                    scene = watch.snapshot(_roles())
                    live.update(draw(scene, out.width, out.height), refresh=True)
                except RedisError as error:
                    told = f"Redis: {named(error)[0]}; looking again"
                    live.update(told, refresh=True)
                if pressed(LOOK_EVERY_S) in {"q", "Q", "\x1b"}:
                    break
        except KeyboardInterrupt:
            pass


def _roles() -> frozenset[str]:
    try:
        return role_names() or frozenset()
    except ConfigError:  # what workers have said will do
        return frozenset()


@contextmanager
def _keys() -> Iterator["Pressed"]:
    """Read keys as they are pressed, and leave the terminal as it was."""
    file = sys.stdin.fileno()
    before = termios.tcgetattr(file)
    tty.setcbreak(file)
    try:
        yield Pressed(file)
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, before)


class Pressed:
    """The next key, if one is pressed in time."""

    def __init__(self, file: int) -> None:
        self._file = file

    def __call__(self, within_s: float) -> str:
        """Wait that long; return an empty text if there was none."""
        ready, *_ = select.select([self._file], [], [], within_s)
        return os.read(self._file, 8).decode(errors="replace") if ready else ""
