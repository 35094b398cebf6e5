"""
Record what an older version leaves in Redis, in its ledger and in its spool.

    git worktree add /tmp/old 2ac275a && cd /tmp/old
    PYTHONPATH=. .venv/bin/python REPOSITORY/tests/data/mixed/record.py

Everything comes from that older code: its producers, its workers, its simulator. Only this file and
`roles.yaml` beside it are ours. Each scenario is one JSON file: every key with its type, value and
remaining time, and the moment of the recording by Redis' clock.
"""

import json
import os
import signal
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any

import redis

from simulator.client import Simulator
from tests.support.fleet import Fleet, fleet, wait_for
from tests.support.valkey import Server

HERE = Path(__file__).parent
KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
"""Encrypts nothing but the recording of it."""
QUEUED = """
from celery import chain, chord
from tasks import app, complete, workflow
schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
tool = {"name": "look", "description": "Look", "parameters": {"type": "object", "properties": {}}}
def put(task_id, prompt, options=None, role="coder", **how):
    complete.apply_async((role, prompt), options or {}, task_id=task_id, **how)
put("plain", "plain prompt")
put("options", "prompt", {"system": "be brief", "params": {"temperature": 0}, "metadata": {"tenant": "acme"}})
put("messages", [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}, {"role": "user", "content": "three"}])
put("schema", "prompt", {"schema": schema})
put("tools", "prompt", {"tools": [tool], "tool_choice": "look"})
put("streamed", "streamed prompt", {"stream": True})
put("deadline", "prompt", {"deadline_s": 86400})
put("late", "prompt", {"deadline_s": 0.001})
put("expires", "prompt", expires=86400)
put("countdown", "prompt", countdown=2)
put("priority", "prompt", priority=9)
put("cached-1", "same", role="cached")
put("cached-2", "same", role="cached")
put("refused", "prompt", role="refused")
app.send_task("complete", ("coder", "sent prompt"), task_id="sent")
chain(complete.s("coder", "first").set(task_id="chain-1"), complete.s("reviewer").set(task_id="chain-2")).delay()
chord([complete.s("coder", "a").set(task_id="part-a"), complete.s("coder", "b").set(task_id="part-b")])(
    complete.s("reviewer").set(task_id="body"))
workflow("feature").delay("a page", run_id="run")
complete.apply_async(("coder", "prompt"), task_id="cancelled").cancel()
"""
COMMON = """
from tasks import complete
complete.apply_async(("coder", "common prompt"), task_id="common")
complete.apply_async(("codr", "prompt"), task_id="unknown")
"""
IDS = (
    "plain", "options", "messages", "schema", "tools", "streamed", "deadline", "late", "expires",
    "countdown", "priority", "cached-1", "cached-2", "refused", "sent", "chain-1", "chain-2",
    "part-a", "part-b", "body", "cancelled", "common", "unknown",
)  # fmt: skip
SEEN = """
import json
from tasks import app, stream, workflow
seen = {}
for task_id in %r:
    result = app.AsyncResult(task_id).get(timeout=60, propagate=False)
    if isinstance(result, Exception):
        seen[task_id] = {"error": type(result).__name__, "args": list(result.args)}
    else:
        seen[task_id] = {"result": result}
seen["stream"] = [[event.type, event.text] for event in stream(app.AsyncResult("streamed"))]
seen["run"] = workflow.run("run").state()
print(json.dumps(seen))
"""
WAITING = """
from tasks import complete
for n in range(4):
    complete.apply_async(("parked", f"parked {n}"), task_id=f"parked-{n}")
complete.apply_async(("failing", "failing prompt"), task_id="failing")
complete.apply_async(("coder", "much later"), task_id="later", countdown=3600)
complete.apply_async(("reviewer", "paused prompt"), task_id="paused")
"""
IN_HAND = """
from tasks import complete, workflow
complete.apply_async(("slow", "slow prompt"), task_id="killed")
complete.apply_async(("slow", "slow stream"), {"stream": True}, task_id="killed-stream")
workflow("feature").delay("a page", run_id="killed-run")
"""
ONE = """
from tasks import complete
complete.apply_async(("slow", "paid prompt"), task_id="spooled")
"""
ENCRYPTED = """
from tasks import complete
complete.apply_async(("coder", "secret prompt"), task_id="%s")
"""


def everything(url: str) -> dict[str, Any]:
    """Return all keys of a database."""
    client: Any = redis.Redis.from_url(
        url, decode_responses=True, encoding_errors="surrogateescape"
    )
    read = {
        "string": client.get,
        "list": lambda key: client.lrange(key, 0, -1),
        "hash": client.hgetall,
        "set": lambda key: sorted(client.smembers(key)),
        "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        "stream": client.xrange,
    }
    seconds, micros = client.time()
    keys = {
        key: {"type": kind, "ttl_ms": client.pttl(key), "value": read[kind](key)}
        for key in sorted(client.scan_iter())
        for kind in [client.type(key)]
    }
    return {"now_ms": seconds * 1000 + micros // 1000, "keys": keys}


def keep(name: str, content: object) -> None:
    """Write one file of the recording."""
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=True)
    (HERE / f"{name}.json").write_text(text + "\n")


