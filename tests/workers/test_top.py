"""`breakwater top`, in a real terminal over real workers."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from simulator.client import Simulator
from tests.support.fleet import BIN, Fleet, wait_for

ENQUEUE = """
from tasks import complete
for role in ["clarifier", "planner", "coder", "reviewer"]:
    for n in range(3):
        complete.delay(role, f"hi {n}")
"""


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, workers: Fleet, columns: int, lines: int, *words: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        environ = {**workers.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8"}
        self.process = subprocess.Popen(
            [BIN / "breakwater", *words],
            cwd=workers.folder, env=environ, stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        os.set_blocking(self._ours, False)
        self._shown = b""

    def screen(self) -> list[str]:
        """Return the lines of the last picture that is whole."""
        try:
            while data := os.read(self._ours, 1 << 16):
                self._shown += data
        except (BlockingIOError, OSError):
            pass
        pictures = self._shown.decode(errors="replace").split("\x1b[H")
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", pictures[-2] if len(pictures) > 1 else "")
        return plain.replace("\r", "").split("\n")

    def press(self, key: str) -> None:
        """Press a key."""
        os.write(self._ours, key.encode())


@contextmanager
def terminal(workers: Fleet, columns: int, lines: int, *words: str) -> Iterator[Terminal]:
    one = Terminal(workers, columns, lines, *words)
    try:
        yield one
    finally:
        one.process.kill()
        one.process.wait()


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (200, 50)])
def test_the_fleet_is_on_one_screen(
    workers: Fleet, simulator: Simulator, columns: int, lines: int
) -> None:
    """Breakers, roles, who serves them, rates and events; it fits; q ends it."""
    simulator.fault("local", status=401)
    workers.start(1)
    workers.run(ENQUEUE)

    with terminal(workers, columns, lines, "top") as shown:
        wait_for(lambda: any("gemini 100%" in line for line in shown.screen()), 30, shown.screen)
        screen = shown.screen()
        text = "\n".join(screen)
        shown.press("q")
        assert shown.process.wait(180) == 0

    assert len(screen) <= lines
    assert max(map(len, screen)) <= columns
    assert re.search(r"^breakwater \d\d:\d\d:\d\d UTC  1 workers", screen[0])
    assert re.search(r"^local +open +AuthenticationFailed \d+ s", text, re.MULTILINE)
    assert re.search(r"^gemini +closed ", text, re.MULTILINE)
    for role in ("clarifier", "planner", "coder", "reviewer"):
        assert re.search(rf"^{role} ", text, re.MULTILINE)
    assert "breaker local: closed → open (AuthenticationFailed)" in text
    assert ("errors" in text) == (columns == 200)


def test_without_a_ledger_it_says_so_and_shows_the_rest(workers: Fleet) -> None:
    """An operator's machine may not reach the database."""
    workers.environ["LEDGER_URL"] = "sqlite:////nowhere/ledger.db"
    workers.start(1)

    with terminal(workers, 80, 24, "top") as shown:
        wait_for(lambda: any("1 workers" in line for line in shown.screen()), 30, shown.screen)
        text = "\n".join(shown.screen())

    assert "there is no ledger" in text
    assert "clarifier" in text


@pytest.mark.slow
def test_a_pipe_or_a_small_terminal_is_told_what_else_there_is(workers: Fleet) -> None:
    """Exit code 2."""
    piped = workers.command("breakwater", "top")
    with terminal(workers, 60, 20, "top") as small:
        assert small.process.wait(180) == 2

    assert piped.returncode == 2
    assert "ledger summary --json" in " ".join(piped.stderr.split())
