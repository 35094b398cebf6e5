"""A reply of Redis' is lost, one of each kind in turn: what follows a task runs once all the same."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from celery.backends.redis import (
    CHORD_CLAIM_EXTEND_LUA,
    CHORD_CLEANUP_LUA,
    CHORD_PART_RETURN_LUA,
)

from breakwater.messaging.outbox import put_script
from breakwater.workflows.run_store import RunStore
from simulator.client import Simulator
from tasks.delivery.delivery_store import DeliveryStore
from tests.support.fault_proxy import FaultProxy
from tests.support.fleet import Fleet, fleet, wait_for

CHORD = {
    "count": CHORD_PART_RETURN_LUA,
    "extend": CHORD_CLAIM_EXTEND_LUA,
    "clean up": CHORD_CLEANUP_LUA,
}
OF_DELIVERY = ["begin", "call", "settle", "acknowledge"]
AFTER = {
    "chain": 'chain(complete.s("coder", {first!r}), complete.s("coder").set(task_id={last!r})).delay()',
    "link": 'complete.apply_async(("coder", {first!r}), link=complete.s("coder").set(task_id={last!r}))',
    "link of an error": 'complete.apply_async(("other", {first!r}), '
    'link_error=complete.si("coder", "last").set(task_id={last!r}))',
    "chord": 'chord([complete.s("coder", {first!r} + str(n)) for n in range(3)])'
    '(complete.s("coder").set(task_id={last!r}))',
    "chord in a chain": 'chain(complete.s("coder", {first!r}), group(complete.s("coder"), '
    'complete.s("coder")), complete.s("coder").set(task_id={last!r})).delay()',
}
PARTS = {"chain": 2, "link": 2, "link of an error": 1, "chord": 4, "chord in a chain": 4}


@pytest.fixture
def proxied(redis_url: str, workers: Fleet, client: Any) -> Iterator[tuple[FaultProxy, Fleet]]:
    """A fleet behind a proxy; its producers are not."""
    port = client.connection_pool.connection_kwargs["port"]
    with FaultProxy(port) as proxy, fleet(proxy.url, workers.roles_file.read_text()) as exposed:
        exposed.start(1, "threads", 4)
        yield proxy, exposed


def targets(client: Any, then: str) -> dict[str, dict[str, Any]]:
    """Return which commands to hurt, by a name for each."""
    store = DeliveryStore(client)
    found: dict[str, dict[str, Any]] = {
        name: {"match": store.script(name).sha.encode()} for name in OF_DELIVERY
    }
    found["enqueue"] = {"match": put_script(client).sha.encode()}
    if "chord" in then:
        for name, source in CHORD.items():
            found[name] = {"match": client.register_script(source).sha.encode()}
        found |= {name: {"of": name} for name in ("ZRANGE", "GET")}
    if then == "chord in a chain":
        found |= {"size": {"of": "SET"}, "forget the claim": {"of": "DEL"}}
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("then", AFTER)
def test_what_follows_a_task_runs_once_whatever_reply_is_lost(
    proxied: tuple[FaultProxy, Fleet], workers: Fleet, simulator: Simulator, client: Any, then: str
) -> None:
    """The command was done; the connection was cut before its reply, or fell silent."""
    proxy, exposed = proxied
    simulator.settings("claude", answer="echo")
    simulator.fault("gpt", kind="context_window")
    started = 0
    for name, which in targets(client, then).items():
        for kind in ("cut after", "lose"):
            last, first = f"last {name} {kind}", f"<{name} {kind}>"
            before = len(simulator.hits("claude"))
            proxy._add(kind, 1, which.get("of"), which.get("match", b""))

            workers.run(
                "from celery import chain, chord, group\nfrom tasks import complete\n"
                + AFTER[then].format(first=first, last=last)
            )

            key = f"celery-task-meta-{last}"
            meta = json.loads(wait_for(lambda k=key: client.get(k), 120, exposed.logs))
            wait_for(lambda: not client.exists("taken"), 60, exposed.logs)
            proxy.heal()
            started += 1
            assert meta["status"] == "SUCCESS", (name, kind, meta)
            assert len(simulator.hits("claude")) - before == PARTS[then], (name, kind)
    assert proxy.struck >= started - 4
    assert client.xlen("dead") == (started if "error" in then else 0)
    assert not client.hexists("delivery", "duplicates")


WORKFLOW = """
workflows:
  twice:
    - {name: first, role: coder, prompt: "{input}"}
    - {name: second, role: coder, prompt: "again: {first}"}
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_stages_of_a_workflow_run_once_whatever_reply_is_lost(
    redis_url: str, workers: Fleet, simulator: Simulator, client: Any
) -> None:
    """A stage that was begun and not enqueued would stand still; one enqueued twice be paid twice."""
    simulator.settings("claude", answer="echo")
    text = workers.roles_file.read_text() + WORKFLOW
    workers.roles_file.write_text(text)
    move = RunStore(client)._move.sha.encode()
    port = client.connection_pool.connection_kwargs["port"]
    with FaultProxy(port) as proxy, fleet(proxy.url, text) as exposed:
        exposed.start(1, "threads", 4)
        for name, which in {**targets(client, ""), "move": {"match": move}}.items():
            for kind in ("cut after", "lose"):
                before = len(simulator.hits("claude"))
                proxy._add(kind, 1, which.get("of"), which.get("match", b""))
                run = f"{name} {kind}".replace(" ", "-")

                answer = workers.run(
                    "from tasks import workflow\n"
                    f"print(workflow('twice').delay('<x>', run_id={run!r}).get(timeout=110)['text'])"
                )

                proxy.heal()
                assert "again: <x>" in answer, (name, kind)
                assert len(simulator.hits("claude")) - before == 2, (name, kind)
    assert client.xlen("dead") == 0
