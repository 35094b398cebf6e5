"""A producer that ends without waiting for its results says nothing, whatever it holds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.valkey import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROLES = """
providers: {a: {adapter: openai-chat, model: m, base_url: "http://127.0.0.1:1/v1", api_key: none}}
roles: {coder: {chain: [a]}}
workflows: {feature: [{name: one, role: coder, prompt: "{input}"}]}
"""
ENQUEUE = """
import os, signal, sys, threading
from celery import chain, chord, group
from celery.result import AsyncResult, GroupResult, ResultSet
from tasks import app, complete, stream, workflow

one = lambda n=0: complete.s("coder", f"prompt {n}")
three = lambda: [one(n) for n in range(3)]


def impatient(get):
    try:
        get(timeout=0.1)
    except Exception as error:
        assert "Timeout" in type(error).__name__, error
    else:
        raise AssertionError("it was answered")


KINDS = {
    "delay": lambda: complete.delay("coder", "hi"),
    "signature": lambda: one().delay(),
    "send_task": lambda: app.send_task("complete", ("coder", "hi")),
    "many": lambda: complete.delay_many([("coder", f"{n}") for n in range(300)]),
    "set of many": lambda: ResultSet(complete.delay_many([("coder", "a")] * 50), app=app),
    "group": lambda: group(three()).delay(),
    "starmap": lambda: complete.starmap([("coder", "a"), ("coder", "b")]).delay(),
    "chain": lambda: chain(one(), one(), one()).delay(),
    "chord": lambda: chord(three(), one())(),
    "chord, told its body": lambda: chord(three())(one()),
    "chord in a chain": lambda: chain(one(), group(three()), one()).delay(),
    "chord of chords": lambda: chord([chord(three(), one()) for _ in range(2)], one())(),
    "group of chains": lambda: group(chain(one(), one()) for _ in range(3)).delay(),
    "saved group": lambda: (lambda made: (made.save(), GroupResult.restore(made.id, app=app)))(
        group(three()).delay()
    ),
    "workflow": lambda: workflow("feature").delay("x"),
    "cancelled": lambda: complete.delay("coder", "hi").cancel(),
    "cancelled chord": lambda: chord(three(), one())().cancel(),
    "forgotten": lambda: complete.delay("coder", "hi").forget(),
    "looked at": lambda: (lambda made: (made, made.state, made.ready()))(one().delay()),
    "waited for": lambda: (lambda made: (made, impatient(made.get)))(one().delay()),
    "group, waited for": lambda: (lambda made: (made, impatient(made.get)))(group(three()).delay()),
    "with a callback": lambda: one().delay().then(lambda _: None),
    "by another thread": lambda: (lambda kept: [
        thread.start() or thread.join() or kept
        for thread in [threading.Thread(target=lambda: kept.append(chord(three(), one())()))]
    ])([]),
    "by its id alone": lambda: AsyncResult(one().delay().id, app=app),
    "a circle": lambda: (lambda made: setattr(made, "own", made))(chord(three(), one())()),
    "stream": lambda: iter(stream(complete.apply_async(("coder", "x"), {"stream": True}))),
}
kept = {kind: made() for kind, made in KINDS.items()}
assert len(KINDS) == 26
print("enqueued", flush=True)
"""
ENDINGS = {
    "at its end": "",
    "by sys.exit": "sys.exit(0)",
    "one by one": "kept.clear(); import gc; gc.collect()",
    "as an argument of exit": "import builtins; builtins.kept = kept",
    "when Redis is gone": "sys.stdin.readline(); kept.clear(); import gc; gc.collect()",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_producer_that_does_not_wait_ends_silently(ending: str, tmp_path: Path) -> None:
    """Nothing on either stream, and the exit code is 0."""
    roles = tmp_path / "roles.yaml"
    roles.write_text(ROLES)
    with Server() as server:
        environ = {
            "PATH": os.environ["PATH"], "REDIS_URL": server.url, "ROLES_FILE": str(roles),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }  # fmt: skip
        producer = subprocess.Popen(
            [sys.executable, "-c", ENQUEUE + ENDINGS[ending]],
            cwd=tmp_path, env=environ, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert producer.stdout
        assert producer.stdin
        said = producer.stdout.readline()
        if "Redis is gone" in ending:
            server.kill()
        rest, errors = producer.communicate("\n", timeout=240)

    assert (said + rest, errors, producer.returncode) == ("enqueued\n", "", 0)
