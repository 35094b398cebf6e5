"""`breakwater workers`, `drain` and `reload`: who is there, and an operator's hand on them."""

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
    age,
    confirm,
    err,
    fail,
    out,
    print_json,
    refuse,
    usable_redis_url,
)  # fmt: skip
from workers.terminal.table import Table

LOOK_EVERY_S = 0.5


def workers(as_json: AsJson = False) -> None:
    """
    Show each worker: what it runs, and by which roles file.

    Workers tell this every four seconds; one that is killed is gone after twelve.
    """
    view = Fleet(client(usable_redis_url())).snapshot()
    if as_json:
        print_json([asdict(worker) for worker in view.workers])
        return
    table = Table(
        "worker", "pool", "running", "roles file", "queues", "",
        whole=("worker",), right=("running",),
    )  # fmt: skip
    for worker in view.workers:
        hold = worker.draining
        table.add(
            worker.name,
            f"{worker.pool} {worker.concurrency}",
            worker.running,
            worker.version,
            ", ".join(worker.queues),
            f"drained by {hold.who} {age((view.now_ms - hold.at_ms) / 1000)} ago" if hold else "",
        )
    out.print(table if view.workers else "no worker")


def drain(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="WORKER", help="As `workers` shows it.", show_default=False),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every worker there is now.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Until they have ended.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before all are drained.")] = False,
) -> None:
    """
    Let workers finish what they run, and end.

    However long that takes. They take nothing more from now on; what they have not begun
    goes back. Whatever starts them again (systemd, Kubernetes) starts new ones, which are
    not drained.
    """
    redis = client(usable_redis_url())
    fleet = Fleet(redis)
    chosen = _chosen(fleet.snapshot().workers, names, all_)
    if all_ and not yes:
        for worker in chosen:
            err.print(f"{worker.name}: {worker.running} running, {worker.pool}")
    running = sum(worker.running for worker in chosen)
    question = f"drain all {len(chosen)} workers, which run {running} tasks"
    confirm(question, yes or not all_, len(chosen))
    done = Operator(redis).drain(chosen)
    for worker in chosen:
        what = "draining" if worker.name in done else "was draining already, or has ended"
        out.print(f"{worker.name} {what}")
    ids = {worker.id for worker in chosen}
    while wait and any(worker.id in ids for worker in fleet.snapshot().workers):
        time.sleep(LOOK_EVERY_S)


def reload(as_json: AsJson = False) -> None:
    """
    Let every worker read its roles file now.

    They see a change by themselves within a few seconds; a bad file is refused, and
    they keep the one they had. Exit code 3 if one refuses or does not answer.
    """
    redis = client(usable_redis_url())
    names = [worker.name for worker in Fleet(redis).snapshot().workers]
    if not names:
        fail("no worker; start one: celery -A workers worker")
    told = Operator(redis).reload(names)
    if as_json:
        print_json(told)
    for name, answer in [] if as_json else sorted(told.items()):
        _show(name, answer)
    if any(reply.get("error") or reply.get("faults") for reply in told.values()):
        raise typer.Exit(CHECKS_FAILED)


def _chosen(there: list[Worker], names: list[str] | None, all_: bool) -> list[Worker]:
    if bool(names) == all_:
        raise typer.BadParameter("give workers as `breakwater workers` names them, or --all")
    if all_:
        return there
    known = {worker.name for worker in there}
    for name in names or ():
        if name not in known:
            listed = f"there are {', '.join(sorted(known))}" if known else "there is none"
            refuse(f"unknown worker {name!r}; {listed}{nearest(name, known)}")
    return [worker for worker in there if worker.name in (names or ())]


def _show(name: str, answer: ReloadReply) -> None:
    if error := answer.get("error"):
        err.print(f"{name}: {error}", style="red")
    elif faults := answer.get("faults"):
        err.print(f"{name}: refused, {answer['after']} stays", style="red")
        for fault in faults:
            err.print(f"  {fault}", style="red")
    elif answer["before"] == answer["after"]:
        out.print(f"{name}: {answer['after']}, as before")
    else:
        out.print(f"{name}: {answer['before']} -> {answer['after']}")
