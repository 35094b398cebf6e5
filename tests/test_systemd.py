"""The units in deploy/systemd: systemd takes them, and what they start and set exists."""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.shell import commands_of, fault_of
from tests.test_configuration_docs import documented
from tests.test_docs import ROOT
from workers.lifecycle import EX_CONFIG, EX_USAGE
from workers.shutdown import EXIT_TIMEOUT_S

FOLDER = ROOT / "deploy" / "systemd"
UNITS = {path.name: path for path in [*FOLDER.glob("*.service"), *FOLDER.glob("*.timer")]}
SERVICES = [name for name in UNITS if name.endswith(".service")]
WORKER = "breakwater-worker@.service"
EXPOSURE = 20
"""Tenths of what `systemd-analyze security` may rate a unit at, of 100."""


def settings(name: str) -> dict[str, list[str]]:
    """Return each key of a unit's service with its values; a key may stand several times."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in UNITS[name].read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif section == "Service" and "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def environment(name: str) -> dict[str, str]:
    return dict(each.split("=", 1) for each in settings(name)["Environment"])


@pytest.mark.parametrize("name", SERVICES)
def test_every_command_and_option_exists(name: str) -> None:
    """Of our commands and of Celery's."""
    (start,) = settings(name)["ExecStart"]

    (words,) = commands_of(start)
    assert fault_of(words) == ""
    assert start.startswith("/opt/breakwater/bin/")


@pytest.mark.parametrize("name", SERVICES)
def test_every_variable_is_one_that_is_read(name: str) -> None:
    """A variable that is misspelt sets nothing."""
    lines = (FOLDER / "environment").read_text().splitlines()
    in_file = {
        line.lstrip("#").partition("=")[0] for line in lines if re.match(r"#?[A-Z_]+=", line)
    }

    assert "REDIS_URL" in in_file
    assert environment(name).keys() | in_file <= documented()


def test_a_worker_has_the_time_to_end_its_calls_and_to_hand_back_the_rest() -> None:
    """The longest call < the grace period < what systemd waits before SIGKILL."""
    grace_s = float(environment(WORKER)["BREAKWATER_GRACE_S"])
    (stop_s,) = settings(WORKER)["TimeoutStopSec"]
    roles = (ROOT / "tasks/config/settings.py").read_text()
    (total_s,) = re.findall(r"total_s: float = ([\d.]+)", roles)

    assert float(total_s) < grace_s
    assert grace_s + EXIT_TIMEOUT_S < float(stop_s)
    assert settings(WORKER)["KillMode"] == ["mixed"]


def test_what_a_restart_cannot_mend_is_not_started_again() -> None:
    """The exit codes of a worker whose options or configuration cannot be used."""
    assert settings(WORKER)["RestartPreventExitStatus"] == [f"{EX_USAGE} {EX_CONFIG}"]


def test_what_a_worker_writes_is_in_its_state_directory() -> None:
    """All else is read-only."""
    set_here = environment(WORKER)
    paths = [
        set_here["SPOOL_DIR"],
        set_here["PROMETHEUS_MULTIPROC_DIR"],
        *settings(WORKER)["WorkingDirectory"],
    ]

    assert settings(WORKER)["StateDirectory"] == ["breakwater"]
    assert all(path.startswith("/var/lib/breakwater") for path in paths)
    assert set_here["LEDGER_URL"].startswith("sqlite:////var/lib/breakwater/")


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_hardened_alike(name: str) -> None:
    """The lines from UMask on are the same."""
    mine, theirs = settings(name), settings(WORKER)
    hardening = list(theirs)[list(theirs).index("UMask") :]

    assert {key: mine.get(key) for key in hardening} == {key: theirs[key] for key in hardening}
    assert mine["UMask"] == ["0077"]


def test_the_timer_starts_a_service_that_exists() -> None:
    """The one with its name."""
    timer = configparser.ConfigParser()
    timer.read(UNITS["breakwater-prune.timer"])

    assert timer["Timer"]["OnCalendar"]
    assert "breakwater-prune.service" in UNITS


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units, with this environment's commands and an environment file that exists."""
    (tmp_path / "environment").touch()
    for name, path in UNITS.items():
        text = path.read_text().replace("/opt/breakwater/bin", str(Path(sys.executable).parent))
        text = text.replace("/etc/breakwater/environment", str(tmp_path / "environment"))
        (tmp_path / name.replace("@.", "@1.")).write_text(text)
    return tmp_path


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_takes_it(name: str, installed: Path) -> None:
    """Without a warning: an unknown key or a bad value would be ignored at the start."""
    path = installed / name.replace("@.", "@1.")

    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    ours = [
        line for line in done.stderr.splitlines() if str(installed) in line or path.name in line
    ]
    assert (done.returncode, ours) == (0, []), done.stderr


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
@pytest.mark.parametrize("name", SERVICES)
def test_systemd_rates_it_as_little_exposed(name: str, installed: Path) -> None:
    """A line that weakens it is seen."""
    path = installed / name.replace("@.", "@1.")

    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", f"--threshold={EXPOSURE}", str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
