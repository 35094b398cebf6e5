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
    done = workers.command("breakwater", "breakers", "force-open", "claud")

    assert done.returncode == 2
    assert "did you mean 'claude'?" in done.stderr
    assert opened.smembers("breakers") == {"claude"}


def test_ask_shows_the_answer_and_the_way(workers: Fleet, simulator: Simulator) -> None:
    """The text on standard output, the attempts beside it; typed errors as one line."""
    workers.start()
    simulator.fault("local", "overloaded")

    good = workers.command("breakwater", "ask", "coder", "hi")
    bad = workers.command("breakwater", "ask", "codr", "hi")

    assert good.stdout.startswith("[claude] answer to")
    assert "local (qwen3): failed, Overloaded" in good.stderr
    assert "claude (claude-haiku-5-5): succeeded" in good.stderr
    task_id = good.stderr.splitlines()[0].removeprefix("task ")
    assert task_id in workers.command("breakwater", "why", task_id).stdout
    assert bad.returncode == 2
    assert "did you mean 'coder'?" in bad.stderr
    assert "Traceback" not in bad.stderr


def test_ask_reads_a_long_prompt_from_a_pipe(workers: Fleet, simulator: Simulator) -> None:
    """`-` is standard input; `--json` is the whole result."""
    workers.start()
    simulator.settings("claude", answer="echo")

    done = workers.command("breakwater", "ask", "clarifier", "-", "--json", typed="one\ntwo")

    result = json.loads(done.stdout)
    assert (result["text"], result["provider"]) == ("one\ntwo", "claude")


def test_ask_queues_params_with_the_types_they_have(workers: Fleet, redis_url: str) -> None:
    """`--param` is JSON where it can be read as such, and a word otherwise."""
    words = ("--param", "max_output_tokens=7", "--param", "reasoning_effort=low")

    workers.command("breakwater", "ask", "coder", "hi", "--timeout", "0.1", *words)

    queued = json.loads(redis.Redis.from_url(redis_url).lindex("role.coder", 0))
    (role, prompt), options, _ = json.loads(queued["body"])
    assert (role, prompt) == ("coder", "hi")
    assert options["params"] == {"max_output_tokens": 7, "reasoning_effort": "low"}
    assert options["deadline_s"] == 0.1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["ask", "coder", "hi", "--param", "temperature"], "is not KEY=VALUE"),
        (["brakers"], "Did you mean 'breakers'"),
        (["breakers", "--watch"], "needs a terminal"),
    ],
)
def test_wrong_words_are_named(workers: Fleet, words: list[str], told: str) -> None:
    """Exit code 2, and what would be right."""
    done = workers.command("breakwater", *words)

    assert done.returncode == 2
    assert told in " ".join(done.stderr.split())


def test_ask_refuses_a_param_that_does_not_fit(workers: Fleet) -> None:
    """Nothing is queued, and the range is told."""
    done = workers.command("breakwater", "ask", "coder", "hi", "--param", "temperature=9")

    assert done.returncode == 1
    assert "params.temperature: 9 is not a number from 0 to 2" in done.stderr


def test_ask_says_when_nobody_answers(workers: Fleet) -> None:
    """Without a worker the prompt waits in Redis, and the command says so."""
    done = workers.command("breakwater", "ask", "coder", "hi", "--timeout", "0.5")

    assert done.returncode == 1
    assert "no worker consumes the queue role.coder" in done.stderr
    assert "no answer within 0.5 s: no worker has taken it" in done.stderr


@pytest.mark.parametrize("words", [["breakers"], ["ask", "coder", "hi"]])
@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://127.0.0.1:1/0", "Redis: no connection: Error 111"),
        ("redsi://host", "REDIS_URL cannot be used"),
    ],
)
def test_a_redis_that_is_away_is_one_clear_line(
    workers: Fleet, words: list[str], url: str, told: str
) -> None:
    """No traceback, no log line on standard output, exit code 1, at once."""
    workers.environ["REDIS_URL"] = url

    done = workers.command("breakwater", *words, timeout_s=180)

    assert done.returncode == 1
    assert done.stderr.startswith(told)
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout


def test_the_help_imports_no_sdk(workers: Fleet) -> None:
    """A vendor's SDK costs 0.3 to 0.7 s; a command imports it when it needs it."""
    loaded = workers.run("import sys, workers.cli; print(*sys.modules)", fresh=True).split()

    assert not {"anthropic", "openai", "google.genai"} & set(loaded)
