"""`breakwater breakers`: how the fleet's breakers stand, and an operator's hand on them."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from breaker import Breakers, BreakerState
from breaker.state import Forced
from breakwater.config import provider_names
from breakwater.errors import nearest
from breakwater.redis.connection import client
from tasks.operations.operator import Operator
from workers.terminal.console import (
    COLOURS,
    AsJson,
    Watched,
    at_utc,
    group,
    out,
    print_json,
    refuse,
    usable_redis_url,
    watch,
)
from workers.terminal.plain import plain
from workers.terminal.table import Table

TIMEOUT_S = 2.0
"""For a person who waits; a worker's own 100 ms would call a slow network an outage."""
WIDE = 110
"""From this width on the table also shows who made the last transition."""

cli = group(invoke_without_command=True)

Name = Annotated[str, typer.Argument(help="The breaker's name: a provider of roles.yaml.")]


@cli.callback()
def breakers(
    context: typer.Context,
    watched: Watched = False,
    as_json: AsJson = False,
) -> None:
    """
    Show every breaker of the fleet, or move one by hand.

    failures: in a row; successes: of probes; opens in: until probes are let in (due:
    the next call is one); held for: by Retry-After; trips: in a row; forced: by an
    operator.
    """
    if context.invoked_subcommand:
        return
    fleet = _fleet()
    if watched and as_json:
        watch(lambda: [asdict(state) for state in _states(fleet)], str, as_json)
    elif watched:
        watch(lambda: _states(fleet), _table, as_json)
    elif as_json:
        print_json([asdict(state) for state in _states(fleet)])
    elif states := _states(fleet):
        out.print(_table(states))
    else:
        out.print("no breaker yet: workers make them with the first prompts")


@cli.command()
def events(
    name: Name,
    count: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show a breaker's last transitions, newest first."""
    told = _known(name).events(name, count)
    if as_json:
        print_json(told)
        return
    table = Table(
        "at (UTC)", "from", "to", "reason", "failures", "trips", "who", right=("failures", "trips")
    )
    for event in told:
        at = at_utc(int(event["at_ms"]))
        table.add(at, *(event[x] for x in ("from", "to", "reason", "failures", "trips", "who")))
    out.print(table)


@cli.command("open")
def force_open(name: Name) -> None:
    """Take a provider out: nothing is sent to it until `auto`."""
    _force(name, "open")


@cli.command("close")
def force_closed(name: Name) -> None:
    """Send to a provider whatever its breaker says, until `auto`."""
    _force(name, "closed")


@cli.command()
def auto(name: Name) -> None:
    """Give a breaker back to its own rules."""
    _force(name, None)


def _force(name: str, forced: Forced | None) -> None:
    fleet = _known(name)
    operator = Operator(client(usable_redis_url()))
    try:
        state = operator.force_breaker(fleet, name, forced)
    except ValueError as fault:  # the key belongs to another program
        refuse(str(fault))
    out.print(_table([state]))


def _fleet() -> Breakers:
    return Breakers.from_url(usable_redis_url(), timeout_s=TIMEOUT_S)


def _states(fleet: Breakers) -> list[BreakerState]:
    """
    Read every breaker.

    Raises:
        RedisError: Redis does not answer; this process has nothing of its own to show instead.
    """
    states = fleet.peek_all()
    if not states or states[0].source == "local":
        fleet.events("any", 1)
    return states


def _known(name: str) -> Breakers:
    """Check that there is such a breaker: in Redis, or as a provider nobody has asked yet."""
    fleet = _fleet()
    names = {state.name for state in _states(fleet)} | (provider_names() or set())
    if name not in names:
        known = ", ".join(sorted(names)) or "none: there is no roles file, and no prompt was sent"
        refuse(f"unknown breaker {name!r}; there are {known}{nearest(name, names)}")
    return fleet


def _table(states: list[BreakerState]) -> Table:
    numbers = ("failures", "successes", "opens in", "held for", "trips")
    table = Table(
        "breaker", "state", *numbers, "forced", "reason", *(["who"] if out.width >= WIDE else []),
        whole=("breaker", "state"), right=numbers,
    )  # fmt: skip
    for state in states:
        table.add(
            state.name,
            Text(plain(state.state), style=COLOURS.get(state.state, "")),
            state.failures,
            state.successes,
            f"{state.open_for_s:.1f} s" if state.open_for_s else "due" if state.due else "",
            f"{state.held_for_s:.1f} s" if state.held_for_s else "",
            state.trips,
            state.forced or "",
            state.reason,
            *([state.who] if out.width >= WIDE else []),
        )
    return table
