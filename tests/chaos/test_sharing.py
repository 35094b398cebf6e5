"""Equal prompts at once, with real workers: one call, and everybody has the answer."""

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from cryptography.fernet import Fernet

from simulator.client import Simulator
from tasks.ledger.attempt_filter import AttemptFilter
from tasks.ledger.database import Database
from tasks.ledger.export import export
from tasks.ledger.summary import summarise
from tests.support.chaos import Killer, kill, roles_over
from tests.support.fleet import Fleet, fleet, wait_for
from tests.support.ports import free_port
from tests.support.scrape import scrape

LONG = (pytest.mark.long, pytest.mark.timeout(300))
CACHED = "{chain: [claude], cache: {ttl_s: 600}}"
NOTHING = dict.fromkeys(
    (
        "input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens",
        "reasoning_tokens",
    ),
    0,
)  # fmt: skip
ENQUEUE = """
from tasks import complete
for number in range({number}):
    print(complete.delay({role!r}, {prompt!r}, metadata={{"number": number}}, **{options!r}).id)
"""


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    """The URL of an empty one."""
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture
def workers(redis_url: str, simulator: Simulator, ledger: str) -> Iterator[Fleet]:
    """Roles with a cache, `twin` equal to `shared`, and `coder` without."""
    more = {"shared": CACHED, "twin": CACHED, "brief": CACHED.replace("600", "2")}
    with fleet(redis_url, roles_over(simulator, **more), {"LEDGER_URL": ledger}) as those:
        yield those


def enqueue(
    workers: Fleet, number: int, role: str = "shared", prompt: str = "hi", **options: Any
) -> list[str]:
    """Enqueue a prompt so often; return the ids."""
    code = ENQUEUE.format(number=number, role=role, prompt=prompt, options=options)
    return workers.run(code, timeout_s=120).split()


def results(client: Any, workers: Fleet, ids: list[str], within_s: float = 60) -> list[Any]:
    """Wait until all are settled; return what they came to."""
    keys = [f"celery-task-meta-{each}" for each in ids]
    wait_for(lambda: client.exists(*keys) == len(keys), within_s, lambda: workers.logs()[-5000:])
    return [json.loads(meta) for meta in client.mget(keys)]


def rows_of(client: Any, workers: Fleet, url: str) -> list[dict[str, Any]]:
    """Return the ledger's rows, when all are there."""
    wait_for(lambda: client.xlen("ledger") == 0, 40, workers.logs)
    with Database(url) as database:
        return list(export(database, AttemptFilter()))


def owner(client: Any) -> str:
    """Wait until one of them makes the call; return its id."""
    return str(wait_for(lambda: next(map(client.get, client.keys("flight:" + "?" * 64)), None)))


def waiting(client: Any) -> int:
    """Count those that wait for the call."""
    return sum(client.zcard(key) for key in client.keys("flight:*:waiting"))


@pytest.mark.promise
@pytest.mark.parametrize(
    "pool", ["threads", *(pytest.param(pool, marks=LONG) for pool in ("prefork", "gevent"))]
)
def test_fifty_equal_prompts_are_one_call(
    workers: Fleet, simulator: Simulator, client: Any, ledger: str, pool: str
) -> None:
    """One hit, fifty results, fifty rows; one is paid for, and no figure is bent by the others."""
    simulator.settings("claude", latency=2)
    port = free_port()
    workers.environ["METRICS_PORT"] = str(port)
    workers.start(2, pool, 4)
    ids = enqueue(workers, 50)

    metas = results(client, workers, ids)

    (hit,) = simulator.hits("claude")
    assert Counter(meta["status"] for meta in metas) == {"SUCCESS": 50}
    told = [meta["result"] for meta in metas]
    paid, free = [r for r in told if r["request_id"]], [r for r in told if not r["request_id"]]
    assert (len(paid), len(free)) == (1, 49)
    same = ("text", "data", "tool_calls", "provider", "model", "finish_reason")
    assert all(r[name] == paid[0][name] for r in free for name in same)
    assert paid[0]["usage"]["output_tokens"] == hit["output_tokens"]
    assert all((r["usage"], r["cost_usd"], r["latency_ms"]) == (NOTHING, "0", 0) for r in free)
    assert {r["attempts"][0]["why"] for r in free} <= {
        f"shared the call of task {paid[0]['task_id']}", "answered by the response cache",
    }  # fmt: skip
    assert all([a["outcome"] for a in r["attempts"]] == ["cached"] for r in free)

    rows = rows_of(client, workers, ledger)
    assert sorted(row["task_id"] for row in rows) == sorted(ids)
    assert Counter(row["outcome"] for row in rows) == {"succeeded": 1, "cached": 49}
    assert {row["cost_usd"] for row in rows if row["outcome"] == "cached"} == {"0"}
    with Database(ledger) as database:
        (line,) = summarise(database, ["provider"], AttemptFilter())
    assert (line.calls, line.success_rate, line.outcomes["cached"]) == (1, 1.0, 49)
    assert line.percentile("latency_ms", 50) == line.percentile("latency_ms", 99) > 1900
    shown = workers.command("breakwater", "why", free[0]["task_id"]).stdout
    assert "cached" in shown
    seen = wait_for(
        lambda: (now := scrape(port)).sum("breakwater_tasks_total", role="shared") == 50 and now
    )
    assert seen.sum("breakwater_attempts_total", role="shared", outcome="cached") == 49
    assert seen.sum("breakwater_attempt_duration_seconds_count", role="shared") == 1
    wait_for(lambda: not client.keys("flight*"))  # one that rose by itself is swept by a keeper


