"""`breakwater dead`, as an operator types it, over letters that real workers wrote."""

import json
import re

import pytest
import redis

from simulator.client import Simulator
from tests.support.fleet import Fleet, wait_for

FAIL = """
from tasks import complete
for role in %r:
    result = complete.apply_async((role, "CANARY-PROMPT"), {"params": {"temperature": 0}}, task_id="t-" + role)
    try:
        result.get(timeout=180)
    except Exception as error:
        print(type(error).__name__)
"""


@pytest.fixture
def failed(workers: Fleet, simulator: Simulator) -> Fleet:
    """Two tasks whose prompts were refused by every target there is."""
    text = workers.roles_file.read_text()
    workers.roles_file.write_text(text.replace("chain: [local, claude]", "chain: [local]"))
    workers.start()
    for label in ("gpt", "local"):
        simulator.fault(label, status=400)
    assert workers.run(FAIL % (["planner", "coder"],)).split() == ["InvalidRequest"] * 2
    return workers


@pytest.mark.slow
def test_letters_are_listed_and_shown(failed: Fleet) -> None:
    """Newest first; the prompt only on request."""
    table = failed.command("breakwater", "dead")
    told = json.loads(failed.command("breakwater", "dead", "--json").stdout)
    shown = failed.command("breakwater", "dead", "show", "t-coder")
    whole = json.loads(
        failed.command("breakwater", "dead", "show", "t-coder", "--prompt", "--json").stdout
    )

    assert [(letter["task_id"], letter["role"], letter["error"]) for letter in told] == [
        ("t-coder", "coder", "InvalidRequest"), ("t-planner", "planner", "InvalidRequest"),
    ]  # fmt: skip
    assert told[0]["queue"] == "role.coder"
    assert told[0]["options"] == {"params": {"temperature": 0}}
    assert "t-planner" in table.stdout
    assert "first of the chain" in shown.stdout
    assert whole["prompt"] == "CANARY-PROMPT"
    assert "CANARY" not in table.stdout + json.dumps(told) + shown.stdout


def test_a_page_follows_another(failed: Fleet) -> None:
    """The command says how to go on."""
    first = failed.command("breakwater", "dead", "--count", "1", "--json")
    (letter,) = json.loads(first.stdout)

    second = failed.command("breakwater", "dead", "--before", letter["id"])

    assert letter["task_id"] == "t-coder"
    assert f"--before {letter['id']}" in first.stderr
    assert "t-planner" in second.stdout
    assert "t-coder" not in second.stdout


@pytest.mark.slow
def test_a_retried_task_is_asked_again_and_answered(failed: Fleet, simulator: Simulator) -> None:
    """Its provider was mended; the answer shows both lives."""
    simulator.heal("local")

    done = failed.command("breakwater", "dead", "retry", "t-coder")

    assert (done.stdout, done.returncode) == ("retried 1\n", 0)
    result = json.loads(
        failed.run(
            "import json; from tasks import app; "
            "print(json.dumps(app.AsyncResult('t-coder').get(timeout=180)))"
        )
    )
    assert [(a["provider"], a["error"]) for a in result["attempts"]] == [
        ("local", "InvalidRequest"), ("", "Retried"), ("local", None),
    ]  # fmt: skip
    again = failed.command("breakwater", "dead", "retry", "t-coder")
    assert again.returncode == 1
    assert "no dead letter of 't-coder'; nothing was changed" in again.stderr


@pytest.mark.slow
def test_a_task_that_dies_again_shows_both_lives(failed: Fleet) -> None:
    """Retried by filter; the other role's letter stays as it is."""
    failed.command("breakwater", "dead", "retry", "--role", "coder", "--yes")

    def shown() -> list[str]:
        done = failed.command("breakwater", "dead", "show", "t-coder", "--json")
        return [a["error"] for a in json.loads(done.stdout or "{}").get("attempts", [])]

    wait_for(lambda: shown() == ["InvalidRequest", "Retried", "InvalidRequest"])
    letters = json.loads(failed.command("breakwater", "dead", "--json").stdout)
    assert [letter["task_id"] for letter in letters] == ["t-coder", "t-planner"]
    assert len(letters[1]["attempts"]) == 1


@pytest.mark.slow
def test_letters_are_dropped(failed: Fleet, redis_url: str) -> None:
    """By error, then all; nothing is asked for with --yes, and nothing is left."""
    none = failed.command("breakwater", "dead", "drop", "--error", "WorkerLost", "--yes")
    one = failed.command("breakwater", "dead", "drop", "t-coder", "--yes")
    rest = failed.command("breakwater", "dead", "drop", "--all", "--yes")

    assert (none.stdout, one.stdout, rest.stdout) == ("dropped 0\n", "dropped 1\n", "dropped 1\n")
    assert not redis.Redis.from_url(redis_url).exists("dead:messages")
    assert failed.command("breakwater", "dead").stdout == "no dead letters\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["retry"], "give ids, or filters such as --role, or --all"),
        (["retry", "a", "--all"], "give ids, or filters such as --role, or --all"),
        (["--older-than", "soon"], "'soon' is not a valid age, such as 90s, 30m, 2h or 7d"),
        (["--before", "soon"], "'soon' is not a valid id of a letter"),
    ],
)
def test_words_that_could_mean_too_much_are_refused(
    workers: Fleet, words: list[str], told: str
) -> None:
    """Exit code 2, and what would be right."""
    done = workers.command("breakwater", "dead", *words)

    assert done.returncode == 2
    assert told in " ".join(done.stderr.replace("│", "").split())


def test_what_a_letter_says_cannot_move_the_cursor(workers: Fleet, redis_url: str) -> None:
    """Letters tell of messages that come from anywhere."""
    redis.Redis.from_url(redis_url).xadd(
        "dead", {"task_id": "a\x1b[2J", "at_ms": "1", "error": "[red]x", "message": "\r\nb"}
    )

    table = workers.command("breakwater", "dead").stdout

    assert "\x1b" not in table
    assert "a\\x1b[2J" in table
    assert "[red]x" in table


@pytest.mark.slow
def test_an_answer_that_is_too_large_is_a_named_error(workers: Fleet, simulator: Simulator) -> None:
    """It was paid for, so the letter shows the attempt; what is kept could be asked on."""
    workers.start()
    simulator.settings("local", answer="echo")

    printed = workers.run("""
from tasks import complete
from breakwater.calls.call import MAX_BYTES
from breakwater.errors import ResultTooLarge
try:
    complete.apply_async(("coder", "x" * (MAX_BYTES - 100)), task_id="large").get(timeout=180)
except ResultTooLarge as error:
    print(error)
""")

    assert re.match(r"the result has \d+ bytes as JSON, and the limit is 8388608", printed)
    letter = json.loads(workers.command("breakwater", "dead", "show", "large", "--json").stdout)
    assert letter["error"] == "ResultTooLarge"
    assert [a["outcome"] for a in letter["attempts"]] == ["succeeded"]
