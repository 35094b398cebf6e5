"""The worker and the `breakwater` command: `celery -A workers worker`."""

import sys

try:
    from tasks import app
    from workers.lifecycle import install
except ModuleNotFoundError as missing:
    ours = ("breaker", "breakwater", "tasks", "workers")
    if (missing.name or "").split(".")[0] in ours:
        raise
    print(  # noqa: T201 - logging is not set up yet
        f"breakwater: a worker and the breakwater command need {missing.name}, which is not "
        f"installed; run pip install 'breakwater-llm[worker]'",
        file=sys.stderr,
    )
    sys.exit(78)  # EX_CONFIG of sysexits.h, as for a bad roles file

install(app)

__all__ = ["app"]