def test_nobody_waits_with_a_slot_in_its_hands(
    workers: Fleet, simulator: Simulator, client: Any
) -> None:
    """Twenty wait for one answer, and another role has all the slots but one."""
    simulator.settings("claude", latency="held")
    workers.start(1, "threads", 2)
    enqueue(workers, 20)
    wait_for(lambda: waiting(client) == 19, explain=workers.logs)

    (meta,) = results(client, workers, enqueue(workers, 1, "other"))

    assert meta["status"] == "SUCCESS"
    assert simulator.in_flight("claude") == 1
    kill(workers, 0)  # or the end of the test would wait for the call


@pytest.mark.parametrize("pool", ["threads", pytest.param("prefork", marks=LONG)])
def test_a_killed_owner_loses_nobody_the_answer(
    workers: Fleet, simulator: Simulator, client: Any, ledger: str, pool: str
) -> None:
    """Killed -9 in the middle of its call: fifty results all the same, and two calls at most."""
    simulator.settings("claude", latency="held")
    workers.start(1, pool, 2)
    ids = enqueue(workers, 50)
    first = owner(client)
    wait_for(lambda: simulator.in_flight("claude") == 1 and waiting(client) == 49)

    kill(workers, 0)
    simulator.release("claude")
    workers.start(1, pool, 4)

    metas = results(client, workers, ids, 90)
    assert Counter(meta["status"] for meta in metas) == {"SUCCESS": 50}
    assert len(simulator.hits("claude")) == 2
    assert len({meta["result"]["text"] for meta in metas}) == 1
    rows = rows_of(client, workers, ledger)
    assert {row["task_id"] for row in rows} == set(ids)
    assert Counter(row["outcome"] for row in rows) == {
        "abandoned": 1, "succeeded": 1, "cached": 49,
    }  # fmt: skip
    assert [row["task_id"] for row in rows if row["outcome"] == "abandoned"] == [first]
    wait_for(lambda: not client.keys("flight*"))  # one that rose by itself is swept by a keeper


def test_an_owner_whose_worker_stops_hands_its_call_on(
    workers: Fleet, simulator: Simulator, client: Any
) -> None:
    """A second SIGTERM cuts the call off; another worker makes it, and nobody is lost."""
    simulator.settings("claude", latency="held")
    workers.start(1, "threads", 2)
    ids = enqueue(workers, 10)
    owner(client)
    wait_for(lambda: simulator.in_flight("claude") == 1 and waiting(client) == 9)
    workers.start(1, "threads", 2)

    for _ in range(2):
        os.kill(workers.workers[0].pid, signal.SIGTERM)
        wait_for(lambda: "Warm shutdown" in workers.log(0) or workers.workers[0].poll() is not None)
    wait_for(lambda: workers.workers[0].poll() is not None, explain=workers.logs)
    simulator.release("claude")

    metas = results(client, workers, ids, 60)
    assert Counter(meta["status"] for meta in metas) == {"SUCCESS": 10}
    assert len(simulator.hits("claude")) == 2


