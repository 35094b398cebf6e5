"""What the doctor knows to hurt: each setting by itself, and those of a real worker."""

import json
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from simulator.client import Simulator
from tasks.config import ProviderSettings, Settings, Timeout
from tasks.operations.fleet import Worker
from tests.support.fleet import Fleet, wait_for
from workers.doctor.finding import Finding
from workers.doctor.redis import check_connections, check_kernel
from workers.doctor.workers import check_host, check_workers, max_connections
from workers.heartbeat import is_monkey_patched

SOUND = Worker(
    "id", "w0@host", "threads", 100, 0, ["celery"], "v", None, grace_s=140.0, max_open_files=65_536
)
SETTINGS = Settings({"slow": ProviderSettings("slow", "openai", "m", timeout=Timeout(5, 120))}, {})


def found(*workers: Worker) -> list[Finding]:
    return list(check_workers(workers, SETTINGS))


def test_a_sound_worker_is_not_mentioned() -> None:
    """Whoever reads the report reads what is wrong."""
    assert found(SOUND) == []


@pytest.mark.parametrize(
    ("change", "what", "step"),
    [
        ({"grace_s": 25.0}, "--grace is 25 s, and a call may take 120 s", "BREAKWATER_GRACE_S=140"),
        (
            {"max_open_files": 256},
            "it may open 256 files, and 100 calls take up to 400",
            "ulimit -n 800",
        ),
        ({"pool": "gevent", "is_unpatched": True}, "gevent without its patches", "--pool gevent"),
        ({"pool": "solo"}, "one prompt at a time", "--pool threads"),
        ({"pool": "prefork"}, "100 processes", "--pool threads --concurrency 100"),
        ({"concurrency": 2_000}, "2000 threads in one process", "--concurrency 1000 at most"),
        (
            {"changed_settings": {"task_acks_late": False}},
            "task_acks_late is False",
            "leave task_acks_late",
        ),
        (
            {"changed_settings": {"prefetch_multiplier": 8}},
            "holds prompts that others could",
            "leave",
        ),
        ({"changed_settings": {"result_expires": None}}, "kept for ever", "leave result_expires"),
    ],
)
def test_what_hurts_is_told_with_its_cure(change: dict[str, Any], what: str, step: str) -> None:
    """What was found, in figures; what to do, ready to be typed."""
    (finding,) = found(replace(SOUND, **change))

    assert finding.level == "warning"
    assert finding.about == "worker w0@host"
    assert what in finding.what
    assert step in finding.next_step


def test_one_line_for_a_thousand_workers() -> None:
    """They are started alike, so they are wrong alike."""
    (finding,) = found(*(replace(SOUND, name=f"w{n}@h", grace_s=25.0) for n in range(1000)))

    assert finding.about == "worker w0@h, w1@h, w2@h and 997 more"


def test_a_worker_of_an_older_version_is_not_judged_by_what_it_does_not_say() -> None:
    """Not to know is no fault."""
    assert found(replace(SOUND, grace_s=None, max_open_files=None)) == []


def test_a_setting_that_does_no_harm_is_no_finding() -> None:
    """Longer or shorter, results expire; only never is a fault."""
    assert found(replace(SOUND, changed_settings={"result_expires": 3600, "unheard_of": 1})) == []


def test_more_connections_than_the_server_takes_are_foreseen() -> None:
    """All threads are busy at once after an outage, of all times."""
    workers = [SOUND] * 59

    (finding,) = check_connections(workers, {"maxclients": 10_000})

    assert max_connections(workers) == 10_148
    assert "59 workers may open 10148 connections" in finding.what
    assert finding.next_step == "redis-cli config set maxclients 20296"
    assert list(check_connections(workers[:58], {"maxclients": 10_000})) == []
    assert max_connections([replace(SOUND, pool="prefork", concurrency=10)]) == 38


