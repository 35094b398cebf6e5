"""
Worker processes that hammer one breaker, and die by kill -9 while they probe.

`python -m tests.support.breaker_stress URL FOLDER` is the nursery: one thread, no breaker of its
own, it forks a worker in milliseconds and takes the dead away. Nothing is shared with the workers
that a dead one could hold: a byte of mapped memory says how the provider does, and each worker
appends to a log of its own, one write a line.
"""

import faulthandler
import logging
import mmap
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
import structlog

from breaker import BreakerOpen, Breakers
from breaker.fleet import Options
from tests.support.waiting import wait_until

NAME, KEY, EVENTS = "x", "breaker:{x}", "breaker:{x}:events"
LEASE_S = 0.5
RULES: Options = {
    "fail_max": 5, "success_threshold": 3, "max_probes": 2, "reset_timeout": 0.3,
    "lease_s": LEASE_S,
}  # fmt: skip
THREADS = 4  # in a process; the first calls, the others admit and record
LONGEST_CALL_S = 0.8  # outlives its lease unless that is renewed

UP, DOWN, SHAKY, ENOUGH = b"u", b"d", b"s", b"e"


class ProviderDownError(Exception):
    """What the provider says when it is ill."""


class Worker:
    """
    One process: several threads that call through the breaker, each action in the log.

    Args:
        url: Of Redis.
        folder: Where the health and the logs are.
    """

    def __init__(self, url: str, folder: Path) -> None:
        with (folder / "health").open("rb") as file:
            self.health = mmap.mmap(file.fileno(), 1, prot=mmap.PROT_READ)
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self.file = os.open(folder / f"{os.getpid()}.log", append)
        # Patient, so that a stopped process or a loaded machine is no outage: this is about Redis.
        self.breakers = Breakers.from_url(url, timeout_s=20)
        self.breaker = self.breakers.get(NAME, **RULES)

    def run(self) -> None:
        """Call until it is enough."""
        stories = [self.call_whole, *[self.call_in_halves] * (THREADS - 1)]
        threads = [threading.Thread(target=self.repeat, args=(story,)) for story in stories]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.breakers.close()

    def repeat(self, story: Any) -> None:
        """Go on until it is enough; wait about as long as a refusal advises."""
        while self.health[:1] != ENOUGH:
            try:
                story()
            except BreakerOpen as error:
                if error.__cause__ is None:
                    self.log("refused")
                time.sleep(random.uniform(0.3, 1) * min(0.04, error.retry_in_s))

    def call_whole(self) -> None:
        """Let the breaker call; its token is its own affair."""
        try:
            self.breaker.call(self.ask_provider)
        except ProviderDownError:
            time.sleep(0.01)

    def call_in_halves(self) -> None:
        """Admit and record; now and then forget the permit, shrug, or say it twice."""
        permit = self.breaker.admit()
        self.log("grant", permit.token, permit.view.generation, permit.state)
        if random.random() < 0.03:
            self.log("drop", permit.token)
            return
        try:
            self.ask_provider()
            outcome: Any = "success"
        except ProviderDownError:
            outcome = "failure"
        if random.random() < 0.05:
            outcome = "neutral"
        self.log("tell", permit.token, outcome)
        view = self.breaker.record(permit, outcome, reason="ProviderDown")
        self.log("told", permit.token, view.generation, view.state)
        if random.random() < 0.05:
            self.breaker.record(permit, "failure", reason="SaidTwice")

    def ask_provider(self) -> None:
        """Take some time, now and then a long one, and fail if the provider is ill by then."""
        self.log("run")
        chance = random.random()
        slow_s = LONGEST_CALL_S if chance < 0.03 else 0.2 if chance < 0.1 else 0.04
        time.sleep(slow_s * random.uniform(0.25, 1))
        health = self.health[:1]
        if health == DOWN or (health == SHAKY and random.random() < 0.5):
            raise ProviderDownError

    def log(self, *words: object) -> None:
        """Append one line in one write: a kill leaves it whole or not there."""
        os.write(self.file, (" ".join(map(str, words)) + "\n").encode())


def nursery(url: str, folder: Path) -> None:
    """Start (`start`) and take away (`bury PID`) as stdin says; take all along at its end."""
    faulthandler.register(signal.SIGUSR1)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    for line in sys.stdin:
        match line.split():
            case ["start"]:
                pid = os.fork()
                if not pid:
                    _live(url, folder)
                print(pid, flush=True)
            case ["bury", number]:
                pid, status = os.waitpid(int(number), os.WNOHANG)
                print(os.waitstatus_to_exitcode(status) if pid else "alive", flush=True)
    os.killpg(0, signal.SIGKILL)


