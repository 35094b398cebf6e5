"""The counts of one process, without a worker."""

import subprocess
import sys

COUNT = """
import sys
from pathlib import Path
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from tasks.config import Settings
from breakwater.attempt import Attempt
from tasks.telemetry.sinks import FinishedAttempt
from workers.metrics.counters import MAX_ROLES, Counters

folder = Path(sys.argv[1])
counters = Counters(Settings({}, {}, serves_any_role=True), folder, lambda: "0")
for number in range(MAX_ROLES + 50):
    task, attempt = {"task_id": "t", "role": f"role{number}"}, Attempt("claude", "m", "succeeded")
    counters.record(FinishedAttempt(task, attempt, None, "m"))
registry = CollectorRegistry()
MultiProcessCollector(registry, str(folder))
print(generate_latest(registry).decode())
"""


def test_roles_that_anybody_may_name_are_not_labels_without_end(tmp_path: object) -> None:
    """Without a roles file every name is a role; the first hundred have series of their own."""
    told = subprocess.run(
        [sys.executable, "-c", COUNT, str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout

    series = [line for line in told.splitlines() if line.startswith("breakwater_attempts_total{")]
    assert len(series) == 101
    assert [line.split()[-1] for line in series if 'role="other"' in line] == ["50.0"]
