"""`breakwater queues`, `pause` and `resume`: what waits, and an operator's hand on it."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from breakwater.config import role_names
from breakwater.errors import ConfigError, nearest
from breakwater.redis.connection import client
from tasks.operations.fleet import Fleet, FleetSnapshot, Queue
from tasks.operations.operator import Operator
from workers.terminal.console import (
    AsJson,
    Watched,
    age,
    err,
    out,
    print_json,
    refuse,
    usable_redis_url,
    watch,
)  # fmt: skip
from workers.terminal.plain import plain
from workers.terminal.table import Table

ANY_ROLE = "(any)"


def _complete_role() -> list[str]:
    try:
        return sorted(role_names() or ())
    except ConfigError:
        return []


Roles = Annotated[
    list[str] | None,
    typer.Argument(metavar="ROLE", autocompletion=_complete_role, show_default=False),
]
All = Annotated[bool, typer.Option("--all", help="Every queue, the common one too.")]


def queues(watched: Watched = False, as_json: AsJson = False) -> None:
    """
    Show each role's queue: what waits, what runs, what holds it.

    oldest: how long the next to be taken has waited; running: in workers' hands;
    delayed: put aside until it is due; workers: how many consume it.
    """
    fleet = Fleet(client(usable_redis_url()))
    if watched and as_json:
        watch(lambda: [asdict(queue) for queue in _look(fleet).queues], str, as_json)
    elif watched:
        watch(lambda: _look(fleet), _table, as_json)
    elif as_json:
        print_json([asdict(queue) for queue in _look(fleet).queues])
    else:
        view = _look(fleet)
        out.print(_table(view))
        _warn(view)


def pause(
    roles: Roles = None,
    all_: All = False,
    why: Annotated[str, typer.Option(help="Shown in `queues` and `operations`.")] = "",
) -> None:
    """
    Take nothing more from these roles' queues, anywhere.

    What runs finishes, new prompts wait in order, other roles run on; until `resume`.
    """
    redis = client(usable_redis_url())
    chosen = _chosen(_look(Fleet(redis)), roles, all_)
    _tell(chosen, Operator(redis).pause(chosen, why), "paused", "was paused already")


def resume(roles: Roles = None, all_: All = False) -> None:
    """Take from these roles' queues again, at once."""
    redis = client(usable_redis_url())
    chosen = _chosen(_look(Fleet(redis)), roles, all_)
    _tell(chosen, Operator(redis).resume(chosen), "resumed", "was not paused")


def _look(fleet: Fleet) -> FleetSnapshot:
    try:
        roles = role_names() or frozenset()
    except ConfigError:  # what workers have said will do
        roles = frozenset()
    view = fleet.snapshot(roles)
    shown = [each for each in view.queues if each.role in roles or each.is_in_use]
    return FleetSnapshot(view.now_ms, shown, view.workers)


def _chosen(view: FleetSnapshot, roles: list[str] | None, all_: bool) -> list[str]:
    if bool(roles) == all_:
        raise typer.BadParameter("give roles, or --all")
    if all_:
        return [queue.name for queue in view.queues]
    known = {queue.role: queue.name for queue in view.queues if queue.role}
    for role in roles or ():
        if role not in known:
            there = (
                f"there are {', '.join(sorted(known))}"
                if known
                else "no role has a queue of its own"
            )
            refuse(f"unknown role {role!r}; {there}{nearest(role, known)}")
    return [known[role] for role in roles or ()]


def _tell(chosen: list[str], changed: list[str], done: str, not_done: str) -> None:
    for name in chosen:
        out.print(f"{name} {done if name in changed else not_done}")


def _table(view: FleetSnapshot) -> Table:
    numbers = ("waiting", "oldest", "running", "delayed", "workers")
    table = Table("role", *numbers, "", whole=("role",), right=numbers)
    for queue in view.queues:
        table.add(
            queue.role or ANY_ROLE,
            queue.depth,
            age(queue.oldest_s) if queue.oldest_s is not None else "",
            queue.running,
            queue.delayed,
            queue.consumers,
            _state(queue, view.now_ms),
        )
    return table


def _state(queue: Queue, now_ms: int) -> Text:
    said = Text()
    if queue.paused:
        since = age((now_ms - queue.paused.at_ms) / 1000)
        why = f": {plain(queue.paused.why)}" if queue.paused.why else ""
        said.append(f"paused by {plain(queue.paused.who)} {since} ago{why} ", style="yellow")
    if queue.parked:
        left_s = (queue.parked.until_ms - now_ms) / 1000
        until = f"for {age(left_s)} more" if left_s > 0 else "until something is tried"
        said.append(f"parked {until}: {plain(queue.parked.why)} ", style="red")
    if queue.depth and not queue.consumers:
        said.append("no worker consumes it", style="red")
    return said


def _warn(view: FleetSnapshot) -> None:
    if len(found := view.versions()) > 1:
        told = "; ".join(f"{version}: {', '.join(names)}" for version, names in found.items())
        err.print(f"workers route by different roles files: {told}", style="yellow")
    for worker in view.workers:
        if worker.draining:
            told = f"{worker.name} is drained by {worker.draining.who}, {worker.running} run still"
            err.print(plain(told), style="yellow")