def _live(url: str, folder: Path) -> None:
    """Be a worker; any exception in any thread is the end of it, with a status that tells."""

    def die(args: threading.ExceptHookArgs) -> None:
        traceback.print_exception(args.exc_value)
        os._exit(3)

    threading.excepthook = die
    stacks = (folder / f"{os.getpid()}.stacks").open("wb")  # shared, they would be a jumble
    faulthandler.register(signal.SIGUSR1, file=stacks)
    os.dup2(2, 1)  # stdout is the nursery's, to answer on
    try:
        Worker(url, folder).run()
        os._exit(0)
    finally:  # not after a good end: that was the end of the process
        traceback.print_exc()
        os._exit(4)


class Herd:
    """
    The workers as their tormentor sees them.

    Args:
        url: Of Redis.
        folder: An empty one, for the logs.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.folder = folder
        self.alive: list[int] = []
        self.killed: list[int] = []
        self._read: dict[int, int] = {}
        self._owners: dict[str, int] = {}
        (folder / "health").write_bytes(UP)
        with (folder / "health").open("r+b") as file:
            self._health = mmap.mmap(file.fileno(), 1)
        with (folder / "stderr").open("wb") as stderr:
            self._nursery = subprocess.Popen(
                [sys.executable, "-m", __name__, url, str(folder)],
                cwd=Path(__file__).parents[2],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True,
                start_new_session=True,  # one group, so that one signal ends them all
            )  # fmt: skip

    def become(self, health: bytes) -> None:
        """Change the provider's health, for everybody at once."""
        self._health[:1] = health

    def start(self) -> None:
        """Start one more worker."""
        self.alive.append(int(self._ask("start")))

    def kill(self, pid: int) -> None:
        """Kill -9, and start another in its place."""
        os.kill(pid, signal.SIGKILL)
        status = self.buried(pid)
        assert status == "-9", f"worker {pid} had ended with {status}"
        self.alive.remove(pid)
        self.killed.append(pid)
        self.start()

    def owner_of(self, token: str) -> int | None:
        """Look in the logs whose lease this is; None if its owner has not said or is dead."""
        for pid in self.alive:
            path = self.folder / f"{pid}.log"
            if not path.exists():
                continue
            with path.open("rb") as log:
                log.seek(self._read.get(pid, 0))
                for line in log:
                    match line.decode().split():
                        case ["grant", granted, _, "half-open"]:
                            self._owners[granted] = pid
                self._read[pid] = log.tell()
        owner = self._owners.get(token)
        return owner if owner in self.alive else None

    def finish(self) -> None:
        """Tell them it is enough; each must end by itself, and well."""
        self.become(ENOUGH)
        for pid in self.alive:
            status = self.buried(pid)
            assert status == "0", f"worker {pid} ended with {status}"

    def buried(self, pid: int) -> str:
        """Wait until a worker is gone; return its status."""
        status = "alive"

        def gone() -> bool:
            nonlocal status
            status = self._ask(f"bury {pid}")
            return status != "alive"

        wait_until(gone)
        return status

    def logs(self) -> dict[int, list[str]]:
        """Read all logs, by process."""
        return {int(path.stem): path.read_text().splitlines() for path in self.folder.glob("*.log")}

    def last_words(self) -> str:
        """Have every process that still runs dump its stacks; return what all have complained."""
        with suppress(ProcessLookupError):
            os.killpg(self._nursery.pid, signal.SIGCONT)
            os.killpg(self._nursery.pid, signal.SIGUSR1)
        time.sleep(1)
        stacks = [path for pid in self.alive if (path := self.folder / f"{pid}.stacks").exists()]
        return "\n".join(
            f"{path.name}:\n{path.read_text(errors='replace')[-10_000:]}"
            for path in (self.folder / "stderr", *stacks)
        )

    def end(self) -> None:
        """Leave no process behind."""
        with suppress(ProcessLookupError):
            os.killpg(self._nursery.pid, signal.SIGKILL)
        self._nursery.communicate()

    def _ask(self, line: str) -> str:
        assert self._nursery.stdin
        assert self._nursery.stdout
        self._nursery.stdin.write(line + "\n")
        self._nursery.stdin.flush()
        return self._nursery.stdout.readline().strip()


@contextmanager
def herd(url: str, folder: Path) -> Iterator[Herd]:
    """Yield a herd; on any error its stacks are told, and in any case none is left."""
    animals = Herd(url, folder)
    try:
        yield animals
    except BaseException as error:
        error.add_note(animals.last_words())
        raise
    finally:
        animals.end()