def test_a_cancelled_owner_leaves_its_call_to_another(
    workers: Fleet, simulator: Simulator, client: Any
) -> None:
    """Those that wait are not cancelled with it; one of them, cancelled alone, is."""
    simulator.settings("claude", latency="held")
    workers.start(1, "threads", 4)
    ids = enqueue(workers, 10)
    first = owner(client)
    wait_for(lambda: waiting(client) == 9)
    third = next(each for each in ids if each != first)
    cancel = "from tasks import app\nfor each in {}: app.AsyncResult(each).cancel()"

    workers.run(cancel.format([third]))
    wait_for(lambda: waiting(client) == 8)
    assert simulator.in_flight("claude") == 1
    workers.run(cancel.format([first]))
    wait_for(lambda: len(simulator.hits("claude")) == 2)
    simulator.release("claude")

    metas = dict(zip(ids, results(client, workers, ids), strict=True))
    assert {each for each in ids if metas[each]["status"] == "REVOKED"} == {first, third}
    assert Counter(meta["status"] for meta in metas.values()) == {"REVOKED": 2, "SUCCESS": 8}
    assert len(simulator.hits("claude")) == 2


def test_an_owner_that_fails_for_good_fails_alone(
    workers: Fleet, simulator: Simulator, client: Any
) -> None:
    """Its error is its own: the next makes the call, and the others have its answer."""
    simulator.settings("claude", latency=2)
    simulator.fault("claude", status=400, latency=2, first=1)
    workers.start(1, "threads", 4)
    ids = enqueue(workers, 20)

    metas = results(client, workers, ids)

    assert Counter(meta["status"] for meta in metas) == {"FAILURE": 1, "SUCCESS": 19}
    assert len(simulator.hits("claude")) == 2
    assert client.xlen("dead") == 1


def test_while_the_provider_is_down_nobody_hangs(
    workers: Fleet, simulator: Simulator, client: Any
) -> None:
    """The queue is parked with the owner and those that wait; then all are answered by one call."""
    text = workers.roles_file.read_text()
    breaker = "api_key: k, breaker: {fail_max: 1, reset_timeout_s: 3, success_threshold: 1},"
    workers.roles_file.write_text(text.replace("api_key: k,", breaker))
    simulator.fault("claude", status=503, latency=1, first=2)
    simulator.settings("claude", latency=1)
    workers.start(1, "threads", 4)
    ids = enqueue(workers, 20)

    metas = results(client, workers, ids, 90)

    assert Counter(meta["status"] for meta in metas) == {"SUCCESS": 20}
    assert Counter(hit["status"] for hit in simulator.hits("claude")) == {503: 2, 200: 1}


def test_a_deadline_ends_the_wait(workers: Fleet, simulator: Simulator, client: Any) -> None:
    """Another's call takes longer than this task has time; it says so, and was never tried."""
    simulator.settings("claude", latency="held")
    workers.start(1, "threads", 4)
    enqueue(workers, 1)
    owner(client)

    (meta,) = results(client, workers, enqueue(workers, 1, deadline_s=3))

    assert meta["result"]["exc_type"] == "DeadlineExceeded"
    assert len(simulator.hits("claude")) == 1
    kill(workers, 0)  # or the end of the test would wait for the call


def test_a_kept_answer_is_given_until_its_time_is_over(
    workers: Fleet, simulator: Simulator, client: Any
) -> None:
    """The role's `ttl_s`; then there is a new call."""
    workers.start(1, "threads", 4)
    first, second = (results(client, workers, enqueue(workers, 1, "shared"))[0] for _ in range(2))
    kept = len(simulator.hits("claude"))
    (key,) = client.keys("cache:*")
    lives_s = client.ttl(key)

    client.pexpire(key, 1)
    wait_for(lambda: not client.keys("cache:*"))
    third = results(client, workers, enqueue(workers, 1, "shared"))[0]

    assert 0 < lives_s <= 600
    assert (kept, len(simulator.hits("claude"))) == (1, 2)
    assert second["result"]["text"] == first["result"]["text"]
    assert second["result"]["attempts"][0]["why"] == "answered by the response cache"
    assert [a["outcome"] for a in third["result"]["attempts"]] == ["succeeded"]


