"""How streams are paced, stall, and carry reasoning beside the text."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from simulator.client import Simulator
from simulator.wires.answer import THOUGHT
from tests.support.vendor_sdks import KEY, MODEL
from tests.support.vendor_talks import TALKS, Ask, Talk, user
from tests.support.waiting import wait_until

SILENCE_S = 3.0
"""What a test takes for the end of all sending, where that is what it waits for."""
MAX_DOWN_S = 180.0
"""For what does come, however busy the machine is."""
PING = ("event: ping", 'data: {"type":"ping"}')
TIMEOUTS = (anthropic.APITimeoutError, openai.APITimeoutError, httpx2.TimeoutException)
MESSAGES = [{"role": "user", "content": "one two three"}]
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "anthropic": ("v1/messages", {"model": MODEL, "max_tokens": 9, "messages": MESSAGES}),
    "openai": ("v1/responses", {"model": MODEL, "input": MESSAGES}),
    "openai-chat": ("v1/chat/completions", {"model": MODEL, "messages": MESSAGES}),
    "google": (
        f"v1/models/{MODEL}:streamGenerateContent?alt=sse",
        {"contents": [{"parts": [{"text": "one two three"}]}]},
    ),
}
OPENINGS = {
    "anthropic": ["message_start"],
    "openai": ["response.created", "response.in_progress"],
    "openai-chat": ["chat.completion.chunk"],
    "google": [],
}


def _lines(sim: Simulator, wire: str, timeout_s: float) -> Iterator[tuple[float, str]]:
    """Read a stream's lines as they come; leave after a silence."""
    path, body = BODIES[wire]
    headers = {"authorization": f"Bearer {KEY}", "anthropic-version": "2026-10-21"}
    if wire == "google":
        headers["x-goog-api-key"] = KEY
    else:
        body = {**body, "stream": True}
    with httpx2.stream(
        "POST", f"{sim.url('it')}/{path}", json=body, headers=headers, timeout=timeout_s
    ) as response:
        yield time.monotonic(), str(response.status_code)
        for line in response.iter_lines():
            yield time.monotonic(), line


def _read(
    sim: Simulator, wire: str, timeout_s: float = MAX_DOWN_S, at_most: int = 1_000
) -> list[tuple[float, str]]:
    lines: list[tuple[float, str]] = []
    try:
        for line in _lines(sim, wire, timeout_s):
            lines.append(line)
            if len(lines) == at_most:
                break
    except httpx2.ReadTimeout:
        lines.append((time.monotonic(), "silence"))
    return lines


@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_comes_apart_from_the_text(sim: Simulator, talk: Talk, stream: bool) -> None:
    """Where reasoning tokens are counted it is told too: thinking, summary, thought."""
    sim.settings("it", usage={"reasoning_tokens": 9}, answer="the text")

    said = talk(Ask((user("x"),), stream=stream))

    assert (said.text, said.thought) == ("the text", THOUGHT)


def test_without_reasoning_tokens_nothing_is_reasoned(talk: Talk) -> None:
    """Most models tell nothing."""
    assert talk(Ask((user("x"),), stream=True)).thought == ""


def test_the_first_token_comes_after_head_and_opening(sim: Simulator, wire: str) -> None:
    """Status and opening events come at once, then silence, then the rest."""
    sim.settings("it", first_token_s=1.0)

    lines = [(at, line) for at, line in _read(sim, wire) if line and line[:6] != "event:"]

    assert lines[0][1] == "200"
    opening = lines[1 : 1 + len(OPENINGS[wire])]
    words = [json.loads(line[6:]) for _, line in opening]
    assert [word.get("type", word.get("object")) for word in words] == OPENINGS[wire]
    before, after = lines[len(opening)], lines[len(opening) + 1]
    assert after[0] - before[0] >= 0.2
    assert lines[-1][1] != "silence"


@pytest.mark.parametrize("kind", ["stall", "stall_pings"])
def test_a_stalled_stream_stays_open_after_its_half(sim: Simulator, wire: str, kind: str) -> None:
    """Text has come and no end; then nothing, or nothing but what keeps a stream alive."""
    sim.settings("it", answer="echo")
    sim.fault("it", kind)

    lines = [line for _, line in _read(sim, wire, SILENCE_S if kind == "stall" else MAX_DOWN_S, 40)]

    data = [line for line in lines if line.startswith("data:") and '"ping"' not in line]
    whole = "".join(data)
    assert "one" in whole
    for end in ("message_stop", "response.completed", "finishReason", "[DONE]", "three"):
        assert end not in whole
    after = lines[lines.index(data[-1]) + 2 :]
    if kind == "stall":
        assert after == ["silence"]
    else:
        assert after
        assert set(after) <= {": keep-alive", *PING, ""}
    wait_until(lambda: sim.in_flight("it") == 0)
    assert sim.hits("it")[0]["client_gone"]


def test_sdks_wait_through_pings_for_what_does_not_come(sim: Simulator, wire: str) -> None:
    """No SDK takes a ping for an answer, nor for an error; none gives up."""
    talk = TALKS[wire](sim.url("it", own_port=True))
    sim.fault("it", "stall_pings")
    with ThreadPoolExecutor(1) as pool:
        said = pool.submit(talk, Ask((user("x"),), stream=True))
        wait_until(lambda: sim.in_flight("it") == 1)

        done = wait([said], SILENCE_S).done
        sim.refuse("it")

    assert not done
    assert said.exception()


def test_a_plain_call_that_stalls_ends_in_silence(sim: Simulator, call: Any) -> None:
    """Half of the body has come, the connection stays open."""
    sim.fault("it", "stall")

    with pytest.raises(TIMEOUTS):
        call(timeout_s=SILENCE_S).said("hello")

    wait_until(lambda: sim.hits("it")[0]["client_gone"])
