"""What a client and a worker of other versions, or in other code bases, rely on."""

import subprocess
import sys
from pathlib import Path

import pytest

from breakwater.celery_app import app
from breakwater.errors import ConfigError, Overloaded
from breakwater.executors import executor_of
from tests.support.ports import free_port

READ_AN_ERROR = """
import tasks
assert tasks.OWN
from breakwater import app, errors
error = app.backend.exception_to_python(
    {"exc_type": "Overloaded", "exc_module": "tasks.errors", "exc_message": ["busy", {"status": 529}]}
)
assert isinstance(error, errors.Overloaded), type(error)
assert error.details == {"status": 529}
try:
    app.tasks["complete"]("coder", "hi")
except errors.ConfigError as error:
    assert "can only enqueue it" in str(error), error
"""


def test_an_error_is_written_by_the_module_that_every_version_has() -> None:
    """A producer of version 0.1 has no package `breakwater`."""
    written = app.backend.prepare_exception(Overloaded("busy", {"status": 529}), serializer="json")

    assert (written["exc_module"], written["exc_type"]) == ("tasks.errors", "Overloaded")


def test_an_error_is_read_where_tasks_is_another_package(tmp_path: Path) -> None:
    """The caller's own `tasks`, `workers` and `breaker` come first on the path, and do no harm."""
    for name in ("tasks", "workers", "breaker"):
        (tmp_path / f"{name}.py").write_text("OWN = True\n")

    done = subprocess.run(
        [sys.executable, "-c", READ_AN_ERROR], capture_output=True, text=True, check=False,
        cwd=tmp_path, env={"REDIS_URL": f"redis://127.0.0.1:{free_port()}/0", "PATH": ""},
    )  # fmt: skip

    assert done.returncode == 0, done.stderr


def test_a_process_that_runs_a_task_itself_finds_its_body() -> None:
    """Such as one with `task_always_eager`: nobody has imported the worker part."""
    code = """
import sys
from breakwater.executors import executor_of
assert not [name for name in sys.modules if name.split(".")[0] == "tasks"]
print(executor_of("complete").__module__, executor_of("workflow").__module__)
"""

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.split() == ["tasks.answering.task", "tasks.workflows.advance"]


def test_a_task_that_nothing_runs_is_an_error_that_says_what_to_install() -> None:
    """Never a body that does nothing."""
    with pytest.raises(ConfigError, match=r"pip install 'breakwater-llm\[worker\]'"):
        executor_of("compleet")