@pytest.mark.slow
def test_children_open_no_more_connections_than_are_reckoned(
    workers: Fleet, simulator: Simulator, redis_url: str
) -> None:
    """All begin at once and fail at once, and turn to Redis, its results and the breakers."""
    simulator.fault("local", status=503)
    server = redis.Redis.from_url(redis_url)
    before = server.info("clients")["connected_clients"]
    workers.start(1, "prefork", 4)

    served = workers.run("""
from tasks import complete
asked = complete.delay_many([("coder", "hi")] * 20)
print({result.get(timeout=180)["provider"] for result in asked})
""")

    assert served.strip() == "{'claude'}"
    opened = server.info("clients")["connected_clients"] - before
    assert opened <= max_connections([replace(SOUND, pool="prefork", concurrency=4)])


def test_the_kernel_under_a_redis_is_looked_at(tmp_path: Path) -> None:
    """Both settings are known to hurt Redis; where they cannot be read, nothing is said."""
    overcommit = tmp_path / "proc/sys/vm/overcommit_memory"
    huge = tmp_path / "sys/kernel/mm/transparent_hugepage/enabled"
    nothing = list(check_kernel(tmp_path))
    for file, text in ((overcommit, "0\n"), (huge, "[always] madvise never\n")):
        file.parent.mkdir(parents=True)
        file.write_text(text)

    told = [finding.what for finding in check_kernel(tmp_path)]
    overcommit.write_text("1\n")
    huge.write_text("always [madvise] never\n")

    assert nothing == []
    assert ["overcommit" in told[0], "huge pages" in told[1]] == [True, True]
    assert list(check_kernel(tmp_path)) == []


def test_a_host_is_looked_at_before_a_worker_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment is the one that a worker would be started with."""
    monkeypatch.setenv("SPOOL_DIR", str(tmp_path / "spool"))
    monkeypatch.setenv("BREAKWATER_GRACE_S", "30")

    (short,) = check_host(SETTINGS)
    monkeypatch.setenv("BREAKWATER_GRACE_S", "130")

    assert (short.about, "30 s" in short.what) == ("environment", True)
    assert list(check_host(SETTINGS)) == []


def test_a_spool_that_cannot_be_written_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found when it is needed, it would be too late. Root may write everywhere, so it is no folder."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPOOL_DIR", str(tmp_path / "file" / "spool"))

    (finding,) = check_host(None)

    assert (finding.about, finding.level) == ("spool", "warning")
    assert "set SPOOL_DIR" in finding.next_step


def test_a_missing_hiredis_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is a dependency, and can be missing all the same where no wheel fits."""
    monkeypatch.setenv("SPOOL_DIR", str(tmp_path))
    monkeypatch.setattr("workers.doctor.workers.find_spec", lambda _: None)

    (finding,) = check_host(None)

    assert finding.next_step == "pip install hiredis"


@pytest.mark.slow
def test_greenlets_are_patched_or_not() -> None:
    """Celery patches for `--pool gevent`; a worker that a program makes itself may have none."""
    code = "from gevent import monkey; monkey.patch_all()\n"
    asks = "from workers.heartbeat import is_monkey_patched; print(is_monkey_patched('gevent'))"

    def told(code: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert is_monkey_patched("threads")
    assert told(asks) == "False"
    assert told(code + asks) == "True"


def test_the_settings_of_a_real_worker_are_found(workers: Fleet, redis_url: str) -> None:
    """By an option, by somebody's code, and by the limits of the process."""
    (workers.folder / "hurtful.py").write_text(
        "from breakwater.celery_app import app\napp.conf.task_acks_late = False\n"
    )
    workers.environ["BREAKWATER_GRACE_S"] = "7"
    workers.start(1, "threads", 50, "--prefetch-multiplier", "4", "--include", "hurtful")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.prlimit(workers.workers[0].pid, resource.RLIMIT_NOFILE, (222, hard))
    client = redis.Redis.from_url(redis_url)
    wait_for(lambda: any(b'"files": 222' in told for told in client.hvals("workers")))

    found = json.loads(workers.command("breakwater", "doctor", "--json").stdout)

    whats = [each["what"] for each in found if each["about"] == "worker w0@test"]
    assert any(what.startswith("--grace is 7 s") for what in whats)
    assert any(what.startswith("it may open 222 files") for what in whats)
    assert any(what.startswith("task_acks_late is False: ") for what in whats)
    assert any(what.startswith("prefetch_multiplier is 4: ") for what in whats)
