"""
Set up .venv with some extras of this project, and show the progress: `make` runs it once.

It needs the standard library alone. An old Python can read it, and prints that it is too old.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

ROOT = Path(__file__).parent.parent
OLDEST = (3, 11)
NEWER = ("python3.14", "python3.13", "python3.12", "python3.11")
SAY_EVERY_S = 2.0
"""Between two lines of progress where the output is not a terminal."""
LAST_LINES = 15
PYTHON = ROOT / ".venv" / "bin" / "python"
PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--progress-bar", "off")


def main(extras: str) -> int:
    """Set up; return the exit code."""
    if sys.version_info < OLDEST:
        return _too_old()
    _say(f"setting up .venv for `make {extras}`, once; it takes a minute or two")
    if not os.access(PYTHON, os.X_OK):
        made = subprocess.run([sys.executable, "-m", "venv", str(ROOT / ".venv")], check=False)
        if made.returncode:
            _say("no virtual environment; on Debian and Ubuntu: apt install python3-venv")
            return made.returncode
    began = time.monotonic()
    code = _install(extras)
    if not code:
        _say(f"done in {time.monotonic() - began:.0f} s")
    return code


def _too_old() -> int:
    found = next(filter(shutil.which, NEWER), None)
    here = ".".join(str(part) for part in sys.version_info[:3])
    which = f"there is {found}: make PYTHON={found} …" if found else "name one: make PYTHON=… …"
    _say(f"Python 3.11 or newer is needed; {sys.executable} is {here}; {which}")
    return 1


def _install(extras: str) -> int:
    command = [str(PYTHON), *PIP, "--editable", f"{ROOT}[{extras}]"]
    progress, last = Progress(), deque(maxlen=LAST_LINES)  # type: deque[str]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as pip:
        assert pip.stdout is not None  # noqa: S101 - tells mypy what PIPE gives
        for line in pip.stdout:
            last.append(line)
            progress.see(line.strip())
    progress.end()
    if pip.returncode:
        _say("pip could not install it:")
        sys.stdout.writelines(last)
    return pip.returncode


class Progress:
    """Shows pip's progress: one changing line on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self.live = sys.stdout.isatty()
        self.packages = 0
        self._said_at = time.monotonic()

    def see(self, line: str) -> None:
        """Show one line of pip's output if it reports progress."""
        word, _, rest = line.partition(" ")
        name = rest.split(" ")[0] if rest else ""
        if word == "Collecting":
            self.packages += 1
            self._show(f"package {self.packages}: {name}")
        elif word == "Downloading":
            self._show(f"package {self.packages}: downloading {rest[:50]}")
        elif line.startswith("Installing collected packages"):
            self._show(f"installing {line.count(',') + 1} packages", now=True)

    def end(self) -> None:
        """Clear the line."""
        if self.live:
            sys.stdout.write("\r\033[K")

    def _show(self, what: str, now: bool = False) -> None:
        if self.live:
            sys.stdout.write("\r\033[K  " + what[:70])
            sys.stdout.flush()
        elif now or time.monotonic() - self._said_at > SAY_EVERY_S:
            self._said_at = time.monotonic()
            _say("  " + what)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1]))
    except KeyboardInterrupt:
        sys.stdout.write("\nstopped; `make` goes on from here\n")
        sys.exit(130)
