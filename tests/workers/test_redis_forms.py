"""A worker, a producer and the doctor over every kind of Redis that can be named."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.fleet import Fleet, fleet
from tests.support.servers import Process, Tls, sentinels

ROUND = """
import asyncio
from celery import chord
from tasks import app, complete, stream, workflow
from tasks.workflows import Stage
result = complete.delay("planner", "hi")
assert result.get(timeout=180)["text"]
body = chord([complete.s("planner", "a"), complete.s("coder", "b")])(complete.s("reviewer"))
assert body.get(timeout=180)["provider"] == "gemini"
assert workflow([Stage("only", "coder", "{input}")]).delay("hi").get(timeout=180)["text"]
equal = [complete.delay("shared", "hi").get(timeout=180) for _ in range(2)]
assert [each["attempts"][0]["outcome"] for each in equal] == ["succeeded", "cached"]
streamed = complete.apply_async(("planner", "hi"), {"stream": True})
async def read():
    return [event.type async for event in stream(streamed, timeout=180)]
assert asyncio.run(read())[-1] == [event.type for event in stream(streamed)][-1] == "end"
waiting = complete.apply_async(("planner", "later"), countdown=300)
waiting.cancel()
assert app.control.inspect(timeout=2).active_queues()
print("served")
"""
RULES = Path(__file__).parents[2] / "docs" / "redis.md"


def with_a_user(stack: ExitStack) -> str:
    server = stack.enter_context(Process("--save", ""))
    rules = RULES.read_text().split("```text\n")[1].partition("```")[0].split()[3:]
    words = [word.replace(">PASSWORD", ">p@ss/w%rd") for word in rules]
    server.client.execute_command("ACL", "SETUSER", "app", *words)
    server.client.execute_command("ACL", "SETUSER", "default", "off")
    return f"redis://app:p%40ss%2Fw%25rd@127.0.0.1:{server.port}/0"


def through_tls(stack: ExitStack) -> str:
    server = stack.enter_context(Process("--save", ""))
    tls = Tls(server.port)
    stack.callback(tls.close)
    return f"rediss://localhost:{tls.port}/2?ssl_ca_certs={tls.ca}"


def on_a_socket(stack: ExitStack) -> str:
    server = stack.enter_context(Process("--save", "", "--unixsocket", "redis.sock"))
    return f"unix://{server.folder}/redis.sock?db=3"


def by_sentinels(stack: ExitStack) -> str:
    return stack.enter_context(sentinels()).url


@pytest.fixture(params=[with_a_user, through_tls, on_a_socket, by_sentinels])
def exposed(request: pytest.FixtureRequest, roles: str) -> Iterator[Fleet]:
    """A fleet over such a Redis."""
    with ExitStack() as stack:
        cached = "  shared: {chain: [gpt], cache: {ttl_s: 60}}\n"
        yield stack.enter_context(fleet(request.param(stack), roles + cached))


def test_everything_works_over_it(exposed: Fleet) -> None:
    """Queue, result, chord, cancellation, remote control, breakers, commands; no password in any output."""
    exposed.start(1, "threads", 2, "--task-events")

    printed = exposed.run(ROUND)
    shown = [exposed.command("breakwater", *words) for words in (["breakers"], ["dead"])]
    doctor = exposed.command("breakwater", "doctor", "--json")

    assert printed.strip() == "served"
    assert [done.returncode for done in shown] == [0, 0], shown
    assert "gpt" in shown[0].stdout
    assert not [each for each in json.loads(doctor.stdout) if each["level"] == "fault"]
    everything = (
        exposed.logs() + doctor.stdout + "".join(done.stdout + done.stderr for done in shown)
    )
    assert "p@ss" not in everything
    assert "p%40ss" not in everything
    assert "NoPermissionError" not in everything
    assert "data%" not in everything


def test_a_certificate_of_an_unknown_ca_is_refused(workers: Fleet) -> None:
    """Without a word about certificates they are checked; the doctor says what to do."""
    with ExitStack() as stack:
        workers.environ["REDIS_URL"] = through_tls(stack).partition("?")[0]

        done = workers.command("breakwater", "doctor")

    assert done.returncode == 3
    assert "redis: TLS fails" in done.stdout
    assert "→ does it speak TLS, and does ssl_ca_certs name the CA" in done.stdout


def test_a_user_with_too_few_rights_is_a_fault(workers: Fleet) -> None:
    """The doctor names each command that the ACL does not let through."""
    with ExitStack() as stack:
        server = stack.enter_context(Process("--save", ""))
        words = "on >pw ~celery* &* +@all -brpop"
        server.client.execute_command("ACL", "SETUSER", "app", *words.split())
        workers.environ["REDIS_URL"] = f"redis://app:pw@127.0.0.1:{server.port}/0"

        found = json.loads(workers.command("breakwater", "doctor", "--json").stdout)

    (acl,) = [each for each in found if each["about"] == "acl"]
    assert acl["level"] == "fault"
    assert "brpop bell:x" in acl["what"]
    assert "hset task:x" in acl["what"]
    assert "lpush celery" not in acl["what"]


def test_a_replica_is_a_fault(workers: Fleet) -> None:
    """It answers like a master until something is written."""
    with ExitStack() as stack:
        server = stack.enter_context(Process("--save", ""))
        server.client.replicaof("127.0.0.1", "1")
        workers.environ["REDIS_URL"] = f"redis://127.0.0.1:{server.port}/0"

        done = workers.command("breakwater", "doctor")

    assert done.returncode == 3
    assert "this is a replica" in done.stdout
    assert "sentinel://HOST;HOST/0?master=NAME" in done.stdout


def test_a_worker_does_not_start_on_a_bad_address(workers: Fleet) -> None:
    """One line that says what may be, and nothing of a password that has got into the wrong place."""
    workers.environ["REDIS_URL"] = "redis://:hunter2/x@127.0.0.1/0"

    done = workers.command("celery", "-A", "workers", "worker", "--pool", "solo")

    assert done.returncode == 78
    assert done.stderr.startswith("REDIS_URL cannot be used: its database must be a number")
    assert "hunter2" not in done.stderr + done.stdout
