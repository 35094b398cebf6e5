"""The demo: the same story in every run, real providers when there are keys, and nothing left."""

import os
import pty
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulator.client import Simulator
from tests.support.fleet import wait_for

RUN = [sys.executable, "-c", "from workers.cli import main; main()", "demo"]
SECOND_SCREEN = ("\x1b[?1049h", "\x1b[?1049l")
"""What opens and leaves the screen of a terminal that does not scroll."""


pytestmark = pytest.mark.slow


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder: home, place of temporary files, and mark of all processes of a run."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def start(folder: Path, *words: str, **environ: str) -> "subprocess.Popen[str]":
    """Start the demo without a terminal."""
    return subprocess.Popen(
        [*RUN, *words], cwd=folder, env=environment(folder) | environ, stdin=subprocess.DEVNULL,
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def environment(folder: Path) -> dict[str, str]:
    """Return what a demo of this run sees of the world."""
    return {"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder)}


def left_behind(folder: Path) -> list[str]:
    """Name the processes whose environment or command names this run's folder, and its files."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
        except OSError:  # it has just ended
            continue
        if str(folder).encode() in told:
            found.append((process / "cmdline").read_text())
    return found + [path.name for path in folder.iterdir()]


def test_the_demo_tells_its_story_and_leaves_nothing(folder: Path) -> None:
    """Five failures open the breaker, nobody asks, two probes close it, no prompt is lost."""
    demo = start(folder, "--simulated", ANTHROPIC_API_KEY="sk-ant-CANARYKEY")

    story, _ = demo.communicate(timeout=500)

    assert demo.returncode == 0, story
    told = [
        "closed → open (Overloaded, failures 5)", "no worker calls claude now",
        "open → half-open", "half-open → closed (recovered", "0 lost, 0 paid for twice",
    ]  # fmt: skip
    places = [story.index(line) for line in told]
    assert places == sorted(places)
    assert not left_behind(folder)


def test_a_signal_while_it_starts_leaves_nothing(folder: Path) -> None:
    """The workers have not even read their settings."""
    demo = start(folder)
    wait_for(lambda: len(left_behind(folder)) > 4, 60)

    demo.send_signal(signal.SIGTERM)
    story, _ = demo.communicate(timeout=500)

    assert demo.returncode == 130, story
    assert not left_behind(folder)


def test_a_terminal_shows_the_story_live_until_ctrl_c(folder: Path) -> None:
    """One screen that does not scroll, given back by Ctrl-C together with all the rest."""
    screen = b""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        size = {"COLUMNS": "80", "LINES": "24", "TERM": "xterm-256color"}
        os.execve(sys.executable, RUN, environment(folder) | size)
    try:
        while b"opens: Overloaded" not in screen and (shown := _read(terminal)):
            screen += shown
        os.write(terminal, b"\x03")
        while shown := _read(terminal):
            screen += shown
    finally:
        os.close(terminal)
        _, status = os.waitpid(pid, 0)

    seen = screen.decode(errors="replace")
    assert os.waitstatus_to_exitcode(status) == 130, seen[-2000:]
    assert [seen.count(each) for each in SECOND_SCREEN] == [1, 1]
    assert "probes in" in seen
    assert "after claude: Overloaded" in seen
    assert not left_behind(folder)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux' way to say that the other end is closed
        return b""


@pytest.fixture
def vendors(simulator: Simulator) -> dict[str, str]:
    """Keys of two vendors, whose places the simulator takes."""
    return {
        "ANTHROPIC_API_KEY": "sk-ant-CANARYKEY", "ANTHROPIC_BASE_URL": simulator.url("anthropic"),
        "GEMINI_API_KEY": "AIzaCANARYKEY", "GOOGLE_GEMINI_BASE_URL": simulator.url("google"),
    }  # fmt: skip


def test_with_keys_real_providers_are_asked(
    folder: Path, simulator: Simulator, vendors: dict[str, str]
) -> None:
    """Four short prompts; a dead key is seen, and the next provider answers."""
    simulator.fault("anthropic", "unauthenticated")
    simulator.settings("google", answer="as you wish")

    demo = start(folder, **vendors)
    story, _ = demo.communicate(timeout=500)

    assert demo.returncode == 0, story
    assert story.count("as you wish") == 4
    assert "closed → open (AuthenticationFailed, failures 1)" in story
    assert "breaker google: closed" in story
    assert "4 of 4 prompts answered" in story
    assert "CANARYKEY" not in story
    assert len(simulator.hits("google")) == 4
    assert not left_behind(folder)


def test_with_dead_keys_alone_the_demo_says_so(
    folder: Path, simulator: Simulator, vendors: dict[str, str]
) -> None:
    """Exit code 1 at once, with the reason; no prompt waits for a key to come alive."""
    simulator.fault("anthropic", "unauthenticated")
    simulator.fault("google", "quota")

    demo = start(folder, **vendors)
    story, _ = demo.communicate(timeout=500)

    assert demo.returncode == 1, story
    assert "anthropic: AuthenticationFailed, google: QuotaExhausted" in story
    assert "breakwater doctor" in story
