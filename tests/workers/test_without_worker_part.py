"""The package without `[worker]`: a client, and nothing that runs."""

import subprocess
import sys

import pytest

from tests.support.ports import free_port

WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {
            "anthropic", "openai", "pydantic", "sqlalchemy", "structlog", "typer", "rich", "httpx2",
        }:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + code], capture_output=True, text=True, check=False,
        env={"REDIS_URL": f"redis://127.0.0.1:{free_port()}/0", "PATH": ""},
    )  # fmt: skip


@pytest.mark.parametrize(
    "code",
    [
        "from workers.cli import main; main()",
        "from celery.__main__ import main; sys.argv = ['celery', '-A', 'workers', 'worker']; main()",
    ],
    ids=["breakwater", "celery worker"],
)
def test_what_needs_the_worker_part_says_so_in_one_line(code: str) -> None:
    """It names the missing module and the command that installs it; no traceback."""
    done = run(code)

    assert done.returncode == 78
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("breakwater: a worker and the breakwater command need ")
    assert line.endswith("run pip install 'breakwater-llm[worker]'")


def test_a_client_enqueues_without_the_worker_part() -> None:
    """All of it is there: enqueueing, streams, workflows, errors; only Redis is missing here."""
    done = run("""
from breakwater import complete, errors, stream, workflow
from breakwater.workflows import Stage
for enqueue in (
    lambda: complete.delay("coder", "hi"),
    lambda: workflow([Stage("only", "coder", "{input}")]).delay("hi"),
):
    try:
        enqueue()
    except errors.QueueUnavailable:
        print("no Redis")
""")

    assert done.stdout == "no Redis\nno Redis\n", done.stderr
