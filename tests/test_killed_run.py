"""A test run that is killed leaves no worker and no server behind."""

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.spawner import Child, spawn
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[1]
HANGING = """
import multiprocessing, os, sys, time
import tests.conftest  # which a test outside of tests does not get by itself
from simulator.client import Simulator
from tests.support.chaos import roles_over
from tests.support.fleet import fleet
from tests.support.postgres import postgres
from tests.support.valkey import Server

def test_that_hangs():
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(3600,)).start()
    with Server() as server, Simulator.start() as simulator, postgres() as url:
        with fleet(server.url, roles_over(simulator)) as workers:
            workers.start(1, "threads", 2)
            workers.start(1, "prefork", 2)
            workers.start(1, "gevent", 2)
            open(os.environ["HANGS"], "w").close()
            time.sleep(3600)
"""
MAKEFILE = """
test:
	@$(PYTEST)
"""
"""As the Makefile of the repository runs it."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the run is; all its processes have its name in their environment or their words."""
    with tempfile.TemporaryDirectory(prefix="killed-run-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL runs as another user
        (folder / "test_hangs.py").write_text(HANGING)
        (folder / "Makefile").write_text(MAKEFILE)
        yield folder
        for pid in processes(folder):
            os.kill(pid, signal.SIGKILL)


def start(folder: Path, *words: str) -> Child:
    """Start `make test`, or what is called there, and wait until the test hangs."""
    pytest_words = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT),
        "-c", str(ROOT / "pyproject.toml"), str(folder / "test_hangs.py"), *words,
    ]  # fmt: skip
    environ = {
        **{name: value for name, value in os.environ.items() if "XDIST" not in name},
        "MARK": str(folder), "HANGS": str(folder / "hangs"), "TMPDIR": str(folder),
        "PYTEST": " ".join(pytest_words), "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    with (folder / "log").open("wb") as log:
        run = spawn(["make", "-C", folder, "test"], env=environ, stdout=log, stderr=log)
    wait_for((folder / "hangs").exists, explain=(folder / "log").read_text)
    return run


def processes(folder: Path) -> dict[int, str]:
    """Name the processes that belong to the run."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            about = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if str(folder).encode() in about and state != "Z":
            found[int(process.name)] = (process / "cmdline").read_text().replace("\0", " ")
    return found


def kill_pytest(run: Child, folder: Path) -> None:
    """SIGKILL to the first pytest alone."""
    (first, *_) = [pid for pid, words in sorted(processes(folder).items()) if "-m pytest" in words]
    os.kill(first, signal.SIGKILL)


def kill_all_pythons(run: Child, folder: Path) -> None:
    """SIGKILL to pytest, xdist's processes and the helper that starts processes, at once."""
    for pid, words in processes(folder).items():
        if "-m pytest" in words or "exec(eval(sys.stdin" in words or "zygote.py" in words:
            os.kill(pid, signal.SIGKILL)


def terminate_make(run: Child, folder: Path) -> None:
    """SIGTERM to make, as a CI sends it."""
    run.terminate()


def press_ctrl_c(run: Child, folder: Path) -> None:
    """SIGINT to all that is in the foreground."""
    os.killpg(run.pid, signal.SIGINT)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="there is no /proc")
@pytest.mark.parametrize("words", [(), ("-n", "2")], ids=["one process", "xdist"])
@pytest.mark.parametrize(
    "end", [kill_pytest, kill_all_pythons, terminate_make, press_ctrl_c], ids=lambda e: e.__name__
)
def test_a_killed_run_leaves_no_process(
    end: Callable[..., None], words: tuple[str, ...], folder: Path
) -> None:
    """However it ends: servers, workers on each pool with their children, forks of the test."""
    run = start(folder, *words)
    assert len(processes(folder)) > 8

    end(run, folder)

    run.wait(180)
    wait_for(lambda: not processes(folder), explain=lambda: processes(folder))
