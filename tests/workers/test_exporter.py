"""`/metrics` of real workers, read by Prometheus' own parser, against what the providers counted."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import redis

from simulator.client import Simulator
from tasks.answering import runtime
from tasks.config import Settings
from tasks.operations.fleet import Fleet as FleetView
from tests.support.fleet import KEYS, Fleet, fleet, wait_for
from tests.support.ports import free_port
from tests.support.scrape import Scrape, scrape, scrape_if_served
from tests.support.valkey import Server
from workers.metrics import definitions
from workers.metrics.fleet import LARGE_FLEET, SNAPSHOT_KEY, SNAPSHOT_MS, FleetMetrics

ASK = """
from tasks import complete
results = [complete.delay(role, f"prompt {n}") for n in range(5) for role in %r]
for result in results:
    result.get(timeout=180, propagate=False)
"""


def roles_over(simulator: Simulator) -> str:
    return f"""
providers:
  claude: {{adapter: anthropic, model: claude-haiku-5-5, api_key: {KEYS["claude"]}, base_url: "{simulator.url("claude")}",
           prices: {{"*": {{input_tokens: 1, output_tokens: 5}}}}, breaker: {{fail_max: 3, reset_timeout_s: 600}}}}
  local: {{adapter: openai-chat, model: qwen3, api_key: none, base_url: "{simulator.url("local")}/v1"}}
roles:
  coder: {{chain: [claude, local]}}
  planner: {{chain: [local]}}
  lonely: {{chain: [claude], deadline_s: 900}}
