"""Answers that break their schema, and prompts that not every target takes: who is asked next."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from breaker import Breakers
from breakwater import errors
from breakwater.attempt import Attempt
from breakwater.calls.call import CompletionCall
from breakwater.content import Message, Tool, ToolCall
from tasks.admission.health import HealthGate
from tasks.answering.walk import ChainAnswer, NothingAvailable
from tasks.providers.base import Completion, Request
from tests.support.scripted import ScriptedProvider, Step, answer, settings_over
from tests.support.walking import Walking

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
GOOD, BAD = '{"n": 1}', '{"n": "CANARY-ANSWER"}'
PNG = {"type": "image", "data": "iVBORw0K", "media_type": "image/png"}
PDF = {"type": "document", "url": "https://example.com/a.pdf"}


class House:
    """A role `coder` over scripted providers, which cost a dollar a token."""

    def __init__(self, breakers: Breakers, **scripts: list[Step]) -> None:
        self.providers = {name: ScriptedProvider(*steps) for name, steps in scripts.items()}
        prices = {"*": dict.fromkeys(("input_tokens", "output_tokens"), Decimal(1_000_000))}
        settings = settings_over(*scripts)
        own = {name: replace(p, prices=prices) for name, p in settings.providers.items()}
        self.settings = replace(settings, providers=own)
        self.breakers = breakers

    def taking(self, **inputs: set[str]) -> "House":
        own = {
            name: replace(p, inputs=frozenset(inputs[name]))
            for name, p in self.settings.providers.items()
        }
        self.settings = replace(self.settings, providers=own)
        return self

    def route(
        self, prompt: Any = "hi", options: dict[str, Any] | None = None, **given: Any
    ) -> ChainAnswer:
        call = CompletionCall.of(
            "coder", prompt, {"schema": SCHEMA} if options is None else options
        )
        walking = Walking(self.settings, self.breakers, self.providers)
        return walking.walk(call, self.settings.roles["coder"], **given)

    def asked(self) -> list[int]:
        return [len(provider.requests) for provider in self.providers.values()]


def outcomes(attempts: list[Any]) -> list[tuple[str, str, str | None]]:
    return [(a.provider, a.outcome, a.error) for a in attempts]


def ending(text: str, finish_reason: Any) -> Step:
    return lambda _: replace(answer(text), finish_reason=finish_reason)


def violated(*names: str) -> list[tuple[str, str, str]]:
    return [(name, "failed", "SchemaViolated") for name in names]


def test_an_answer_that_fits_comes_with_its_data(breakers: Breakers) -> None:
    """Asked once, and the provider is shown the schema."""
    house = House(breakers, a=[GOOD])

    routed = house.route()

    assert routed.completion.data == {"n": 1}
    assert house.providers["a"].requests[0].schema == SCHEMA
    assert house.asked() == [1]


def test_a_target_is_asked_once_more_with_what_is_wrong(breakers: Breakers) -> None:
    """It sees its answer and the faults; both calls are attempts, and both are paid."""
    house = House(breakers, a=[BAD, GOOD], b=["never"])

    routed = house.route()

    first, second = routed.attempts
    assert routed.completion.data == {"n": 1}
    assert outcomes(routed.attempts) == [*violated("a"), ("a", "succeeded", None)]
    assert first.why == "first of the chain; the answer breaks 'type' at /n"
    assert second.why == "asked again, with what is wrong with its answer"
    assert (first.cost.text, second.cost.text) == ("5", "5")
    assert (first.usage.output_tokens, first.request_id) == (2, "req-1")
    asked, said, told = house.providers["a"].requests[1].messages
    assert (asked, said) == (Message("user", "hi"), Message("assistant", BAD))
    assert (told.role, 'at /n: "CANARY-ANSWER" is not of type "integer"' in told.text) == (
        "user",
        True,
    )


def test_no_attempt_repeats_the_answer(breakers: Breakers) -> None:
    """Attempts go to logs and the ledger."""
    house = House(breakers, a=[BAD])

    with pytest.raises(errors.SchemaViolated) as raised:
        house.route()

    assert "CANARY" not in repr(raised.value)
    assert "CANARY" not in repr(raised.value.attempts)
    assert str(raised.value).startswith("a: the answer breaks 'type' at /n;")


def test_after_two_violations_the_next_target_is_asked_afresh(breakers: Breakers) -> None:
    """With the conversation as the caller wrote it."""
    house = House(breakers, a=[BAD], b=[GOOD])

    routed = house.route()

    assert outcomes(routed.attempts) == [*violated("a", "a"), ("b", "succeeded", None)]
    assert house.providers["b"].requests[0].messages == (Message("user", "hi"),)


def test_a_violation_is_neutral_to_the_breaker(breakers: Breakers) -> None:
    """A provider that answers is healthy; a probe that says nothing of it gives its place back."""
    house = House(breakers, a=[BAD])
    health = HealthGate(house.settings, breakers)
    health.breaker("a").half_open()

    with pytest.raises(errors.SchemaViolated):
        house.route()

    seen = breakers.get("a").peek()
    assert (seen.state, seen.failures, seen.successes, seen.probes) == ("half-open", 0, 0, 0)


@pytest.mark.parametrize("reason", ["length", "content_filter", "refusal"])
def test_an_answer_that_would_end_the_same_is_not_asked_again(
    breakers: Breakers, reason: str
) -> None:
    """Cut off it would be cut off again, and who refuses does not care for a schema."""
    house = House(breakers, a=[ending('{"n": ', reason)], b=[GOOD])

    routed = house.route()

    assert outcomes(routed.attempts) == [*violated("a"), ("b", "succeeded", None)]


def test_a_tool_call_is_no_violation(breakers: Breakers) -> None:
    """The answer in the schema's form comes when the tools have spoken."""
    call = ToolCall("c1", "f", {})
    house = House(
        breakers, a=[lambda _: replace(answer("let me see"), tool_calls=(call,), finish_reason="tool_calls")]
    )  # fmt: skip

    routed = house.route(options={"schema": SCHEMA, "tools": [{"name": "f"}], "tool_choice": "f"})

    request = house.providers["a"].requests[0]
    assert (routed.completion.data, routed.completion.tool_calls) == (None, (call,))
    assert (request.tools, request.tool_choice) == ((Tool("f"),), "f")