@dataclass
class Run:
    """
    What came of it.

    Args:
        stream: The breaker's events, read while it went on: the stream keeps but 1,000.
        aimed: Tokens whose owner was killed for holding them.
        frozen: Tokens whose owner was stopped for longer than its lease.
        closed_after_s: How long closing took at the end, from the last kill of a prober.
    """

    stream: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    aimed: list[str] = field(default_factory=list)
    frozen: list[str] = field(default_factory=list)
    closed_after_s: float = float("inf")


def torment(client: redis.Redis, animals: Herd, seconds: float, processes: int = 8) -> Run:
    """
    Let the provider flap and kill workers, owners of a lease first; then let it recover.

    Args:
        client: With `decode_responses`.
        animals: Without workers yet.
        seconds: How long the flapping lasts.
        processes: Workers at any time.
    """
    run = Run()
    tormentor = _Tormentor(client, animals, run)
    for _ in range(processes):
        animals.start()
    tormentor.flap(time.monotonic() + seconds)
    tormentor.recover()
    animals.finish()
    tormentor.read_stream()
    return run


class _Tormentor:
    def __init__(self, client: Any, animals: Herd, run: Run) -> None:
        self.client = client
        self.animals = animals
        self.run = run
        self.thaw: tuple[float, int] | None = None
        self.strikes = 0
        self.strike_at_s = self.blind_at_s = 0.0

    def flap(self, end_s: float) -> None:
        """Turn the provider down, up and shaky; strike whenever somebody probes."""
        healthy_since_s: float | None = None
        turn_at_s = time.monotonic() + 0.5
        while (now_s := time.monotonic()) < end_s:
            leases = self.look()
            if leases and now_s > self.strike_at_s and self.strike(leases):
                self.strike_at_s = now_s + random.uniform(0.05, 0.4)
            if now_s > self.blind_at_s:
                self.animals.kill(random.choice(self.animals.alive))
                self.blind_at_s = now_s + random.uniform(0.5, 2)
            if now_s > turn_at_s:
                # Up for long enough to be closed in spite of the strikes, mostly.
                healthy_since_s = now_s if healthy_since_s is None else None
                health = UP if healthy_since_s else random.choice((DOWN, DOWN, SHAKY))
                self.animals.become(health)
                turn_at_s = now_s + (random.uniform(0.8, 2) if healthy_since_s else 0.5)
        self.wake()

    def recover(self) -> None:
        """Kill the first probers after an outage; the others must close it nevertheless."""
        killed = len(self.run.aimed)
        while len(self.run.aimed) == killed:  # it may close before anybody is caught
            self.animals.become(DOWN)
            wait_until(lambda: self.state() == "open")
            self.animals.become(UP)
            wait_until(lambda: any(map(self.hit, self.look())) or self.state() == "closed")
        killed_at_s = time.monotonic()
        wait_until(lambda: self.state() == "closed", 30)
        self.run.closed_after_s = time.monotonic() - killed_at_s

    def state(self) -> str:
        """Read it."""
        return str(self.client.hget(KEY, "state"))

    def look(self) -> list[str]:
        """Read the hash and the stream; name the tokens that hold a lease."""
        self.read_stream()
        if self.thaw and time.monotonic() > self.thaw[0]:
            self.wake()
        time.sleep(0.002)
        return [
            field.removeprefix("probe:")
            for field in self.client.hkeys(KEY)
            if field.startswith("probe:")
        ]

    def strike(self, leases: list[str]) -> bool:
        """Kill the owner of one of these; stop each third."""
        token = random.choice(leases)
        stop = self.strikes % 3 == 2 and self.thaw is None
        struck = self.freeze(token) if stop else self.hit(token)
        self.strikes += struck
        return struck

    def hit(self, token: str) -> bool:
        """Kill the owner of a lease, if it is known."""
        if not (pid := self.animals.owner_of(token)) or (self.thaw and self.thaw[1] == pid):
            return False
        self.animals.kill(pid)
        self.run.aimed.append(token)
        return True

    def freeze(self, token: str) -> bool:
        """Stop the owner for longer than its lease: what it tells afterwards comes too late."""
        if not (pid := self.animals.owner_of(token)):
            return False
        os.kill(pid, signal.SIGSTOP)
        self.thaw = time.monotonic() + LEASE_S * random.uniform(1.2, 2), pid
        self.run.frozen.append(token)
        return True

    def wake(self) -> None:
        """Let the stopped one go on, if it still lives."""
        if self.thaw and self.thaw[1] in self.animals.alive:
            os.kill(self.thaw[1], signal.SIGCONT)
        self.thaw = None

    def read_stream(self) -> None:
        """Read the entries that are new."""
        stream = self.run.stream
        stream += self.client.xrange(EVENTS, f"({stream[-1][0]}" if stream else "-")


if __name__ == "__main__":
    nursery(sys.argv[1], Path(sys.argv[2]))
