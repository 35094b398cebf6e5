"""An environment for each rival whose packages do not go with ours, made on first use by pip."""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.rivals.catalogue import Rival

ROOT = Path(__file__).parents[2]
PINNED = Path(__file__).parent / "requirements"


def programs(rival: Rival) -> Path:
    """Return the folder of a rival's `python` and `celery`, made if it is not there yet."""
    if rival.requirements is None:
        return Path(sys.executable).parent
    folder = ROOT / ".venv" / "rivals" / rival.requirements
    pinned = PINNED / f"{rival.requirements}.txt"
    made_of = folder / "made-of.txt"
    if not made_of.exists() or made_of.read_text() != pinned.read_text():
        print(f"setting up {rival.requirements} (once)", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [
            str(folder / "bin" / "python"),
            "-m",
            "pip",
            "-qq",
            "--disable-pip-version-check",
        ]
        subprocess.run([*pip, "install", "--requirement", str(pinned)], check=True)
        made_of.write_text(pinned.read_text())
    return folder / "bin"


def variables(rival: Rival) -> dict[str, str]:
    """Return what a rival's processes find in their environment; nothing of the user's."""
    path = f"{programs(rival)}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "PYTHONPATH": str(ROOT)}
