"""The `breakwater` command, as an operator types it."""

import json

import pytest
import redis

from simulator.client import Simulator
from tests.support.fleet import Fleet


@pytest.fixture
def opened(workers: Fleet, redis_url: str) -> redis.Redis:
    """A fleet without workers whose breaker `claude` a dead key has opened."""
    shared = redis.Redis.from_url(redis_url, decode_responses=True)
    workers.run("""
import os
from breaker import Breakers
claude = Breakers.from_url(os.environ["REDIS_URL"]).get("claude")
claude.record(claude.admit(), "failure", reason="AuthenticationFailed", trip=True)
""")
    return shared


def test_breakers_shows_each_state(workers: Fleet, opened: redis.Redis) -> None:
    """A table for people, JSON for programs."""
    table = workers.command("breakwater", "breakers")
    shown = json.loads(workers.command("breakwater", "breakers", "--json").stdout)

    assert "claude" in table.stdout
    assert "AuthenticationFailed" in table.stdout
    assert [(s["name"], s["state"], s["failures"]) for s in shown] == [("claude", "open", 1)]


def test_an_operator_moves_a_breaker(workers: Fleet, opened: redis.Redis) -> None:
    """`close`, `open` and `auto` set and remove `forced`, and nothing else."""
    before = opened.hgetall("breaker:{claude}")
    forced = []

    for word in ("close", "open", "auto"):
        assert workers.command("breakwater", "breakers", word, "claude").returncode == 0
        forced.append(opened.hget("breaker:{claude}", "forced"))

    after = opened.hgetall("breaker:{claude}")
    assert forced == ["closed", "open", None]
    assert {k: v for k, v in after.items() if k != "seq"} == {
        k: v for k, v in before.items() if k != "seq"
    }


def test_events_tells_the_transitions(workers: Fleet, opened: redis.Redis) -> None:
    """Newest first, with the reason."""
    events = json.loads(
        workers.command("breakwater", "breakers", "events", "claude", "--json").stdout
    )

    assert [(e["from"], e["to"], e["reason"]) for e in events] == [
        ("closed", "open", "AuthenticationFailed")
    ]


def test_a_breaker_that_does_not_exist_is_an_error(workers: Fleet, opened: redis.Redis) -> None:
    """The nearest known one is named; nothing is made."""
    done = workers.command("breakwater", "breakers", "open", "claud")

    assert done.returncode == 1
    assert "did you mean 'claude'?" in done.stderr
    assert opened.smembers("breakers") == {"claude"}


def test_ask_shows_the_answer_and_the_way(workers: Fleet, simulator: Simulator) -> None:
    """The text on standard output, the attempts beside it; typed errors as one line."""
    workers.start()
    simulator.fault("local", "overloaded")

    good = workers.command("breakwater", "ask", "coder", "hi")
    bad = workers.command("breakwater", "ask", "codr", "hi")

    assert good.stdout.startswith("[claude] answer to")
    assert "local: failed, Overloaded" in good.stderr
    assert "claude: succeeded" in good.stderr
    assert bad.returncode == 1
    assert "did you mean 'coder'?" in bad.stderr
    assert "Traceback" not in bad.stderr


def test_ask_says_when_nobody_answers(workers: Fleet) -> None:
    """Without a worker the prompt waits in Redis, and the command says so."""
    done = workers.command("breakwater", "ask", "coder", "hi", "--timeout", "0.5")

    assert done.returncode == 1
    assert "does a worker run" in done.stderr


def test_doctor_finds_what_is_wrong(workers: Fleet, simulator: Simulator) -> None:
    """Every key is tried at its provider; one that is refused is a fault and exit code 1."""
    well = workers.command("breakwater", "doctor", "--json")
    simulator.fault("gpt", "unauthenticated")
    ill = workers.command("breakwater", "doctor")

    levels = {finding["level"] for finding in json.loads(well.stdout)}
    assert levels == {"ok", "warning"}  # the tests' server keeps no append-only file
    assert well.returncode == 0
    assert ill.returncode == 1
    assert "provider gpt: AuthenticationFailed" in ill.stdout
    assert "CANARYKEY" not in ill.stdout + ill.stderr


def test_doctor_tells_all_faults_of_the_file_and_goes_on(workers: Fleet) -> None:
    """A bad roles file does not keep Redis from being looked at."""
    workers.roles_file.write_text("providers: {a: {adapter: anthropi}}\nroles: {r: {chain: [b]}}\n")

    done = workers.command("breakwater", "doctor", "--json")

    found = [finding["what"] for finding in json.loads(done.stdout)]
    assert done.returncode == 1
    assert any("did you mean 'anthropic'?" in what for what in found)
    assert any(what.startswith("Redis ") for what in found)


def test_a_redis_that_is_away_is_one_clear_line(workers: Fleet) -> None:
    """No traceback, exit code 1."""
    workers.environ["REDIS_URL"] = "redis://127.0.0.1:1/0"

    done = workers.command("breakwater", "breakers")

    assert done.returncode == 1
    assert "ConnectionError" in done.stderr
    assert "Traceback" not in done.stderr