"""


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def workers(redis_url: str, simulator: Simulator, port: int) -> Iterator[Fleet]:
    """A fleet that counts, no worker started yet."""
    with measured(redis_url, simulator, port) as those:
        yield those


def measured(redis_url: str, simulator: Simulator, port: int) -> AbstractContextManager[Fleet]:
    environ = {"METRICS_PORT": str(port), "METRICS_HOST": "127.0.0.1"}
    return fleet(redis_url, roles_over(simulator), environ)


@pytest.fixture(autouse=True)
def _own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """The workers' counts go into the test's own temporary folder."""
    if "workers" in request.fixturenames:
        request.getfixturevalue("workers").environ["TMPDIR"] = str(tmp_path)


def counted(port: int, tasks: int) -> Scrape:
    """Wait until so many tasks are counted as settled: a result is there a moment before."""
    return wait_for(lambda: (seen := scrape(port)).sum("breakwater_tasks_total") >= tasks and seen)


@pytest.mark.parametrize("pool", ["threads", "prefork", "gevent", "solo"])
def test_the_metrics_are_what_the_providers_counted(
    pool: str, workers: Fleet, simulator: Simulator, port: int
) -> None:
    """Calls, tokens and dollars to the last one, whatever the pool; both parsers take it."""
    workers.start(1, pool, 1 if pool == "solo" else 3)
    workers.run(ASK % (["coder", "planner"],))

    seen = counted(port, 10)

    scrape(port, strict=True)
    hits = Counter(hit["label"] for hit in simulator.hits())
    for provider in ("claude", "local"):
        mine = [hit for hit in simulator.hits() if hit["label"] == provider]
        assert seen.sum("breakwater_attempts_total", provider=provider) == hits[provider] == 5
        assert seen.sum("breakwater_attempt_duration_seconds_count", provider=provider) == 5
        for name, field in (("input", "input_tokens"), ("output", "output_tokens")):
            tokens = sum(hit[field] for hit in mine)
            assert seen.sum(f"breakwater_{name}_tokens_total", provider=provider) == tokens > 0
    spent = sum(
        hit["input_tokens"] + 5 * hit["output_tokens"]
        for hit in simulator.hits() if hit["label"] == "claude"
    ) / 1e6  # fmt: skip
    assert seen.sum("breakwater_cost_usd_total") == pytest.approx(spent)
    assert seen.sum("breakwater_unpriced_attempts_total", provider="local") == 5
    assert seen.sum("breakwater_tasks_total", state="succeeded") == 10
    assert seen.sum("breakwater_task_duration_seconds_count", role="planner") == 5
    assert seen.sum("breakwater_redis_up") == 1


def test_a_tripped_breaker_and_what_follows_is_seen(
    workers: Fleet, simulator: Simulator, port: int
) -> None:
    """State, transition, rejections, a parked role with its age, and dead letters."""
    simulator.fault("claude", status=503)
    workers.start()
    workers.run(ASK % (["coder"],))
    workers.run('from tasks import complete; [complete.delay("lonely", "hi") for _ in range(3)]')
    simulator.fault("local", status=400)
    workers.run(
        'from tasks import complete; complete.delay("planner", "hi").get(propagate=False, timeout=180)'
    )

    seen = wait_for(
        lambda: (
            (s := scrape(port)).sum("breakwater_queue_parked", role="lonely") == 1
            and s.sum("breakwater_queue_depth", role="lonely") == 3
            and s.sum("breakwater_tasks_total") == 6
            and s
        ),
        explain=workers.logs,
    )

    assert seen.sum("breakwater_breaker_state", breaker="claude", state="open") == 1
    assert seen.sum("breakwater_breaker_state", breaker="claude") == 1
    assert seen.sum("breakwater_breaker_state", breaker="local", state="closed") == 1
    assert seen.sum("breakwater_breaker_failures", breaker="claude") == 3
    assert seen.sum(
        "breakwater_breaker_transitions_total", breaker="claude", before="closed", after="open"
    ) == seen.sum("breakwater_breaker_transitions_total") == 1  # fmt: skip
    failed = seen.sum("breakwater_attempts_total", outcome="failed", error="Overloaded")
    assert failed == len([hit for hit in simulator.hits() if hit["label"] == "claude"])
    assert seen.sum("breakwater_attempts_total", outcome="rejected", error="BreakerOpen") >= 1
    assert not seen.sum("breakwater_attempt_duration_seconds_count", outcome="rejected")
    assert seen.sum("breakwater_queue_oldest_seconds", role="lonely") > 0
    assert seen.sum("breakwater_queue_consumers", role="lonely") == 1
    assert seen.sum("breakwater_workers", draining="no") == 1
    assert seen.sum("breakwater_roles_versions") == 1
    assert seen.sum("breakwater_dead_letters_total") == 1
    assert seen.sum("breakwater_dead_letters_kept") == 1
    assert seen.sum("breakwater_tasks_total", role="planner", state="failed") == 1


def test_what_is_exported_is_what_is_listed(
    workers: Fleet, simulator: Simulator, port: int
) -> None:
    """No metric without a line in the list, none listed that is nowhere; kinds and labels too."""
    simulator.script("claude", [{"status": 503, "first": 3}])
    workers.start()
    workers.run(ASK % (["coder"],))

    families = {family.name: family for family in counted(port, 5).families}

    listed = {
        m.name.removesuffix("_total"): m for m in (*definitions.BY_PROCESS, *definitions.OF_FLEET)
    }
    assert set(families) == set(listed)
    for name, metric in listed.items():
        assert (families[name].type, families[name].documentation) == (metric.kind, metric.help)
        for sample in families[name].samples:
            assert set(sample.labels) - {"le"} == set(metric.labels)


def test_in_a_large_fleet_one_looks_for_all(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else a scrape of each worker, each looking at all, costs the square of their number."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setattr(runtime, "_settings", Settings({}, {}))
    client, looks = redis.Redis.from_url(redis_url), Counter[str]()
    look = FleetView.snapshot
    monkeypatch.setattr(
        FleetView, "snapshot", lambda self, roles=(): looks.update(["look"]) or look(self, roles)
    )

    def scraped(workers: int) -> dict[str, float]:
        told = {
            "name": "w", "pool": "threads", "concurrency": 8, "version": "v",
            "queues": ["celery"], "running": {"celery": 2},
        }  # fmt: skip
        client.hset("workers", mapping={str(n): json.dumps(told) for n in range(workers)})
        samples = (sample for family in FleetMetrics().collect() for sample in family.samples)
        return {
            s.name + s.labels.get("queue", "") + s.labels.get("draining", ""): s.value
            for s in samples
        }

    few = [scraped(LARGE_FLEET - 1) for _ in range(2)]
    many = [scraped(LARGE_FLEET) for _ in range(5)]
    runtime.close()

    assert looks["look"] == 2 + 1
    assert few[0]["breakwater_queue_consumerscelery"] == LARGE_FLEET - 1
    assert all(told == many[0] for told in many)
    assert many[0]["breakwater_queue_runningcelery"] == 2 * LARGE_FLEET
    assert many[0]["breakwater_workersno"] == LARGE_FLEET
    assert 0 < client.pttl(SNAPSHOT_KEY) <= SNAPSHOT_MS


def test_another_worker_takes_over_the_port_with_all_that_was_counted(
    workers: Fleet, port: int
) -> None:
    """Two workers, one port; the one that serves is killed, and no sum falls."""
    workers.start()
    wait_for(lambda: scrape_if_served(port))
    workers.start()
    workers.run(ASK % (["planner", "coder"],))
    counted(port, 10)

    os.killpg(workers.workers[0].pid, signal.SIGKILL)
    workers.workers[0].wait()
    after = wait_for(lambda: scrape_if_served(port), explain=workers.logs)

    assert after.sum("breakwater_tasks_total") == 10
    assert after.sum("breakwater_attempts_total") == 10


@pytest.mark.slow
def test_a_worker_goes_on_in_the_files_of_a_dead_one(
    workers: Fleet, port: int, tmp_path: Path
) -> None:
    """However often workers start and children are replaced: as many files as run at once."""
    workers.start(1, "threads", 2)
    workers.start(1, "prefork", 2, "--max-tasks-per-child", "1")
    workers.run(ASK % (["planner"],))
    counted(port, 5)
    os.killpg(workers.workers[1].pid, signal.SIGKILL)
    workers.workers[1].wait()
    workers.start(1, "prefork", 2, "--max-tasks-per-child", "1")
    workers.run(ASK % (["planner"],))

    after = counted(port, 10)

    assert after.sum("breakwater_tasks_total") == 10
    names = {path.name for path in tmp_path.rglob("counter_*.db")}
    assert names <= {"counter_0.db", "counter_1.db", "counter_1-0.db", "counter_1-1.db"}


def test_counts_begin_anew_when_no_worker_was_left(workers: Fleet, port: int) -> None:
    """What roles and providers of last year have counted is not told for ever."""
    workers.start()
    workers.run(ASK % (["planner"],))
    counted(port, 5)
    os.killpg(workers.workers[0].pid, signal.SIGKILL)
    workers.workers[0].wait()

    workers.start()

    after = wait_for(lambda: scrape_if_served(port))
    assert after.sum("breakwater_tasks_total") == 0
    assert after.has("breakwater_cost_usd_total")  # at 0, so that a rate misses nothing


def test_a_frozen_redis_leaves_what_the_workers_know(
    simulator: Simulator, port: int, tmp_path: Path
) -> None:
    """The scrape ends, says that Redis is away, and has the counts and the breakers."""
    with Server() as server, measured(server.url, simulator, port) as workers:
        workers.environ["TMPDIR"] = str(tmp_path)
        workers.start()
        workers.run(ASK % (["planner"],))
        counted(port, 5)

        server.freeze()
        try:
            seen = scrape(port)
        finally:
            server.thaw()

        assert seen.sum("breakwater_redis_up") == 0
        assert seen.sum("breakwater_tasks_total") == 5
        assert seen.sum("breakwater_breaker_state", breaker="local", state="closed") == 1
        assert not seen.has("breakwater_queue_depth")
        assert wait_for(lambda: scrape(port).sum("breakwater_redis_up") == 1)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"METRICS_PORT": "http"}, "METRICS_PORT: 'http' is not a valid port; it must be a number from 1 to 65535"),
        ({"PROMETHEUS_MULTIPROC_DIR": "/dev/null/x"}, "/dev/null/x cannot be used: Not a directory"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_stop_the_worker(
    environ: dict[str, str], said: str, workers: Fleet
) -> None:
    """With what is wrong, and exit code 78."""
    workers.environ.update(environ)
    workers.start_one("threads", 1)

    assert workers.workers[0].wait(180) == 78
    assert said in workers.log()


def test_a_full_disk_is_told_at_start(workers: Fleet) -> None:
    """The files are written as memory, where a full disk would be a SIGBUS in the midst of work."""
    code = (
        "import resource, signal, sys; from celery.__main__ import main;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); sys.exit(main())"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, "-A", "workers", "worker", "--pool", "solo"],
        cwd=workers.folder, env=workers.environ, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip

    assert done.returncode == 78
    assert "cannot be used: File too large" in done.stderr


def test_without_a_port_nothing_is_imported_for_it(workers: Fleet) -> None:
    """It costs memory and time only where it is wanted."""
    code = "import sys, workers; print('prometheus_client' in sys.modules)"

    told = subprocess.run(
        [sys.executable, "-c", code],
        env=workers.environ,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert json.loads(told.lower()) is False
