"""`breakwater queues`, `pause` and `resume`: show the queues, and hold them by hand."""

from collections.abc import Collection
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
    err,
    out,
    print_json,
    refuse,
    usable_redis_url,
    watch,
    watch_json,
)
from workers.terminal.figures import age
from workers.terminal.plain import plain
from workers.terminal.table import Table

ANY_ROLE = "(any)"
"""Shown for the common queue."""


def roles_of_file() -> frozenset[str]:
    """Return the roles of the roles file; none if it cannot be read: workers publish theirs."""
    try:
        return role_names() or frozenset()
    except ConfigError:
        return frozenset()


def _complete_role() -> list[str]:
    return sorted(roles_of_file())


Roles = Annotated[
    list[str] | None,
    typer.Argument(metavar="ROLE", autocompletion=_complete_role, show_default=False),
]
All = Annotated[bool, typer.Option("--all", help="Every queue, also the common one.")]


def queues(watched: Watched = False, as_json: AsJson = False) -> None:
    """
    Show each role's queue: what waits, what runs, what holds it.

    oldest: how long the next task has waited; running: held by workers; delayed:
    waiting until it is due; workers: how many consume the queue.
    """
    fleet = Fleet(client(usable_redis_url()))
    if watched and as_json:
        watch_json(lambda: _as_dicts(fleet))
    elif watched:
        watch(lambda: _snapshot(fleet), _table)
    elif as_json:
        print_json(_as_dicts(fleet))
    else:
        snapshot = _snapshot(fleet)
        out.print(_table(snapshot))
        _warn(snapshot)


def pause(
    roles: Roles = None,
    all_: All = False,
    why: Annotated[str, typer.Option(help="Shown in `queues` and `operations`.")] = "",
) -> None:
    """
    Stop all workers from taking these roles' prompts.

    Running tasks finish, new prompts wait in order, other roles go on; until `resume`.
    """
    redis = client(usable_redis_url())
    chosen = _choose(_snapshot(Fleet(redis)), roles, all_)
    paused = Operator(redis).pause(chosen, why)
    for name in chosen:
        _report(name, name in paused, "paused", "was paused already")


def resume(roles: Roles = None, all_: All = False) -> None:
    """Let workers take these roles' prompts again, at once."""
    redis = client(usable_redis_url())
    chosen = _choose(_snapshot(Fleet(redis)), roles, all_)
    resumed = Operator(redis).resume(chosen)
    for name in chosen:
        _report(name, name in resumed, "resumed", "was not paused")


def _report(name: str, has_changed: bool, changed: str, unchanged: str) -> None:
    if has_changed:
        out.print(f"{name} {changed}")
    else:
        out.print(f"{name} {unchanged}")


def _snapshot(fleet: Fleet) -> FleetSnapshot:
    roles = roles_of_file()
    snapshot = fleet.snapshot(roles)
    shown = [queue for queue in snapshot.queues if queue.role in roles or queue.is_in_use]
    return FleetSnapshot(snapshot.now_ms, shown, snapshot.workers)


def _as_dicts(fleet: Fleet) -> list[dict[str, object]]:
    return [asdict(queue) for queue in _snapshot(fleet).queues]


def _choose(snapshot: FleetSnapshot, roles: list[str] | None, all_: bool) -> list[str]:
    """Return the names of the queues that the arguments mean."""
    if bool(roles) == all_:
        raise typer.BadParameter("give roles, or --all")
    if all_:
        return [queue.name for queue in snapshot.queues]
    known = {queue.role: queue.name for queue in snapshot.queues if queue.role}
    for role in roles or ():
        if role not in known:
            refuse(f"unknown role {role!r}; {_list_roles(known)}{nearest(role, known)}")
    return [known[role] for role in roles or ()]


def _list_roles(roles: Collection[str]) -> str:
    if not roles:
        return "no role has a queue of its own"
    return f"there are {', '.join(sorted(roles))}"


def _table(snapshot: FleetSnapshot) -> Table:
    numbers = ("waiting", "oldest", "running", "delayed", "workers")
    table = Table("role", *numbers, "", whole=("role",), right=numbers)
    for queue in snapshot.queues:
        table.add(
            queue.role or ANY_ROLE,
            queue.depth,
            oldest(queue),
            queue.running,
            queue.delayed,
            queue.consumers,
            _state(queue, snapshot.now_ms),
        )
    return table


def oldest(queue: Queue) -> str:
    """Format how long the next task has waited; empty if none waits."""
    if queue.oldest_s is None:
        return ""
    return age(queue.oldest_s)


def _state(queue: Queue, now_ms: int) -> Text:
    state = Text()
    if queue.paused:
        since = age((now_ms - queue.paused.at_ms) / 1000)
        state.append(f"paused by {plain(queue.paused.who)} {since} ago", style="yellow")
        if queue.paused.why:
            state.append(f": {plain(queue.paused.why)}", style="yellow")
        state.append(" ")
    if queue.parked:
        until = "until a call is tried"
        left_s = (queue.parked.until_ms - now_ms) / 1000
        if left_s > 0:
            until = f"for {age(left_s)} more"
        state.append(f"parked {until}: {plain(queue.parked.why)} ", style="red")
    if queue.depth and not queue.consumers:
        state.append("no worker consumes it", style="red")
    return state


def _warn(snapshot: FleetSnapshot) -> None:
    versions = snapshot.versions()
    if len(versions) > 1:
        listed = "; ".join(f"{version}: {', '.join(names)}" for version, names in versions.items())
        err.print(f"workers route by different roles files: {listed}", style="yellow")
    for worker in snapshot.workers:
        if worker.draining:
            err.print(
                f"{plain(worker.name)} is drained by {plain(worker.draining.who)}, "
                f"{worker.running} run still",
                style="yellow",
            )
