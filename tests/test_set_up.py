"""`make` sets up .venv: it speaks before anything slow, shows how far pip is, and names what is missing."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
PIP = """#!/bin/sh
echo "Obtaining file:///here"
echo "Collecting anthropic>=2.11.0"
echo "  Downloading anthropic-2.11.0-py3-none-any.whl (12 kB)"
echo "Collecting openai"
echo "Installing collected packages: openai, anthropic"
echo "ERROR: the last words" >&2
exit $(cat "$0.code")
"""


@pytest.fixture
def set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with a pip that does nothing, and ends with what `code` says."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import set_up

    python = tmp_path / "python"
    python.write_text(PIP)
    python.chmod(0o755)
    (tmp_path / "python.code").write_text("0")
    monkeypatch.setattr(set_up, "PYTHON", python)
    monkeypatch.setattr(set_up, "SAY_EVERY_S", -1)
    return set_up


def test_it_speaks_first_and_shows_how_far_it_is(
    set_up: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first line comes before anything is done."""
    assert set_up.main("demo") == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "setting up .venv for `make demo`, once; it takes a minute or two"
    assert "  package 1: anthropic>=2.11.0" in lines
    assert "  package 1: downloading anthropic-2.11.0-py3-none-any.whl (12 kB)" in lines
    assert "  installing 2 packages" in lines
    assert re.fullmatch(r"done in \d+ s", lines[-1])


def test_a_pip_that_fails_shows_its_last_words(
    set_up: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And make ends with its exit code."""
    (tmp_path / "python.code").write_text("3")

    assert set_up.main("demo") == 3
    assert "ERROR: the last words" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ("/usr/bin/x", "there is python3.14: make PYTHON=python3.14 …"),
        (None, "name one: make PYTHON=… …"),
    ],
)
def test_a_python_that_is_too_old_is_named(
    set_up: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    found: str | None,
    told: str,
) -> None:
    """With the newer one that is there, if one is."""
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    monkeypatch.setattr(set_up.shutil, "which", lambda _: found)

    assert set_up.main("demo") == 1

    said = capsys.readouterr().out
    assert "Python 3.11 or newer is needed" in said
    assert "is 3.9.1" in said
    assert told in said


def test_an_old_python_can_read_it() -> None:
    """No syntax that 3.7 has not: else it says SyntaxError, not what is needed."""
    import ast

    ast.parse((ROOT / "tools" / "set_up.py").read_text(), feature_version=(3, 7))


def test_the_demo_of_make_speaks_before_it_imports_anything() -> None:
    """Imports take a second or two on a cold machine."""
    recipe = (ROOT / "Makefile").read_text().partition("\ndemo:")[2].partition("\n\n")[0]

    assert recipe.splitlines()[1].startswith('\t@echo "the demo begins')
