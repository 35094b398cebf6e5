"""The client's types, as `mypy --strict` sees them in a user's file."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
GOOD = """
from breakwater import AsyncResult, Event, Result, app, complete, errors, stream, workflow
from breakwater.workflows import Loop, Run, Stage, Until, WorkflowResult


def ask(prompt: str) -> str:
    result = complete.delay("coder", prompt, params={"temperature": 0}, deadline_s=60)
    reveal_type(result)
    try:
        answer = result.get(timeout=60)
    except errors.BadTask as fault:
        return str(fault.details)
    except errors.RateLimited as limited:
        reveal_type(limited.retry_after_s)
        raise
    except errors.BreakwaterError as error:
        reveal_type(error.attempts)
        return error.attempts[-1]["why"]
    reveal_type(result.ready())
    reveal_type(answer)
    reveal_type(answer["usage"]["input_tokens"])
    reveal_type(answer["attempts"][0]["outcome"])
    reveal_type(answer["tool_calls"][0]["arguments"])
    reveal_type(answer["cost_usd"])
    return answer["text"]


def many(prompts: list[str]) -> list[str]:
    results = complete.delay_many(
        [("coder", prompt, {"deadline_s": 60}) for prompt in prompts], priority=3, queue="mine"
    )
    reveal_type(results)
    return [result.get(timeout=60)["text"] for result in results]


def read(task_id: str) -> list[str]:
    texts: list[str] = []
    for event in stream(task_id, timeout=5):
        reveal_type(event)
        texts.append(event.text)
        if event.result is not None:
            reveal_type(event.result)
            texts.append(event.result["finish_reason"])
    return texts


def keep(result: Result) -> dict[str, object]:
    return {**result, "again": result["task_id"]}


async def read_async(result: AsyncResult[object]) -> list[Event]:
    return [event async for event in stream(result)]


def cancel(prompt: str) -> None:
    result = complete.apply_async(("coder", prompt), {"stream": True}, task_id="mine", expires=60)
    result.cancel()
    app.control.revoke(result.id)


def run() -> WorkflowResult:
    run: Run = workflow("feature").delay("Add a login page", run_id="mine")
    reveal_type(run.state()["stages"][0]["cost_usd"])
    reveal_type(run.state()["error"])
    reveal_type(run.get(timeout=60)["text"])
    return workflow.run(run.id).get()


def own(prompt: str) -> str:
    review = Stage("review", "coder", "Review {input}", schema={"type": "object"})
    loop = Loop([review], Until("review", equals={"ok": True}), at_most=3)
    return workflow([loop], name="mine").delay(prompt).id
"""
BAD = """
from breakwater import complete

complete.delay("coder")
complete.delay("coder", "hi", temprature=0)
complete.delay("coder", 3)
complete.delay("coder", "hi").get(timeout=60).upper()
complete.apply_async(("coder", "hi"), priorty=3)
complete.apply_async(("coder", "hi"), countdown="soon")
complete.delay_many([("coder", "hi")], task_id="mine")
complete.delay("coder", "hi").get()["txt"]
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


def short(revealed: str) -> str:
    """Return a type without its modules and the fields of TypedDicts."""
    while revealed != (shorter := re.sub(r"TypedDict\(([\w.]+), \{[^{}]*\}\)", r"\1", revealed)):
        revealed = shorter
    return re.sub(r"(?:\w+\.)+(\w+)", r"\1", revealed)


@pytest.mark.slow
def test_a_callers_file_is_fully_typed(tmp_path: Path, cache: Path) -> None:
    """Results, events and errors have types, though Celery has none."""
    report = _mypy(tmp_path, GOOD, cache)

    errors = [
        line for line in report.splitlines() if line.startswith("users.py") and ": error:" in line
    ]
    assert not errors
    revealed = re.findall(r'Revealed type is "(.*)"', report)
    assert [short(each) for each in revealed] == [
        "AsyncResult[Result]",
        "float | None",
        "list[AttemptJson]",
        "bool",
        "Result",
        "int | None",
        "Literal['succeeded'] | Literal['failed'] | Literal['rejected'] | Literal['cached']",
        "dict[str, Any]",
        "str | None",
        "list[AsyncResult[Result]]",
        "Event",
        "Result",
        "str | None",
        "ErrorInfo | None",
        "str",
    ]


@pytest.mark.slow
def test_a_callers_mistakes_are_found(tmp_path: Path, cache: Path) -> None:
    """A missing prompt, misspelt options, wrong types and wrong uses of the result."""
    report = _mypy(tmp_path, BAD, cache)

    for line in range(4, 12):
        assert f"users.py:{line}: error" in report, report
