"""How Breakwater runs: `celery -A workers worker`."""

import sys

try:
    from tasks import app
    from workers import lifecycle, shutdown
except ModuleNotFoundError as missing:
    ours = ("breaker", "breakwater", "tasks", "workers")
    if (missing.name or "").split(".")[0] in ours:
        raise
    print(  # noqa: T201 - there may be no log to write to
        f"breakwater: a worker and the breakwater command need {missing.name}, which is not "
        f"installed; run pip install 'breakwater-llm[worker]'",
        file=sys.stderr,
    )
    sys.exit(78)  # EX_CONFIG of sysexits.h, as for a bad roles file

__all__ = ["app", "lifecycle", "shutdown"]
