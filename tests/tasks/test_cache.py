"""Which calls have the same answer, and what is kept of it."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.fernet import Fernet
from structlog.testing import capture_logs

from breakwater.attempt import Attempt, Usage
from breakwater.calls.call import CompletionCall
from breakwater.content import FinishReason, Media, Message, ToolCall
from tasks.answering import response_cache
from tasks.answering.walk import ChainAnswer
from tasks.config import CacheSettings, ProviderSettings, Role, Settings, Target
from tasks.ledger.attempt_recorder import AttemptRecorder
from tasks.providers.base import Completion

PROVIDERS = {
    name: ProviderSettings(name, "openai-chat", "m", base_url=f"http://{name}") for name in "ab"
}
ROLE = Role("coder", (Target("a", "m"), Target("b", "m")), system="be", cache=CacheSettings(60))
SETTINGS = Settings(PROVIDERS, {"coder": ROLE}, {"temperature": 0.1})
CALL = CompletionCall("coder", (Message("user", "hi"),))
TOOL = ToolCall("1", "look", {"b": 1, "a": [2]}, "signed")


def digest(call: CompletionCall = CALL, role: Role = ROLE, settings: Settings = SETTINGS) -> str:
    return response_cache.digest(call, role, settings)


def saying(content: Any, **more: Any) -> CompletionCall:
    return replace(CALL, messages=(Message("user", content, **more),))


OTHERS = {
    "another prompt": (saying("ho"), ROLE, SETTINGS),
    "another speaker": (replace(CALL, messages=(Message("system", "hi"),)), ROLE, SETTINGS),
    "one more turn": (replace(CALL, messages=CALL.messages * 2), ROLE, SETTINGS),
    "another role": (replace(CALL, role="planner"), replace(ROLE, name="planner"), SETTINGS),
    "a system prompt": (replace(CALL, system="else"), ROLE, SETTINGS),
    "the role's other system prompt": (CALL, replace(ROLE, system="other"), SETTINGS),
    "a parameter": (replace(CALL, params={"temperature": 0}), ROLE, SETTINGS),
    "a parameter of the role": (CALL, replace(ROLE, params={"seed": 1}), SETTINGS),
    "a parameter for all": (CALL, ROLE, replace(SETTINGS, params={"temperature": 0.2})),
    "another model": (CALL, replace(ROLE, chain=(Target("a", "n"), ROLE.chain[1])), SETTINGS),
    "a shorter chain": (CALL, replace(ROLE, chain=ROLE.chain[:1]), SETTINGS),
    "another order": (CALL, replace(ROLE, chain=ROLE.chain[::-1]), SETTINGS),
    "another server": (
        CALL, ROLE,
        replace(SETTINGS, providers={**PROVIDERS, "b": replace(PROVIDERS["b"], base_url="http://c")}),
    ),
    "an image": (saying(("hi", Media("image", url="https://x/a.png"))), ROLE, SETTINGS),
    "another image": (saying(("hi", Media("image", url="https://x/b.png"))), ROLE, SETTINGS),
    "an image's bytes": (saying(("hi", Media("image", data="aGk="))), ROLE, SETTINGS),
    "a tool call": (saying("hi", tool_calls=(TOOL,)), ROLE, SETTINGS),
    "its arguments": (
        saying("hi", tool_calls=(replace(TOOL, arguments={"a": 1}),)), ROLE, SETTINGS,
    ),
    "a tool's result": (saying("hi", tool_call_id="1"), ROLE, SETTINGS),
}  # fmt: skip


@pytest.mark.parametrize("other", OTHERS)
def test_whatever_may_change_the_answer_makes_another_call(other: str) -> None:
    """Each of these is a call of its own, different from all the others too."""
    digests = {name: digest(*asked) for name, asked in OTHERS.items()}

    assert digests[other] != digest()
    assert list(digests.values()).count(digests[other]) == 1


@pytest.mark.parametrize(
    "call",
    [
        replace(CALL, metadata={"team": "a"}),
        replace(CALL, deadline_s=5),
        replace(CALL, system="be"),
        replace(CALL, params={"temperature": 0.1}),
    ],
)
def test_what_does_not_change_the_answer_makes_the_same_call(call: CompletionCall) -> None:
    """Whose task it is, how long it may take, and what was said twice."""
    assert digest(call) == digest()


def test_the_order_of_keys_makes_no_other_call() -> None:
    """JSON objects have none."""
    turned = replace(TOOL, arguments=dict(reversed(TOOL.arguments.items())))

    assert digest(saying("hi", tool_calls=(turned,))) == digest(saying("hi", tool_calls=(TOOL,)))


def test_every_field_of_a_call_that_is_not_the_tasks_own_counts() -> None:
    """What a call learns to say later makes another call unless it is named here."""
    fields = set(CompletionCall.__dataclass_fields__)

    assert fields - response_cache.OF_THE_TASK >= {"role", "messages", "system", "params"}
    assert {"metadata", "deadline_s"} <= fields & response_cache.OF_THE_TASK


def test_with_keys_a_digest_cannot_be_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """It depends on the first key; who does not have it cannot compare prompts."""
    keys = [Fernet.generate_key().decode() for _ in range(2)]
    plain, told = digest(), []
    for given in (keys[0], keys[1], f"{keys[0]}, {keys[1]}"):
        monkeypatch.setenv("BREAKWATER_ENCRYPTION_KEYS", given)
        told.append(digest())

    assert len({plain, *told}) == 3
    assert told[0] == told[2]


def routed(finish: FinishReason = "stop", **more: Any) -> ChainAnswer:
    completion = Completion("text", "m-1", finish, Usage(10, 5), "req", "res", **more)
    return ChainAnswer(
        completion, Target("a", "m"), [Attempt("a", "m-1", "succeeded")], admits_all=True
    )


@pytest.mark.parametrize("waited", [True, False])
def test_an_answer_is_found_as_it_was_kept_and_costs_nothing(waited: bool) -> None:
    """Text, data and tool calls to the letter; no tokens, no dollars, no time."""
    kept = response_cache.kept("t1", routed("tool_calls", tool_calls=(TOOL,), data={"a": [1]}), 60)

    found = response_cache.found(kept.answer, number=3, waited=waited)

    assert kept.keep_s == 60
    whole = found.completion
    assert (whole.text, whole.data, whole.tool_calls) == ("text", {"a": [1]}, (TOOL,))
    assert (whole.model, whole.finish_reason, whole.usage) == ("m-1", "tool_calls", Usage())
    assert (found.target.provider, found.admits_all) == ("a", False)
    (attempt,) = found.attempts
    assert attempt.as_dict() == {
        "provider": "a", "model": "m-1", "outcome": "cached", "error": None, "status": None,
        "latency_ms": 0, "cost_usd": "0",
        "why": "shared the call of task t1" if waited else "answered by the response cache",
    }  # fmt: skip
    assert (attempt.number, attempt.usage) == (3, Usage())


@pytest.mark.parametrize("finish", ["length", "refusal", "content_filter"])
def test_only_whole_good_answers_are_kept(finish: FinishReason) -> None:
    """Of any other it is only kept, for a minute at most, that nobody shall wait for one."""
    assert response_cache.kept("t1", routed(finish), 3600) == (60, "")
    assert response_cache.kept("t1", routed(finish), 5) == (5, "")


def test_what_is_kept_is_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With keys, nobody reads it in Redis."""
    monkeypatch.setenv("BREAKWATER_ENCRYPTION_KEYS", Fernet.generate_key().decode())

    kept = response_cache.kept("t1", routed(), 60).answer

    assert "text" not in kept
    assert response_cache.found(kept, number=1, waited=False).completion.text == "text"


@pytest.mark.parametrize(
    "answer",
    ["no JSON", "{}", "[1]", '{"task_id": 1}', "[" * 100_000, "gAAAAno token", "\x00",
     '{"task_id": "t", "provider": "gone", "model": "m", "text": "x", "finish_reason": "stop"}'],
)  # fmt: skip
def test_a_damaged_answer_is_a_miss(answer: str) -> None:
    """The task makes the call, as if nothing had been kept; the log names neither text."""
    lease: Any = SimpleNamespace(
        task_id="t2", share=lambda *_: answer, waited=False, numbered=0, ensure_begun=lambda: None
    )
    recorder = AttemptRecorder({"task_id": "t2", "role": "coder"}, lease)

    with capture_logs() as lines:
        assert response_cache.shared(CALL, ROLE, SETTINGS, lease, recorder, 60) is None

    (line,) = lines
    assert line["event"] == "cache.unreadable"
    assert set(line) == {"event", "log_level", "task_id", "error"}
