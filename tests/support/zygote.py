"""
The helper process of `tests/support/spawner.py`: it starts processes, and ends with the test run.

A request comes on the socket whose descriptor is the first argument: one byte, and with it the
descriptors of a new connection, stdin, stdout and stderr. On the connection comes a line of JSON:
`command`, `cwd`, `env`, `user`, and `fork`, which is true if a fork of this process can run the
command. The answers are two lines: the process's id and, when it has ended, its return code. If the
connection is closed before, the process's session is killed.

This file runs as a script, without our packages: a forked process imports them anew.
"""

import ctypes
import gc
import io
import json
import os
import pwd
import selectors
import signal
import socket
import sys
import threading
import time
import types
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path

LIBRARIES = (
    "anthropic", "celery.__main__", "celery.apps.worker", "celery.bin.celery", "celery.bin.worker",
    "celery.concurrency.prefork", "celery.concurrency.solo", "celery.concurrency.thread",
    "celery.worker.components", "celery.worker.consumer", "celery.worker.worker", "genai_prices",
    "google.genai.types", "httpx2", "jsonschema", "kombu.transport.redis", "openai",
    "openai.resources.chat", "openai.resources.responses", "pydantic", "redis", "rich.live",
    "rich.table", "sqlalchemy.dialects.sqlite", "structlog", "typer", "yaml",
)  # fmt: skip
PR_SET_PDEATHSIG = 1

Main = Callable[[], object]


class Zygote:
    """Starts processes until the socket is closed, and then kills those that are left."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._running: dict[int, socket.socket] = {}
        self._orphaned: set[int] = set()
        """Sessions that go on without their first process."""
        self._woken, waker = socket.socketpair()
        waker.setblocking(False)
        self._woken.setblocking(False)
        self._waker = waker
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker.fileno())
        self._selector = selectors.DefaultSelector()
        for each in (control, self._woken):
            self._selector.register(each, selectors.EVENT_READ)

    def serve(self) -> Main | None:
        """Start processes; return None at the end, or in a forked process what it must run."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._woken:
                    self._reap()
                elif key.fileobj is self._control:
                    request, files, _, _ = socket.recv_fds(self._control, 1, 4)
                    if not request:
                        self._kill_all()
                        return None
                    if (main := self._start(socket.socket(fileno=files[0]), files[1:])) is not None:
                        return main
                elif key.data in self._running:
                    self._kill(key.data)
                    self._forget(key.data)

    def _start(self, connection: socket.socket, files: list[int]) -> Main | None:
        with connection.makefile("rb") as reader:
            line = reader.readline()
        if line and (pid := os.fork()) == 0:
            connection.close()
            self._close()
            return become(json.loads(line), files)
        for each in files:
            os.close(each)
        if line:
            self._running[pid] = connection
            self._selector.register(connection, selectors.EVENT_READ, pid)
            tell(connection, pid)
        else:
            connection.close()
        return None

    def _reap(self) -> None:
        with suppress(BlockingIOError):
            self._woken.recv(4096)
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = ended
                if pid in self._running:
                    tell(self._running[pid], os.waitstatus_to_exitcode(status))
                    self._forget(pid)
                if exists(pid):
                    self._orphaned.add(pid)
        self._orphaned = {*filter(exists, self._orphaned)}

    def _forget(self, pid: int) -> None:
        connection = self._running.pop(pid)
        self._selector.unregister(connection)
        connection.close()

    def _kill(self, pid: int) -> None:
        with suppress(OSError):
            os.killpg(pid, signal.SIGKILL)

    def _kill_all(self) -> None:
        for pid in (*self._running, *filter(exists, self._orphaned)):
            self._kill(pid)

    def _close(self) -> None:
        """Leave nothing of this open in a forked process."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._selector.close()
        for each in (self._control, self._woken, self._waker, *self._running.values()):
            each.close()


def exists(session: int) -> bool:
    """Tell whether a process of this session runs."""
    try:
        os.killpg(session, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def tell(connection: socket.socket, number: int) -> None:
    """Send a line."""
    with suppress(OSError):
        connection.sendall(b"%d\n" % number)


def become(order: dict, files: list[int]) -> Main:
    """Make this process the one that is wanted, and return its main function."""
    os.setsid()
    if order["user"]:
        who = pwd.getpwnam(order["user"])
        os.initgroups(who.pw_name, who.pw_gid)
        os.setgid(who.pw_gid)
        os.setuid(who.pw_uid)
    end_with_parent()
    for number, each in enumerate(files):
        os.dup2(each, number)
        os.close(each)
    os.chdir(order["cwd"])
    command, env = order["command"], order["env"]
    if not order["fork"]:
        try:
            os.execvpe(command[0], command, env)
        except OSError as error:
            print(f"{command[0]}: {error}", file=sys.stderr)
            os._exit(127)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    reopen()
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    if Path(command[0]).name == "celery":
        sys.argv, sys.path[0] = command, str(Path(command[0]).parent)
        return lambda: import_module("celery.__main__").main()
    if Path(command[0]).name == "breakwater":
        sys.argv, sys.path[0] = command, str(Path(command[0]).parent)
        return lambda: import_module("workers.cli").main()
    sys.argv, sys.path[0] = ["-c", *command[3:]], ""
    return lambda: exec(compile(command[2], "<string>", "exec"), main.__dict__)


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent dies; Linux alone can."""
    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def reopen() -> None:
    """Open the standard streams anew over what stands behind their numbers now."""
    for number, name, mode in ((0, "stdin", "rb"), (1, "stdout", "wb"), (2, "stderr", "wb")):
        old = getattr(sys, name)
        new = io.TextIOWrapper(
            os.fdopen(number, mode, closefd=False), old.encoding, old.errors,
            line_buffering=name == "stderr" or os.isatty(number),
        )  # fmt: skip
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)


def preload() -> None:
    """Import what most processes of tests need, once for all of them."""
    for name in LIBRARIES:
        with suppress(ImportError):
            import_module(name)
    gc.collect()
    gc.freeze()
    assert threading.active_count() == 1, threading.enumerate()


if __name__ == "__main__":
    preload()
    main = Zygote(socket.socket(fileno=int(sys.argv[1]))).serve()
    if main:
        sys.exit(main())