def kill(workers: Fleet) -> None:
    """SIGKILL the newest worker."""
    os.killpg(workers.workers[-1].pid, signal.SIGKILL)
    workers.workers[-1].wait()


def results(server: Server, ids: tuple[str, ...]) -> bool:
    """Return whether all of these tasks have a result."""
    return all(server.client.exists(f"celery-task-meta-{task_id}") for task_id in ids)


def record_settled(roles: str) -> None:
    """What producers enqueue, and what a worker makes of it."""
    with Server() as server, fleet(server.url, roles) as workers:
        workers.run(QUEUED)
        workers.run(COMMON, roles_known=False)
        keep("queued", everything(server.url))
        workers.start()
        wait_for(lambda: results(server, IDS), 120, lambda: workers.log()[-3000:])
        wait_for(lambda: server.client.hget("workflow:run", "state") == "succeeded", 60)
        wait_for(lambda: not server.client.xlen("ledger"), 60)
        keep("seen", json.loads(workers.run(SEEN % (IDS,))))
        keep("settled", everything(server.url))
        workers.stop()
        ledger = sqlite3.connect(workers.folder / "ledger.db")
        (HERE / "ledger.sql").write_text("\n".join(ledger.iterdump()) + "\n")


def record_waiting(roles: str, simulator: Simulator) -> None:
    """What waits: parked, put aside after a failure, delayed, paused."""
    simulator.fault("down", status=503)
    simulator.fault("failing", status=500)
    with Server() as server, fleet(server.url, roles) as workers:
        workers.start()
        workers.command("breakwater", "pause", "reviewer", "--why", "a recording")
        workers.run(WAITING)
        wait_for(lambda: server.client.hget("breaker:{down}", "state") == "open", 60)
        wait_for(lambda: server.client.exists("parked"), 60)
        wait_for(lambda: simulator.hits("failing"), 60)
        wait_for(lambda: server.client.zcard("delayed") == 2, 60, lambda: workers.log()[-3000:])
        workers.stop()
        keep("waiting", everything(server.url))
    simulator.heal("down")
    simulator.heal("failing")


def record_in_hand(roles: str, simulator: Simulator) -> None:
    """What a worker that was killed had in hand."""
    simulator.settings("slow", answer="echo", latency=60)
    with Server() as server, fleet(server.url, roles) as workers:
        workers.start()
        workers.run(IN_HAND)
        wait_for(lambda: simulator.in_flight("slow") == 3, 60, lambda: workers.log()[-3000:])
        time.sleep(3)
        kill(workers)
        keep("in_hand", everything(server.url))


def record_spool(roles: str, simulator: Simulator) -> None:
    """A paid answer that Redis did not take, and whose worker died."""
    simulator.settings("slow", answer="echo", latency=3)
    with Server() as server, tempfile.TemporaryDirectory() as folder:
        spool = Path(folder)
        with fleet(server.url, roles, {"SPOOL_DIR": str(spool)}) as workers:
            workers.start()
            workers.run(ONE)
            wait_for(lambda: simulator.in_flight("slow") == 1, 60)
            server.kill()
            wait_for(lambda: list(spool.glob("*.json")), 60, lambda: workers.log()[-3000:])
            kill(workers)
        keep("spool_file", [json.loads(path.read_text()) for path in spool.glob("*.json")])
        server.start()
        keep("spool", everything(server.url))


def record_encrypted(roles: str) -> None:
    """A prompt and a result, encrypted."""
    environ = {"BREAKWATER_ENCRYPTION_KEYS": KEY}
    with Server() as server, fleet(server.url, roles, environ) as workers:
        workers.start()
        workers.run(ENCRYPTED % "sealed-result")
        wait_for(lambda: results(server, ("sealed-result",)), 60)
        workers.stop()
        workers.run(ENCRYPTED % "sealed-prompt")
        keep("encrypted", everything(server.url))


def main() -> None:
    """Record every scenario."""
    with Simulator.start() as simulator:
        for label in ("claude", "gpt", "slow"):
            simulator.settings(label, answer="echo")
        simulator.fault("refusing", status=400)
        roles = (HERE / "roles.yaml").read_text().replace("SIMULATOR", simulator.base_url)
        record_settled(roles)
        record_waiting(roles, simulator)
        record_in_hand(roles, simulator)
        record_spool(roles, simulator)
        record_encrypted(roles)


if __name__ == "__main__":
    main()
