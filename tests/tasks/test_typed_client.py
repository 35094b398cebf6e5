"""The client's types, as `mypy --strict` sees them in a caller's file."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
GOOD = """
from breakwater import AsyncResult, Event, app, complete, errors, stream, workflow


def ask(prompt: str) -> str:
    result = complete.delay("coder", prompt, params={"temperature": 0}, deadline_s=60)
    reveal_type(result)
    try:
        answer = result.get(timeout=60)
    except errors.BadTask as fault:
        return str(fault.details)
    reveal_type(result.ready())
    return str(answer["text"])


def many(prompts: list[str]) -> list[str]:
    results = complete.delay_many([("coder", prompt) for prompt in prompts], priority=3)
    return [result.id for result in results]


def read(task_id: str) -> list[str]:
    texts: list[str] = []
    for event in stream(task_id, timeout=5):
        reveal_type(event)
        texts.append(event.text)
    return texts


async def read_async(result: AsyncResult[object]) -> list[Event]:
    return [event async for event in stream(result)]


def cancel(prompt: str) -> None:
    result = complete.apply_async(("coder", prompt), {"stream": True}, task_id="mine", expires=60)
    result.cancel()
    app.control.revoke(result.id)


def run() -> str:
    return workflow("feature").delay("Add a login page").id
"""
BAD = """
from breakwater import complete

complete.delay("coder")
complete.delay("coder", "hi", temprature=0)
complete.delay("coder", 3)
complete.delay("coder", "hi").get(timeout=60).upper()
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all runs."""
    return tmp_path_factory.mktemp("mypy")


def _mypy(folder: Path, text: str, cache: Path) -> str:
    (folder / "users.py").write_text(text)
    (folder / "mypy.ini").write_text(
        "[mypy]\nstrict = true\n[mypy-breakwater.*]\nignore_errors = true\n"
    )
    (folder / "installed").mkdir()
    (folder / "installed" / "breakwater").symlink_to(ROOT / "breakwater")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", str(cache), "users.py"],
        cwd=folder, capture_output=True, text=True, check=False, env={"PATH": "", "MYPYPATH": "installed"},
    )  # fmt: skip
    assert "users.py" in done.stdout or "Success" in done.stdout, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_callers_file_is_fully_typed(tmp_path: Path, cache: Path) -> None:
    """Results, events and errors have types, though Celery has none."""
    report = _mypy(tmp_path, GOOD, cache)

    errors = [
        line for line in report.splitlines() if line.startswith("users.py") and "error" in line
    ]
    assert not errors
    assert "breakwater.enqueueing.interface.AsyncResult[" in report
    assert 'Revealed type is "bool"' in report
    assert 'Revealed type is "breakwater.asking.events.Event"' in report


@pytest.mark.slow
def test_a_callers_mistakes_are_found(tmp_path: Path, cache: Path) -> None:
    """A missing prompt, a misspelt option, a wrong type and a wrong use of the result."""
    report = _mypy(tmp_path, BAD, cache)

    for line in (4, 5, 6, 7):
        assert f"users.py:{line}: error" in report, report
