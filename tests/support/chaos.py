"""Injuries to a fleet, and the account of every single task afterwards."""

import json
import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import redis

from simulator.client import Simulator
from tasks.delivery.delivery_store import MAX_LOST
from tests.support.fleet import Fleet, wait_for

ENQUEUE = """
import uuid
from tasks import complete
for _ in range({number}):
    print(complete.delay({role!r}, f"prompt {{uuid.uuid4()}}").id)
"""


def roles_over(simulator: Simulator, **more: str) -> str:
    """One role over one provider, so that every call is one of its hits; one SDK to import."""
    extra = "".join(f"\n  {name}: {text}" for name, text in more.items())
    return f"""
providers:
  claude: {{adapter: openai-chat, model: claude-haiku-5-5, api_key: k, base_url: "{simulator.url("claude")}/v1"}}
  gpt: {{adapter: openai-chat, model: gpt-6-luna, api_key: k, base_url: "{simulator.url("gpt")}/v1"}}
roles:
  coder: {{chain: [claude]}}
  other: {{chain: [gpt]}}{extra}
"""


def enqueue(fleet: Fleet, number: int, role: str = "coder") -> list[str]:
    """Enqueue so many different prompts; return their ids."""
    return fleet.run(ENQUEUE.format(number=number, role=role), timeout_s=300).split()


@dataclass
class Account:
    """What became of the tasks, by the results and by the simulator's log alone."""

    lost: list[str]
    statuses: Counter[str]
    paid: int
    """Calls that were answered, or whose caller vanished while they ran."""
    again: int
    """Of those, the ones that were not their task's first."""
    counted: int
    """`duplicates`, as Redis counts them for the fleet."""
    shown: int
    """`duplicates`, as the results show them; a buried task's letter shows each lost call."""
    buried: list[int]
    """Of each task that is a dead letter, the calls whose workers were lost."""

    @property
    def settled(self) -> bool:
        """Tell whether each task was answered, or cost as many workers as one may."""
        answered = sum(self.statuses.values()) - len(self.buried)
        expected = Counter(SUCCESS=answered, FAILURE=len(self.buried))
        return (
            not self.lost
            and self.statuses == expected
            and min(self.buried, default=MAX_LOST) >= MAX_LOST
        )

    def __str__(self) -> str:
        """Say it in one line."""
        return (
            f"lost {len(self.lost)}, {dict(self.statuses)}, paid {self.paid}, "
            f"again {self.again}, counted {self.counted}, shown {self.shown}, "
            f"buried {len(self.buried)}"
        )


def account(client: Any, simulator: Simulator, ids: list[str], label: str = "claude") -> Account:
    """Account for every id."""
    metas = {task_id: client.get(f"celery-task-meta-{task_id}") for task_id in ids}
    known = [json.loads(meta) for meta in metas.values() if meta]
    paid = [hit for hit in simulator.hits(label) if hit["status"] in (200, None)]
    # A caller killed in the middle of sending has a body, and a hash, that no other call has.
    firsts = min(len({hit["body_sha256"] for hit in paid}), len(ids))
    letters = [json.loads(letter.get("attempts", "[]")) for _, letter in client.xrange("dead")]
    buried = [sum(call["error"] == "WorkerLost" for call in calls) for calls in letters]
    return Account(
        lost=[task_id for task_id, meta in metas.items() if not meta],
        statuses=Counter(meta["status"] for meta in known),
        paid=len(paid),
        again=len(paid) - firsts,
        counted=int(client.hget("delivery", "duplicates") or 0),
        shown=sum(m["result"].get("duplicates", 0) for m in known if m["status"] == "SUCCESS")
        + sum(calls - 1 for calls in buried),
        buried=buried,
    )


def drained(client: Any, *queues: str) -> bool:
    """Tell whether nothing waits and nobody holds anything, at one moment: it moves between them."""
    return not client.exists(*queues, "taken", "delayed")


def wait_until_drained(client: Any, fleet: Fleet, within_s: float, *queues: str) -> float:
    """Wait for the last task; return how long that took."""
    started = time.monotonic()
    wait_for(lambda: _quietly(drained, client, *queues), within_s, lambda: fleet.logs()[-5000:])
    return time.monotonic() - started


def _quietly(step: Callable[..., bool], *args: Any) -> bool:
    with suppress(redis.RedisError):
        return step(*args)
    return False


def kill(fleet: Fleet, number: int) -> None:
    """SIGKILL a worker with all its children."""
    os.killpg(fleet.workers[number].pid, signal.SIGKILL)
    fleet.workers[number].wait()


class Killer:
    """Kills a random worker again and again, and starts another in its place."""

    def __init__(self, fleet: Fleet, simulator: Simulator, pool: str, seed: int) -> None:
        self._fleet = fleet
        self._simulator = simulator
        self._pool = pool
        self._dice = random.Random(seed)
        self._alive = list(range(len(fleet.workers)))
        self.kills = 0
        self.in_flight = 0
        """Calls that were out at the kills, of all workers."""

    def run(self, for_s: float, every_s: float = 2.0, concurrency: int = 8) -> None:
        """Kill for so many seconds."""
        ends_at = time.monotonic() + for_s
        while time.monotonic() < ends_at:
            time.sleep(every_s)
            if not self.kills:
                wait_for(lambda: self._simulator.in_flight("claude"), explain=self._fleet.logs)
            number = self._alive.pop(self._dice.randrange(len(self._alive)))
            self.in_flight += self._simulator.in_flight("claude")
            if self._pool == "prefork" and self._dice.random() < 0.5:
                # The parent alone: its children are orphans, and go on for a moment.
                os.kill(self._fleet.workers[number].pid, signal.SIGKILL)
                time.sleep(0.3)
            kill(self._fleet, number)
            self.kills += 1
            self._alive.append(self._fleet.start_one(self._pool, concurrency))


class TakeWindow:
    """
    A relay before Redis that strikes between a take and its reply.

    Args:
        port: Redis'.
        sha: Of the script that takes.
        strike: Called when a take has brought messages, whose reply is then dropped.
        silently: Leave that connection open, and say nothing more.
    """

    def __init__(
        self, port: int, sha: str, strike: Callable[[], None], *, silently: bool = False
    ) -> None:
        self._port, self._sha, self._strike = port, sha.encode(), strike
        self._silently = silently
        self.armed = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept nobody any more."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                taking = threading.Event()
                for pump in (self._up, self._down):
                    threading.Thread(
                        target=pump, args=(client, server, taking), daemon=True
                    ).start()

    def _up(self, client: socket.socket, server: socket.socket, taking: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                if self._sha in data:
                    taking.set()
                server.sendall(data)
        server.close()

    def _down(self, client: socket.socket, server: socket.socket, taking: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 20):
                brought = taking.is_set() and not data.startswith((b"*0", b"-"))
                taking.clear()
                if brought and self.armed:
                    self.armed = False
                    self._strike()
                    if self._silently:
                        return
                    break
                client.sendall(data)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)  # while the other thread reads, closing tells nobody
        client.close()
