"""A streamed answer that breaks: who hears what, and who is asked next."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from breaker import Breakers
from breakwater import errors
from breakwater.calls.call import CompletionCall
from breakwater.content import Delta, TextDelta
from tasks.answering.walk import ChainAnswer, NothingAvailable
from tasks.providers.base import Completion, Request
from tests.support.scripted import ScriptedProvider, Step, answer, settings_over
from tests.support.walking import Walking


class Ear:
    """Hears, and remembers."""

    def __init__(self) -> None:
        self.has_begun = False
        self.heard: list[str] = []

    def delta(self, delta: Delta) -> None:
        assert isinstance(delta, TextDelta)
        self.has_begun = True
        self.heard.append(delta.text)

    def restart(self, provider: str, error: str) -> None:
        self.has_begun = False
        self.heard.append(f"restart {provider} {error}")


def saying(*pieces: str, then: Exception | None = None) -> Callable[[Request], Completion]:
    """Stream these, and then fail or be done."""

    def say(request: Request) -> Completion:
        assert request.on_delta
        for piece in pieces:
            request.on_delta(TextDelta(piece))
        if then:
            raise then
        return answer("".join(pieces))

    return say


def walk(
    breakers: Breakers, ear: Ear | None, restart: bool = True, schema: Any = None, **scripts: Step
) -> ChainAnswer:
    settings = settings_over(*scripts)
    providers = {name: ScriptedProvider(step) for name, step in scripts.items()}
    role = replace(settings.roles["coder"], stream_restart=restart)
    call = CompletionCall.of("coder", "hi", {"stream": True, "schema": schema})
    walking = Walking(settings, breakers, providers)
    return walking.walk(call, role, deadline=9e9, listener=ear)


CUT = errors.TruncatedAnswer("the answer is cut off")


def test_a_stream_that_breaks_before_its_first_token_fails_over_silently(
    breakers: Breakers,
) -> None:
    """Who reads sees the second target's answer, and nothing of the first."""
    ear = Ear()

    routed = walk(breakers, ear, a=saying(then=CUT), b=saying("x", "y"))

    assert ear.heard == ["x", "y"]
    assert routed.completion.text == "xy"


def test_one_that_breaks_later_begins_anew_and_says_so(breakers: Breakers) -> None:
    """What was heard is taken back before the next target is asked."""
    ear = Ear()

    routed = walk(breakers, ear, a=saying("half", then=CUT), b=saying("whole"))

    assert ear.heard == ["half", "restart a TruncatedAnswer", "whole"]
    assert [attempt.outcome for attempt in routed.attempts] == ["failed", "succeeded"]


def test_a_role_may_forbid_to_begin_anew(breakers: Breakers) -> None:
    """Then the task fails with the error that broke it, and nobody else is asked or paid."""
    ear = Ear()

    with pytest.raises(errors.TruncatedAnswer) as caught:
        walk(breakers, ear, restart=False, a=saying("half", then=CUT), b=saying("never"))

    assert ear.heard == ["half"]
    assert len(caught.value.attempts) == 1


def test_a_role_that_forbids_it_still_fails_over_before_the_first_token(
    breakers: Breakers,
) -> None:
    """Nothing was heard, so nothing begins anew."""
    ear = Ear()

    walk(breakers, ear, restart=False, a=saying(then=CUT), b=saying("x"))

    assert ear.heard == ["x"]


def test_what_was_heard_is_taken_back_also_where_nobody_is_left_to_ask(
    breakers: Breakers,
) -> None:
    """The task waits, and who reads knows that the half answer is none."""
    ear = Ear()

    with pytest.raises(NothingAvailable):
        walk(breakers, ear, a=saying("half", then=CUT))

    assert ear.heard == ["half", "restart a TruncatedAnswer"]


def test_the_time_to_the_first_token_is_known(breakers: Breakers) -> None:
    """Of a streamed attempt, also one that broke off; a plain one has none."""
    streamed = walk(breakers, Ear(), a=saying("half", then=CUT), b=saying("whole"))
    plain = walk(breakers, None, c=lambda request: answer(str(request.on_delta)))

    assert [attempt.first_token_ms for attempt in streamed.attempts] == [0, 0]
    assert plain.attempts[0].first_token_ms is None
    assert plain.completion.text == "None"


def test_an_answer_that_breaks_its_schema_is_taken_back(breakers: Breakers) -> None:
    """Who heard it is told, and hears the next from its beginning."""
    ear, schema = Ear(), {"type": "integer"}

    routed = walk(breakers, ear, schema=schema, a=saying("o", "ne"), b=saying("1"))

    assert ear.heard == ["o", "ne", "restart a SchemaViolated"] * 2 + ["1"]
    assert routed.completion.data == 1


def test_a_role_without_restarts_fails_with_what_breaks_the_schema(breakers: Breakers) -> None:
    """What was heard cannot be taken back."""
    with pytest.raises(errors.SchemaViolated):
        walk(breakers, Ear(), False, {"type": "integer"}, a=saying("one"), b=saying("1"))
