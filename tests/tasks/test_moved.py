"""Modules that moved are importable by their old names."""

import subprocess
import sys
from importlib import import_module

import pytest

from breakwater.errors import ContentFiltered, Overloaded
from tasks.moved import MOVED, RENAMED


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


@pytest.mark.parametrize(
    ("old", "name"), [(old, name) for old, names in RENAMED.items() for name in names]
)
def test_a_renamed_object_has_its_old_name_in_its_old_module(old: str, name: str) -> None:
    """`from tasks.queue import queue_of` gives the very function of today."""
    sys.modules.pop(old, None)
    owner, _, new_name = RENAMED[old][name].partition(":")

    with pytest.warns(DeprecationWarning, match=f"{old} is now"):
        module = import_module(old)

    assert getattr(module, name) is getattr(import_module(owner), new_name)


def test_a_user_of_an_old_name_needs_no_new_one() -> None:
    """In a fresh process, where nothing of the package has been imported."""
    code = "from tasks.langchain.tools import tool_of; from tasks.langchain import ChatBreakwater"

    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_a_verdict_answers_to_its_old_name() -> None:
    """Handlers of errors ask it whether the same target may be asked again later."""
    assert Overloaded.verdict.heals is Overloaded.verdict.retryable_later is True
    assert ContentFiltered.verdict.heals is ContentFiltered.verdict.retryable_later is False
