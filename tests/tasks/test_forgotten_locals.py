"""What an error tracker would find in the frames of a task that failed."""

import traceback
from types import TracebackType

import pytest

from tasks.answering.task import forget_locals


def _deep(prompt: str) -> None:
    body = {"messages": [prompt]}
    try:
        raise KeyError(len(body))
    except KeyError as error:
        raise ValueError("no") from error


def _held(error: BaseException | None) -> str:
    shown = ""
    while error is not None:
        trace: TracebackType | None = error.__traceback__
        while trace:
            if trace.tb_frame.f_code is _deep.__code__:
                shown += repr(trace.tb_frame.f_locals)
            trace = trace.tb_next
        error = error.__cause__
    return shown


def test_the_frames_behind_an_error_keep_their_lines_and_lose_their_variables() -> None:
    """Its causes' frames too."""
    with pytest.raises(ValueError, match="no") as caught:
        _deep("PROMPT-CANARY")
    assert "PROMPT-CANARY" in _held(caught.value)

    forget_locals(caught.value)

    assert "PROMPT-CANARY" not in _held(caught.value)
    assert "in _deep" in "".join(traceback.format_exception(caught.value))


def test_a_circle_of_causes_ends() -> None:
    """An error may be its own cause's cause."""
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first

    forget_locals(first)
