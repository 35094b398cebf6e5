"""`breakwater workers`, `drain` and `reload`: show the workers, and control them by hand."""

import time
from dataclasses import asdict
from typing import Annotated

import typer

from breakwater.errors import nearest
from breakwater.redis.connection import client
from tasks.operations.fleet import Fleet, Worker
from tasks.operations.operator import Operator, ReloadReply
from workers.terminal.console import (
    CHECKS_FAILED,
    AsJson,
    confirm,
    err,
    fail,
    out,
    print_json,
    refuse,
    usable_redis_url,
)
from workers.terminal.figures import age
from workers.terminal.table import Table

POLL_INTERVAL_S = 0.5
JSON_KEYS = {"max_open_files": "files", "is_unpatched": "unpatched", "changed_settings": "altered"}
"""The keys of `--json`, which scripts read, for the fields of a worker that have another name."""


def workers(as_json: AsJson = False) -> None:
    """
    Show each worker: what it runs, and by which roles file.

    Workers send a heartbeat every four seconds; one that is killed disappears after
    twelve.
    """
    snapshot = Fleet(client(usable_redis_url())).snapshot()
    if as_json:
        print_json([_as_json(worker) for worker in snapshot.workers])
        return
    if not snapshot.workers:
        out.print("no worker")
        return
    table = Table(
        "worker", "pool", "running", "roles file", "queues", "",
        whole=("worker",), right=("running",),
    )  # fmt: skip
    for worker in snapshot.workers:
        table.add(
            worker.name,
            f"{worker.pool} {worker.concurrency}",
            worker.running,
            worker.version,
            ", ".join(worker.queues),
            _state(worker, snapshot.now_ms),
        )
    out.print(table)


def _as_json(worker: Worker) -> dict[str, object]:
    return {JSON_KEYS.get(name, name): value for name, value in asdict(worker).items()}


def _state(worker: Worker, now_ms: int) -> str:
    hold = worker.draining
    if hold is None:
        return ""
    return f"drained by {hold.who} {age((now_ms - hold.at_ms) / 1000)} ago"


def drain(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="WORKER", help="As `workers` shows it.", show_default=False),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every worker that runs now.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until they have ended.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before draining all.")] = False,
) -> None:
    """
    Let workers finish what they run, and end.

    However long that takes. They take nothing more from now on, and requeue what they
    have not begun. A supervisor (systemd, Kubernetes) that restarts them starts new
    workers, which are not drained.
    """
    redis = client(usable_redis_url())
    fleet = Fleet(redis)
    chosen = _choose(fleet.snapshot().workers, names, all_)
    if all_:
        _confirm(chosen, yes)
    drained = Operator(redis).drain(chosen)
    for worker in chosen:
        if worker.name in drained:
            out.print(f"{worker.name} draining")
        else:
            out.print(f"{worker.name} was draining already, or has ended")
    ids = {worker.id for worker in chosen}
    while wait and any(worker.id in ids for worker in fleet.snapshot().workers):
        time.sleep(POLL_INTERVAL_S)


def _confirm(chosen: list[Worker], yes: bool) -> None:
    if not yes:
        for worker in chosen:
            err.print(f"{worker.name}: {worker.running} running, {worker.pool}")
    running = sum(worker.running for worker in chosen)
    question = f"drain all {len(chosen)} workers, which run {running} tasks"
    confirm(question, yes, len(chosen))


def reload(as_json: AsJson = False) -> None:
    """
    Let every worker read its roles file now.

    Workers find a change by themselves within a few seconds. They refuse a bad file,
    and keep the one they had. Exit code 3 if one refuses or does not answer.
    """
    redis = client(usable_redis_url())
    names = [worker.name for worker in Fleet(redis).snapshot().workers]
    if not names:
        fail("no worker; start one: celery -A workers worker")
    replies = Operator(redis).reload(names)
    if as_json:
        print_json(replies)
    else:
        for name, reply in sorted(replies.items()):
            _show(name, reply)
    if any(reply.get("error") or reply.get("faults") for reply in replies.values()):
        raise typer.Exit(CHECKS_FAILED)


def _choose(running: list[Worker], names: list[str] | None, all_: bool) -> list[Worker]:
    """Return the workers that the arguments mean."""
    if bool(names) == all_:
        raise typer.BadParameter("give workers as `breakwater workers` names them, or --all")
    if names is None or all_:
        return running
    known = {worker.name for worker in running}
    for name in names:
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            refuse(f"unknown worker {name!r}; there are {listed}{nearest(name, known)}")
    return [worker for worker in running if worker.name in names]


def _show(name: str, reply: ReloadReply) -> None:
    if error := reply.get("error"):
        err.print(f"{name}: {error}", style="red")
    elif faults := reply.get("faults"):
        err.print(f"{name}: refused, {reply['after']} stays", style="red")
        for fault in faults:
            err.print(f"  {fault}", style="red")
    elif reply["before"] == reply["after"]:
        out.print(f"{name}: {reply['after']}, as before")
    else:
        out.print(f"{name}: {reply['before']} -> {reply['after']}")
