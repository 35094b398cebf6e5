"""Fleets with a prefix: whole lives of prompts on a database that others use too."""

import json
from collections.abc import Iterator

import pytest
import redis

from tests.support.fleet import Fleet, fleet, wait_for
from tests.workers.test_redis_forms import ROUND, RULES

pytestmark = pytest.mark.slow

LEFTOVERS = """
from celery.exceptions import TimeoutError
from tasks import app, complete
try:
    app.send_task("complete", ("plannner", "hi")).get(timeout=180)
except Exception as error:
    print(type(error).__name__)
complete.apply_async(("planner", "later"), countdown=3600)
"""
COMMANDS = (
    "queues", "pause planner", "resume planner", "workers", "operations", "breakers", "dead",
    "doctor", "metrics", "ledger drain", "workflow list", "breakers --close gpt", "why t-1",
)  # fmt: skip


@pytest.fixture
def apart(redis_url: str, roles: str) -> Iterator[Fleet]:
    """A fleet with a prefix, whose user may touch nothing outside of it."""
    admin = redis.Redis.from_url(redis_url)
    words = RULES.read_text().split("```text\n")[1].partition("```")[0].split()[3:]
    kinds = [word for word in words if not word.startswith(("~", "&", ">"))]
    admin.execute_command("ACL", "SETUSER", "app", *kinds, ">pw", "~team-a:*", "&team-a:*")
    environ = {"BREAKWATER_PREFIX": "team-a:"}
    cached = "  shared: {chain: [gpt], cache: {ttl_s: 60}}\n"
    url = redis_url.replace("redis://", "redis://app:pw@")
    with fleet(url, roles + cached, environ) as those:
        yield those
    admin.execute_command("ACL", "DELUSER", "app")


def test_a_whole_life_stays_within_the_prefix(apart: Fleet, redis_url: str) -> None:
    """Queues, results, chords, workflows, streams, cache, levers, commands: no key outside."""
    apart.start(1, "threads", 2)

    printed = apart.run(ROUND)
    left = apart.run(LEFTOVERS, roles_known=False)
    done = {words: apart.command("breakwater", *words.split()) for words in COMMANDS}
    doctor = apart.command("breakwater", "doctor", "--json")

    assert printed.strip() == "served"
    assert left.strip() == "UnknownRole"
    everything = apart.logs() + doctor.stdout + "".join(d.stdout + d.stderr for d in done.values())
    assert "NOPERM" not in everything
    assert "NoPermission" not in everything
    assert "Traceback" not in everything
    assert not [each for each in json.loads(doctor.stdout) if each["level"] == "fault"]
    keys = redis.Redis.from_url(redis_url).keys("*")
    assert not [key for key in keys if not key.startswith(b"team-a:")]
    for key in (
        b"celery-task-meta-",
        b"breaker:{gpt}",
        b"cache:",
        b"stream:",
        b"workflow:",
        b"dead",
    ):
        assert any(each.startswith(b"team-a:" + key) for each in keys), key


def test_fleets_with_other_prefixes_never_meet(redis_url: str, roles: str) -> None:
    """Each has its own queues and workers, also where their roles have the same names."""
    client = redis.Redis.from_url(redis_url)
    ask = 'from tasks import complete; print(complete.delay("planner", "hi").get(timeout=180)["text"])'
    with fleet(redis_url, roles, {"BREAKWATER_PREFIX": "b:"}) as second:
        second.start(1)
        plain = {**second.environ}
        del plain["BREAKWATER_PREFIX"]
        with fleet(redis_url, roles, plain) as first:
            first.run('from tasks import complete; complete.delay("planner", "hi")')
            second.run(ask)
            wait_for(lambda: b"b:workers" in client.keys("*"))

            assert client.llen("role.planner") == 1
            assert "no worker" in first.command("breakwater", "workers").stdout.lower()
            first.start(1)
            wait_for(lambda: client.llen("role.planner") == 0)
            wait_for(lambda: client.exists("workers"))
            assert client.hlen("workers") == client.hlen("b:workers") == 1


def test_a_worker_with_a_bad_prefix_does_not_start(workers: Fleet) -> None:
    """It says what is allowed."""
    workers.environ["BREAKWATER_PREFIX"] = "{x}"

    done = workers.command("celery", "-A", "workers", "worker", "--pool", "threads")
    doctor = workers.command("breakwater", "doctor")

    assert done.returncode != 0
    assert "BREAKWATER_PREFIX must be 1 to 64 letters" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert doctor.returncode == 3
    assert "BREAKWATER_PREFIX must be 1 to 64 letters" in doctor.stdout
