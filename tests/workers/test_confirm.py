"""What is done to many is shown and asked for first; scripts say `--yes`."""

import json
from collections.abc import Iterator

import pytest
import redis
from typer.testing import CliRunner

from workers.cli import cli
from workers.terminal import console


@pytest.fixture
def many(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    """Twelve dead letters of one role, one of another; two workers, one of which runs three tasks."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    server = redis.Redis.from_url(redis_url)
    for n in range(13):
        fields = {
            "task_id": f"t{n}",
            "at_ms": n,
            "role": "coder" if n else "other",
            "error": "E",
            "message": "m",
        }
        server.xadd("dead", fields, id=f"{n + 1}-1")
        server.hset(
            "dead:messages",
            f"{n + 1}-1",
            f"role.coder\n{json.dumps({'body': '', 'headers': {'id': f't{n}'}})}",
        )
    for n in range(2):
        about = {
            "name": f"w{n}@h",
            "pool": "threads",
            "concurrency": 4,
            "version": "v",
            "queues": [],
            "running": {"role.coder": 3 * n},
        }
        server.hset("workers", f"id{n}", json.dumps(about))
        server.zadd("workers:until", {f"id{n}": 9e15})
    yield server
    server.close()


WORDS = {
    "dead retry --all": ("retry 13 dead letters", "and 3 more"),
    "dead retry --role coder": ("retry 12 dead letters", "t12"),
    "dead retry --role other --json": ("retry 1 dead letter", "t0"),
    "dead drop --role coder": ("drop 12 dead letters and their prompts, for good", "and 2 more"),
    "drain --all": ("drain all 2 workers, which run 3 tasks", "w1@h: 3 running"),
}


def left(server: redis.Redis) -> tuple[int, int, int]:
    return server.xlen("dead"), server.llen("role.coder"), server.hlen("draining")  # type: ignore[return-value]


@pytest.mark.parametrize("words", WORDS)
def test_without_a_terminal_it_is_refused_with_the_number(many: redis.Redis, words: str) -> None:
    """Exit code 2, nothing is done, and what would be right."""
    before = left(many)

    done = CliRunner().invoke(cli, words.split())

    assert done.exit_code == 2
    assert f"{WORDS[words][0]}? there is no terminal to ask at; add --yes" in done.stderr
    assert left(many) == before


@pytest.mark.parametrize("answer", ["n\n", ""])
@pytest.mark.parametrize("words", WORDS)
def test_it_is_shown_and_asked_for(
    many: redis.Redis, monkeypatch: pytest.MonkeyPatch, words: str, answer: str
) -> None:
    """No, and the end of the input, change nothing."""
    monkeypatch.setattr(console, "is_terminal", lambda _: True)
    before = left(many)

    done = CliRunner().invoke(cli, words.split(), input=answer)

    assert done.exit_code == 1
    assert WORDS[words][0] in done.stderr
    assert WORDS[words][1] in done.stderr
    assert left(many) == before


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("how", ["--yes", "y"])
def test_a_yes_does_it(
    many: redis.Redis, monkeypatch: pytest.MonkeyPatch, words: str, how: str
) -> None:
    """On the command line, or typed."""
    monkeypatch.setattr(console, "is_terminal", lambda _: how == "y")
    before = left(many)

    done = CliRunner().invoke(
        cli, [*words.split(), *(["--yes"] if how == "--yes" else [])], input="y\n"
    )

    assert done.exit_code == 0, done.stderr
    assert left(many) != before


@pytest.mark.parametrize(
    "words", ["dead retry t1", "drain w0@h", "dead retry --role nobody", "dead drop --role nobody"]
)
def test_nothing_is_asked_of_what_is_named_or_not_there(many: redis.Redis, words: str) -> None:
    """Who names a task means it; of none there is nothing to ask."""
    done = CliRunner().invoke(cli, words.split())

    assert done.exit_code == 0, done.stderr
    assert "?" not in done.stderr
