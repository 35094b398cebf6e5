"""Modules that moved are importable by their old names."""

import subprocess
import sys
from importlib import import_module

import pytest

from breakwater.errors import ContentFiltered, Overloaded
from tasks.moved import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_is_the_very_same_module(old: str) -> None:
    """A class that is imported by both names is one class, and the user learns the new name."""
    new = import_module(MOVED[old])
    spec = new.__spec__
    sys.modules.pop(old, None)

    with pytest.warns(DeprecationWarning, match=f"{old} is now {MOVED[old]}"):
        assert import_module(old) is new

    assert new.__spec__ is spec
    assert new.__name__ == MOVED[old]


def test_a_user_of_an_old_name_needs_no_new_one() -> None:
    """In a fresh process, where nothing of the package has been imported."""
    code = "from tasks.langchain.tools import tool_of; from tasks.langchain import ChatBreakwater"

    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_a_verdict_answers_to_its_old_name() -> None:
    """Handlers of errors ask it whether the same target may be asked again later."""
    assert Overloaded.verdict.heals is Overloaded.verdict.retryable_later is True
    assert ContentFiltered.verdict.heals is ContentFiltered.verdict.retryable_later is False
