"""
Start the processes of tests: cheaply, and so that none outlives the run.

Every process is a child of one helper (`tests/support/zygote.py`) and has a connection to this
process. When the connection is closed, the helper kills the process and its whole session. This
also happens when this process is killed. A Python command is forked from the helper, which has
imported the libraries already: to import them takes 1.0 s of CPU.
"""

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from tests.support.waiting import LIMIT_S

Command = Sequence[str | os.PathLike[str]]
BIN = Path(sys.executable).parent
ZYGOTE = Path(__file__).with_name("zygote.py")
FORKED = (str(BIN / "celery"), str(BIN / "breakwater"))
PATCHED = {"gevent", "eventlet"}
"""Words of commands that patch the standard library before anything is imported."""
AT_START = ("PYTHON", "LD_", "DYLD_", "LC_", "LANG", "FAKETIME")
"""Starts of the names of variables that an interpreter reads when it starts."""


class Child:
    """
    A process; it has the methods of `subprocess.Popen` that tests use.

    Attributes:
        returncode: As Popen's: None while the process runs, negative for a signal.
    """

    def __init__(self, connection: socket.socket, args: Sequence[str]) -> None:
        self.args = args
        self.returncode: int | None = None
        self._connection = connection
        self._reader = connection.makefile("rb")
        self._lock = threading.Lock()
        self.pid: int = json.loads(self._reader.readline())

    def poll(self) -> int | None:
        """Return the return code if the process has ended, else None."""
        return self._await(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, and return the return code."""
        code = self._await(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(list(self.args), timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal to the process alone, if it has not ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # the helper has reaped it meanwhile
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def kill_session(self) -> None:
        """Send SIGKILL to the process and its children, and wait for its end."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self.wait()

    def _await(self, timeout: float | None) -> int | None:
        with self._lock:
            if self.returncode is None and select.select([self._connection], [], [], timeout)[0]:
                line = self._reader.readline()
                # No line: the helper has ended, and all its children with it.
                self.returncode = json.loads(line) if line else -signal.SIGKILL
                self._reader.close()
                self._connection.close()
        return self.returncode


def spawn(
    command: Command,
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    stdin: int | IO[Any] = subprocess.DEVNULL,
    stdout: int | IO[Any] = 1,
    stderr: int | IO[Any] = 2,
    user: str | None = None,
    fresh: bool = False,
) -> Child:
    """
    Start a process in a session of its own.

    Args:
        command: The program, as a path or as a name on this process's PATH, and its arguments.
        env: As Popen's.
        cwd: As Popen's.
        stdin: A descriptor, an open file, or `subprocess.DEVNULL`.
        stdout: As stdin.
        stderr: As stdin, or `subprocess.STDOUT`.
        user: As Popen's, of a program that is not Python.
        fresh: Start an interpreter that has imported nothing.
    """
    words = [os.fspath(each) for each in command]
    environ = dict(os.environ if env is None else env)
    order = {
        "command": words,
        "env": environ,
        "cwd": os.fspath(cwd or Path.cwd()),
        "fork": not fresh and _can_fork(words, environ),
        "user": user,
    }
    with open(os.devnull, "r+b") as nothing:
        files = {subprocess.DEVNULL: nothing, subprocess.STDOUT: stdout}
        numbers = [
            each if isinstance(each, int) else each.fileno()
            for each in (
                files.get(f, f) if isinstance(f, int) else f for f in (stdin, stdout, stderr)
            )
        ]
        connection = _helper(os.getpid()).spawn(order, numbers)
    return Child(connection, words)


def run(
    command: Command,
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    typed: str = "",
    timeout_s: float = LIMIT_S,
    fresh: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, and return what it printed, as `subprocess.run` does."""
    with TemporaryFile("w+") as stdin, TemporaryFile("w+") as out, TemporaryFile("w+") as err:
        stdin.write(typed)
        stdin.seek(0)
        child = spawn(command, env=env, cwd=cwd, stdin=stdin, stdout=out, stderr=err, fresh=fresh)
        try:
            code = child.wait(max(timeout_s, LIMIT_S))
        except subprocess.TimeoutExpired as error:
            child.kill_session()
            error.add_note(_text(out) + _text(err))
            raise
        return subprocess.CompletedProcess(child.args, code, _text(out), _text(err))


class _Helper:
    """The helper process, and the socket that it takes orders from."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, ZYGOTE, str(theirs.fileno())],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True,
                env={name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ},
            )  # fmt: skip
        atexit.register(self._stop)

    def spawn(self, order: Mapping[str, Any], files: Sequence[int]) -> socket.socket:
        """Send an order, and return the connection that keeps its process alive."""
        ours, theirs = socket.socketpair()
        with self._lock, theirs:
            socket.send_fds(self._control, [b"+"], [theirs.fileno(), *files])
        ours.sendall(json.dumps(order).encode() + b"\n")
        return ours

    def _stop(self) -> None:
        self._control.close()
        self._process.wait()


@lru_cache
def _helper(process_id: int) -> _Helper:
    """Start the helper of this process; a fork of this process gets one of its own."""
    return _Helper()


def _can_fork(words: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Tell whether the command is Python, and starts in no special way."""
    ours = words[0] in FORKED or list(words[:2]) == [sys.executable, "-c"]
    return ours and not PATCHED & {*words} and not any(n.startswith(AT_START) for n in environ)


def _text(file: IO[str]) -> str:
    file.seek(0)
    return file.read()
