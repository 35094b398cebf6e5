"""One process that serves the vendors and their control API until it is stopped."""

import asyncio
import contextlib
import json
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable

from simulator.connection import JSON, Connection, Request, json_bytes
from simulator.control import Control
from simulator.faults import BadOrder
from simulator.hits import HitLog
from simulator.labels import Labels
from simulator.ports import Ports
from simulator.vendor import Vendor

PARENT_CHECK_S = 0.5


async def serve(host: str, port: int, log_size: int, *, with_parent: bool) -> None:
    """
    Serve until SIGTERM or SIGINT; print one line of JSON with host and port once ready.

    Args:
        host: The address to listen on.
        port: 0 takes a free port.
        log_size: The number of hits to keep.
        with_parent: Also stop when stdin is closed or the parent process is gone.
    """
    # One descriptor per connection: the usual soft limit of 1,024 is just below what we promise.
    hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
    labels, hits = Labels(), HitLog(log_size)
    vendor = Vendor(labels, hits)

    async def handle(request: Request, connection: Connection) -> None:
        label, _, path = request.path.lstrip("/").partition("/")
        if label == "_control":
            await _control(control, path, request, connection)
        else:
            await vendor.answer(label, path, request, connection)

    ports = Ports(host, handle)
    control = Control(labels, hits, ports)
    number = await ports.open("", port)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    parent_watch = None  # a task without a reference may be garbage collected
    if with_parent:
        threading.Thread(target=_watch_stdin, args=(loop, stop.set), daemon=True).start()
        parent_watch = loop.create_task(_watch_parent(os.getppid(), stop))
    sys.stdout.write(json.dumps({"host": host, "port": number}) + "\n")
    sys.stdout.flush()
    await stop.wait()
    if parent_watch:
        parent_watch.cancel()
    ports.close()


async def _control(control: Control, path: str, request: Request, connection: Connection) -> None:
    try:
        body = await request.body
        order = json.loads(body) if body else {}
        answer = await control.obey(request.method, path, request.query, order)
        connection.send(200, JSON, json_bytes(answer))
    except (BadOrder, LookupError, ValueError, TypeError) as error:
        status = 404 if isinstance(error, LookupError) else 400
        connection.send(status, JSON, json_bytes({"error": str(error)}))


def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    # Not sys.stdin: a thread that holds its lock delays the end of the interpreter by a second.
    while os.read(0, 4096):
        pass
    with contextlib.suppress(RuntimeError):  # the loop has ended already
        loop.call_soon_threadsafe(stop)


async def _watch_parent(parent: int, stop: asyncio.Event) -> None:
    while os.getppid() == parent:
        await asyncio.sleep(PARENT_CHECK_S)
    stop.set()
