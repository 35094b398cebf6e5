"""When a fault strikes, with the clock in the test's hand; and how orders are read."""

import pytest

from simulator.faults import BadOrder, Fault, Playing
from simulator.labels import Settings


def strikes(order: dict[str, object], at_s: list[float]) -> list[bool]:
    """Set a fault at 0 s, and ask at each moment whether it strikes."""
    playing = Playing(Fault.read({"kind": "overloaded", **order}), now_s=0.0)
    return [playing.strike(moment) is not None for moment in at_s]


def test_a_fault_strikes_until_healed() -> None:
    """Without a condition every call is struck."""
    assert strikes({}, [0, 1, 1e6]) == [True, True, True]


def test_a_fault_can_end_by_itself() -> None:
    """`for_s` counts from the moment it was set."""
    assert strikes({"for_s": 30}, [0, 29.9, 30, 31]) == [True, True, False, False]


def test_a_fault_can_strike_the_first_calls_only() -> None:
    """`first` counts calls struck."""
    assert strikes({"first": 2}, [0, 0, 0]) == [True, True, False]


def test_a_fault_can_flap() -> None:
    """Down first, then up, and again."""
    moments = [0, 1.9, 2, 4.9, 5, 6.9, 7]
    down = [True, True, False, False, True, True, False]
    assert strikes({"down_s": 2, "up_s": 3}, moments) == down


def test_a_rate_is_a_share_of_calls_and_repeats_with_its_seed() -> None:
    """The same seed strikes the same calls; about the share ordered is struck."""
    one, again, other = (strikes({"rate": 0.3, "seed": seed}, [0.0] * 2000) for seed in (1, 1, 2))

    assert one == again != other
    assert 500 < sum(one) < 700


def test_a_limit_slides_with_the_minute() -> None:
    """Each call leaves the window a minute after it passed; refused calls do not count."""
    moments = [0, 30, 31, 59, 60, 61, 90]
    assert strikes({"per_minute": 2}, moments) == [False, False, True, True, False, True, False]


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ({"knd": "hang"}, "did you mean 'kind'"),
        ({"kind": "explode"}, "unknown kind 'explode'; known: .*hang"),
        ({"kind": 7}, "unknown kind 7"),
        ({"status": "503"}, "status must be a whole number"),
        ({"status": 503, "first": -1}, "first must be a whole number from 0 up, not -1"),
        ({"status": 503, "retry_after_form": "soon"}, "retry_after_form 'soon'"),
        ({"latency": "gauss:1:2"}, "uniform:LOW:HIGH, lognormal:MEDIAN:SIGMA or held"),
        ({"latency": "uniform:1"}, "uniform:LOW:HIGH"),
        ({}, "needs a kind, a status, a latency or per_minute"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(order: dict[str, object], words: str) -> None:
    """The message tells the field, the value and what is allowed."""
    with pytest.raises(BadOrder, match=words):
        Fault.read(order)


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ({"anwser": "x"}, "did you mean 'answer'"),
        ({"finish": "bored"}, "finish 'bored' is not of stop"),
        ({"usage": {"tokens": 1}}, "unknown usage field 'tokens'"),
        ({"usage": {"input_tokens": "many"}}, "input_tokens must be a number"),
        ({"interval_s": -1}, "interval_s must be a number"),
    ],
)
def test_settings_that_make_no_sense_are_refused(order: dict[str, object], words: str) -> None:
    """The message tells the field, the value and what is allowed."""
    with pytest.raises(BadOrder, match=words):
        Settings().merged(order)