def test_what_differs_is_not_shared(workers: Fleet, simulator: Simulator, client: Any) -> None:
    """Another prompt, parameter, system prompt or role is a call of its own; whose task it is, not."""
    simulator.settings("claude", latency="held")
    workers.start(1, "threads", 8)

    ids = workers.run("""
from tasks import complete
for number in range(3):
    metadata = {"number": number}
    print(complete.delay("shared", "hi", metadata=metadata).id)
    print(complete.delay("shared", "ho", metadata=metadata).id)
    print(complete.delay("shared", "hi", metadata=metadata, params={"max_output_tokens": 7}).id)
    print(complete.delay("shared", "hi", metadata=metadata, system="be brief").id)
    print(complete.delay("twin", "hi", metadata=metadata).id)
""").split()
    wait_for(lambda: simulator.in_flight("claude") == 5, explain=workers.logs)
    simulator.release("claude")

    metas = results(client, workers, ids)
    assert Counter(meta["status"] for meta in metas) == {"SUCCESS": 15}
    assert len(simulator.hits("claude")) == 5


def test_no_kill_loses_a_task_that_shares(
    workers: Fleet, simulator: Simulator, client: Any
) -> None:
    """A worker is killed every 2 s, owner or not, while answers expire: all are answered."""
    simulator.settings("claude", latency="uniform:2.0:5.0")
    ids = workers.run("""
from tasks import complete
for number in range(120):
    print(complete.delay("brief", f"prompt {number % 6}").id)
""").split()
    workers.start(3, "threads", 4)
    wait_for(lambda: simulator.hits("claude"))

    killer = Killer(workers, simulator, "threads", seed=len(ids))
    killer.run(6, concurrency=4)

    metas = results(client, workers, ids, 120)
    hits = len(simulator.hits("claude"))
    print(f"{killer.kills} kills, {killer.in_flight} calls out at them, {hits} hits")
    assert Counter(meta["status"] for meta in metas) == {"SUCCESS": 120}
    assert killer.in_flight > 0
    assert 6 <= hits < 60
    wait_for(lambda: not client.keys("flight*"), 30, lambda: str(client.keys("flight*")))


def test_a_role_without_a_cache_shares_nothing(
    workers: Fleet, simulator: Simulator, client: Any
) -> None:
    """Every call is made, and nothing about it is in Redis."""
    workers.start(1, "threads", 8)

    results(client, workers, enqueue(workers, 10, "coder"))

    assert len(simulator.hits("claude")) == 10
    assert not client.keys("cache:*")
    wait_for(lambda: not client.keys("flight*"))  # one that rose by itself is swept by a keeper


def test_answers_that_are_not_whole_are_not_kept(
    workers: Fleet, simulator: Simulator, client: Any
) -> None:
    """Nor waited for: each makes a call, side by side once the first has shown it."""
    simulator.settings("claude", latency="held", finish="length")
    workers.start(1, "threads", 10)
    ids = enqueue(workers, 10)
    wait_for(lambda: waiting(client) == 9, explain=workers.logs)
    assert simulator.in_flight("claude") == 1

    simulator.release("claude", 1)
    wait_for(lambda: simulator.in_flight("claude") == 9, explain=workers.logs)
    simulator.release("claude")

    metas = results(client, workers, ids)
    assert {meta["result"]["finish_reason"] for meta in metas} == {"length"}
    assert len(simulator.hits("claude")) == 10


def test_with_keys_nothing_that_is_kept_can_be_read(
    workers: Fleet, simulator: Simulator, redis_url: str
) -> None:
    """Neither the prompt nor the answer, while they wait and afterwards; a hit reads it."""
    workers.environ["BREAKWATER_ENCRYPTION_KEYS"] = Fernet.generate_key().decode()
    simulator.settings("claude", latency="held", answer="CANARY-ANSWER")
    shared = redis.Redis.from_url(redis_url)
    shared.config_set("rdbcompression", "no")
    workers.start(1, "threads", 4)
    ids = enqueue(workers, 10, prompt="CANARY-PROMPT")
    wait_for(lambda: waiting(shared.from_url(redis_url, decode_responses=True)) == 9)

    def everything() -> bytes:
        return b"".join(key + (shared.dump(key) or b"") for key in shared.scan_iter())

    seen = everything()
    simulator.release("claude")
    texts = workers.run(
        f"from tasks import app\nfor each in {ids}: print(app.AsyncResult(each).get(timeout=180)['text'])"
    )
    seen += everything()

    assert texts.split() == ["CANARY-ANSWER"] * 10
    assert len(simulator.hits("claude")) == 1
    assert b"cache:" in seen
    assert b"CANARY" not in seen
    assert b"Q0FOQVJZ" not in seen
