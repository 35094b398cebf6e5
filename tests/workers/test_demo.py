"""The demo: the same story in every run, and nothing left behind."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.fleet import wait_for

RUN = [sys.executable, "-c", "from workers.cli import main; main()", "demo"]


def start(folder: Path) -> "subprocess.Popen[str]":
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder)}
    return subprocess.Popen(
        RUN, cwd=folder, env=environ, stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def left_behind(folder: Path) -> list[str]:
    """Name the processes whose environment or command names this run's folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
        except OSError:  # it has just ended
            continue
        if str(folder).encode() in told:
            found.append((process / "cmdline").read_text())
    return found


def test_the_demo_tells_its_story_and_leaves_nothing() -> None:
    """Five failures open the breaker, nobody asks, two probes close it, no prompt is lost."""
    with tempfile.TemporaryDirectory() as name:
        demo = start(Path(name))
        story, _ = demo.communicate(timeout=110)

        assert demo.returncode == 0, story
        told = [
            "closed → open (Overloaded, failures 5)", "nobody asks claude now",
            "open → half-open", "half-open → closed (recovered", "0 lost",
        ]  # fmt: skip
        places = [story.index(line) for line in told]
        assert places == sorted(places)
        assert not left_behind(Path(name))
        assert not list(Path(name).glob("breakwater-*"))


def test_ctrl_c_leaves_nothing() -> None:
    """At any moment: no process, no folder."""
    with tempfile.TemporaryDirectory() as name:
        demo = start(Path(name))
        wait_for(lambda: len(left_behind(Path(name))) > 4, 60)

        demo.send_signal(signal.SIGINT)
        story, _ = demo.communicate(timeout=60)

        assert demo.returncode == 130, story
        wait_for(lambda: not left_behind(Path(name)), 20, lambda: left_behind(Path(name)))
        assert not list(Path(name).glob("breakwater-*"))