def test_without_a_schema_no_text_is_read(breakers: Breakers) -> None:
    """JSON or not."""
    assert House(breakers, a=[GOOD]).route(options={}).completion.data is None


def test_when_the_second_call_fails_the_next_target_is_asked(breakers: Breakers) -> None:
    """As after any failure."""
    house = House(breakers, a=[BAD, errors.Overloaded("busy")], b=[GOOD])

    routed = house.route()

    assert outcomes(routed.attempts) == [
        *violated("a"), ("a", "failed", "Overloaded"), ("b", "succeeded", None),
    ]  # fmt: skip
    assert routed.attempts[1].why == "asked again, with what is wrong with its answer"


def test_a_breaker_that_opened_meanwhile_is_obeyed(breakers: Breakers) -> None:
    """The second call asks for admission like any other, and the target may be asked later."""

    def trip(_: Request) -> Completion:
        breakers.get("a").open()
        return answer(BAD)

    house = House(breakers, a=[trip])

    with pytest.raises(NothingAvailable) as nothing:
        house.route()

    assert outcomes(nothing.value.attempts) == [*violated("a"), ("a", "rejected", "BreakerOpen")]


def test_nobody_is_asked_again_after_the_deadline(breakers: Breakers) -> None:
    """The caller has gone."""
    now = [100.0]

    def slow(_: Request) -> Completion:
        now[0] += 10
        return answer(BAD)

    house = House(breakers, a=[slow])

    with pytest.raises(errors.DeadlineExceeded) as raised:
        house.route(deadline=105.0, clock=lambda: now[0])

    assert [a["error"] for a in raised.value.attempts] == ["SchemaViolated"]


def test_all_that_violated_are_named(breakers: Breakers) -> None:
    """Each once, beside others that refused for reasons of their own."""
    house = House(breakers, a=[BAD], b=[errors.ContentFiltered("no")])

    with pytest.raises(errors.ChainExhausted) as raised:
        house.route()

    assert str(raised.value).endswith("takes this prompt: a: SchemaViolated, b: ContentFiltered")
    assert len(raised.value.attempts) == 3


