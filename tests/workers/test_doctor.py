"""`breakwater doctor`: all that is wrong, each with what to do next."""

import json
import signal
import socket
from typing import Any

import pytest
import redis

from simulator.client import Simulator
from tests.support.fleet import KEYS, Fleet


def examine(workers: Fleet, exit_code: int) -> list[dict[str, Any]]:
    """Run the doctor; return its findings."""
    done = workers.command("breakwater", "doctor", "--json")
    assert done.returncode == exit_code, done.stdout + done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def about(found: list[dict[str, Any]], subject: str) -> dict[str, Any]:
    """Return the one finding about a subject."""
    (finding,) = [each for each in found if each["about"] == subject]
    return finding


def test_a_sound_set_up_has_no_fault(workers: Fleet) -> None:
    """Exit code 0; a warning, here of the tests' server that keeps nothing, is no fault."""
    found = examine(workers, 0)

    assert {finding["level"] for finding in found} == {"ok", "warning"}
    assert {f"provider {name}" for name in KEYS} <= {finding["about"] for finding in found}
    assert about(found, "persistence")["level"] == "warning"
    assert about(found, "clock")["level"] == "ok"


def test_a_paused_queue_is_named(workers: Fleet) -> None:
    """Somebody's word from last week is easily forgotten."""
    workers.environ["BREAKWATER_WHO"] = "ann"
    workers.command("breakwater", "pause", "coder")

    finding = about(examine(workers, 0), "queue role.coder")

    assert (finding["level"], finding["what"]) == ("warning", "paused by ann, 0 prompts wait")
    assert "breakwater resume coder" in finding["next_step"]


def test_a_refused_key_is_a_fault_of_its_provider_alone(
    workers: Fleet, simulator: Simulator
) -> None:
    """Every key is tried; the report names the provider and the next step, never the key."""
    simulator.fault("gpt", "unauthenticated")

    done = workers.command("breakwater", "doctor")

    assert done.returncode == 3
    assert "FAULT   provider gpt: AuthenticationFailed" in done.stdout
    assert "→ set a valid api_key for gpt" in done.stdout
    assert "ok      provider claude" in done.stdout
    assert "CANARYKEY" not in done.stdout + done.stderr


def test_every_fault_is_told_at_once(workers: Fleet) -> None:
    """A bad roles file does not keep Redis from being looked at, nor the other way round."""
    workers.roles_file.write_text("providers: {a: {adapter: anthropi}}\nroles: {r: {chain: [b]}}\n")
    workers.environ["REDIS_URL"] = "redis://:hunter2@127.0.0.1:1/0"

    found = examine(workers, 3)

    faults = [finding["what"] for finding in found if finding["level"] == "fault"]
    assert any("did you mean 'anthropic'?" in what for what in faults)
    assert any("chain" in what for what in faults)
    assert any(what.startswith("no connection: ") for what in faults)
    assert "hunter2" not in json.dumps(found)
    assert all(finding["next_step"] for finding in found if finding["level"] == "fault")


@pytest.mark.slow
def test_a_ledger_that_cannot_be_everybodys_is_a_warning(workers: Fleet, redis_url: str) -> None:
    """Two hosts, each with a SQLite file of its own; and rows that nobody drains."""
    workers.start(2)  # w0@test, w1@test
    sound = examine(workers, 0)
    server = redis.Redis.from_url(redis_url)
    for worker in workers.workers:  # else they say again who they are, and drain
        worker.send_signal(signal.SIGSTOP)
    for id_, told in server.hgetall("workers").items():
        server.hset("workers", id_, told.replace(b"w1@test", b"w1@elsewhere"))
    server.xadd("ledger", {"row": "none"}, id="1-1")

    found = [each["what"] for each in examine(workers, 0) if each["about"] == "ledger"]
    for worker in workers.workers:
        worker.send_signal(signal.SIGCONT)

    assert about(sound, "ledger")["what"] == "sqlite:///ledger.db"
    assert any("workers run on 2" in what for what in found)
    assert any("1 rows wait" in what for what in found)


@pytest.mark.slow
def test_a_database_that_does_not_answer_is_a_warning(workers: Fleet) -> None:
    """Prompts are answered without it; it is not waited for long, and no password is told."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = f"127.0.0.1:{silent.getsockname()[1]}"
        workers.environ["LEDGER_URL"] = f"postgresql+psycopg://ann:hunter2@{where}/none"

        found = examine(workers, 0)

    assert about(found, "ledger")["level"] == "warning"
    assert "hunter2" not in json.dumps(found)


def test_a_server_that_evicts_is_a_warning(workers: Fleet, redis_url: str) -> None:
    """A breaker or a prompt that Redis drops to make room is gone without a word."""
    shared = redis.Redis.from_url(redis_url)
    shared.config_set("maxmemory-policy", "allkeys-lru")
    try:
        finding = about(examine(workers, 0), "eviction")
    finally:
        shared.config_set("maxmemory-policy", "noeviction")

    assert finding["level"] == "warning"
    assert "allkeys-lru" in finding["what"]


def test_settings_of_a_server_that_hurt_are_warnings(workers: Fleet, redis_url: str) -> None:
    """Each with the command that cures it; the defaults are none of them."""
    shared = redis.Redis.from_url(redis_url)
    sound = {(each["about"], each["what"]) for each in examine(workers, 0)}
    used = shared.info("memory")["used_memory"]
    hurtful = {"timeout": "30", "appendonly": "yes", "appendfsync": "no", "maxmemory": used + 1000}
    before = {name: shared.config_get(name)[name] for name in hurtful}
    try:
        for name, value in hurtful.items():
            shared.config_set(name, value)
        found = [each for each in examine(workers, 0) if (each["about"], each["what"]) not in sound]
    finally:
        for name, value in before.items():
            shared.config_set(name, value)

    steps = {each["about"]: each["next_step"] for each in found if each["level"] == "warning"}
    assert steps["connections"] == "redis-cli config set timeout 0"
    assert steps["persistence"] == "redis-cli config set appendfsync everysec"
    assert "`breakwater docs scale`" in steps["memory"]


def test_prompts_of_a_role_that_is_gone_are_found(workers: Fleet, redis_url: str) -> None:
    """After a rename they would wait for ever; an existing role's queue is no news."""
    shared = redis.Redis.from_url(redis_url)
    shared.lpush("role.codr", "a message", "another")
    shared.lpush("role.coder", "a message")

    found = examine(workers, 0)

    finding = about(found, "queue role.codr")
    assert finding["level"] == "warning"
    assert finding["what"].startswith("2 prompts wait")
    assert not [each for each in found if each["about"] == "queue role.coder"]


def test_a_variable_of_celerys_own_is_a_warning(workers: Fleet) -> None:
    """Celery would take its broker from it, and the breakers theirs from REDIS_URL."""
    workers.environ["CELERY_BROKER_URL"] = workers.environ["REDIS_URL"]

    finding = about(examine(workers, 0), "environment")

    assert finding["level"] == "warning"
    assert finding["next_step"] == "unset CELERY_BROKER_URL"


def test_a_package_that_hides_ours_is_a_fault(workers: Fleet) -> None:
    """A worker started in that directory would import somebody else's `tasks`."""
    (workers.folder / "tasks.py").write_text("")

    finding = about(examine(workers, 3), "package tasks")

    assert finding["level"] == "fault"
    assert str(workers.folder) in finding["what"]
    assert "send_task" in finding["next_step"]