@pytest.mark.parametrize(
    ("first_walk", "asked_again"),
    [
        ([BAD], False),
        ([ending('{"n": ', "length")], False),
        ([BAD, errors.Overloaded("busy"), GOOD], True),
    ],
)
def test_on_a_later_walk_only_who_may_do_better_is_asked(
    breakers: Breakers, first_walk: list[Step], asked_again: bool
) -> None:
    """Not who had its second chance; but who was busy when it came."""
    house = House(breakers, a=first_walk, b=[errors.Overloaded("busy"), GOOD])
    with pytest.raises(NothingAvailable) as nothing:
        house.route()

    routed = house.route(earlier=nothing.value.attempts)

    served, refused = ("a", "succeeded", None), ("a", "rejected", "SchemaViolated")
    assert outcomes(routed.attempts)[0] == (served if asked_again else refused)


def test_refusals_are_remembered_over_many_walks(breakers: Breakers) -> None:
    """The attempts of the second walk do not hide those of the first."""
    house = House(breakers, a=[BAD], b=[errors.Overloaded("busy")])
    earlier: list[Attempt] = []
    for _ in range(3):
        with pytest.raises(NothingAvailable) as nothing:
            house.route(earlier=earlier)
        earlier += nothing.value.attempts

    assert house.asked() == [2, 3]


def test_a_target_that_cannot_take_the_media_is_passed_over(breakers: Breakers) -> None:
    """Unasked, and its attempt says why; its breaker hears nothing."""
    house = House(breakers, a=["never"], b=["a cat"]).taking(a={"document"}, b={"image"})

    routed = house.route([{"role": "user", "content": [PNG]}], {})

    assert outcomes(routed.attempts) == [
        ("a", "rejected", "UnsupportedInput"), ("b", "succeeded", None),
    ]  # fmt: skip
    assert routed.attempts[0].why == "takes no image; see inputs in the roles file"
    assert house.asked() == [0, 1]


def test_when_no_target_can_take_the_media_the_task_fails(breakers: Breakers) -> None:
    """Naming what, and which providers cannot."""
    house = House(breakers, a=["never"], b=["never"]).taking(a={"image"}, b=set())

    with pytest.raises(errors.UnsupportedInput) as raised:
        house.route([{"role": "user", "content": [PNG, PDF]}], {})

    assert "no target of role 'coder' can take this prompt" in str(raised.value)
    assert "a: takes no document;" in str(raised.value)
    assert "b: takes no document and no image;" in str(raised.value)
    assert house.asked() == [0, 0]


def test_an_adapter_s_own_refusal_is_told_beside(breakers: Breakers) -> None:
    """It may know better than the roles file what its vendor does not take."""
    refusal = errors.UnsupportedInput("a: takes no images by URL")
    house = House(breakers, a=[refusal], b=["never"]).taking(a={"image"}, b=set())

    with pytest.raises(errors.UnsupportedInput) as raised:
        house.route([{"role": "user", "content": [PNG]}], {})

    assert "first of the chain; a: takes no images by URL, b: takes no image;" in str(raised.value)


def test_a_task_waits_for_the_one_target_that_can_take_it(breakers: Breakers) -> None:
    """The others being up is no help."""
    house = House(breakers, a=["never"], b=[errors.RateLimited("slow", retry_after_s=20)])
    house.taking(a=set(), b={"image"})

    with pytest.raises(NothingAvailable) as nothing:
        house.route([{"role": "user", "content": [PNG]}], {})

    assert nothing.value.wait_s == 20


def test_an_answer_whose_validation_was_ended_is_not_asked_for_again(
    breakers: Breakers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is known that could be corrected; the next target may answer what can be judged."""
    monkeypatch.setattr("breakwater.calls.schema.LIMIT_S", 1.0)
    again = {"properties": {"a": {"$ref": "#/$defs/e"}}}
    twice = {"$ref": "#/$defs/e", "$defs": {
        "e": {"anyOf": [{**again, "required": ["b"]}, {**again, "required": ["c"]}]}}}  # fmt: skip
    house = House(breakers, a=['{"a":' * 60 + "1" + "}" * 60], b=['{"b": 1}'])

    routed = house.route(options={"schema": twice})

    assert outcomes(routed.attempts) == [*violated("a"), ("b", "succeeded", None)]
    assert "the answer cannot be validated" in routed.attempts[0].why
    assert house.asked() == [1, 1]
