"""`breakwater breakers`: show the fleet's breakers, and override them by hand."""

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
    group,
    out,
    print_json,
    refuse,
    usable_redis_url,
    watch,
    watch_json,
)
from workers.terminal.figures import at_utc
from workers.terminal.plain import plain
from workers.terminal.table import Cell, Table

TIMEOUT_S = 2.0
"""A person can wait this long. A worker's own 100 ms would report a slow network as an outage."""
WIDE_COLUMNS = 110
"""From this width on the table also shows which process made the last transition."""
NUMBERS = ("failures", "successes", "opens in", "held for", "trips")
EVENT_FIELDS = ("from", "to", "reason", "failures", "trips", "who")

cli = group(invoke_without_command=True)

Name = Annotated[str, typer.Argument(help="The breaker's name: a provider of roles.yaml.")]


@cli.callback()
def breakers(
    context: typer.Context,
    watched: Watched = False,
    as_json: AsJson = False,
) -> None:
    """
    Show every breaker of the fleet, or override one by hand.

    failures: consecutive; successes: of probes; opens in: time until probes may pass
    (due: the next call is a probe); held for: by Retry-After; trips: consecutive;
    forced: overridden by an operator.
    """
    if context.invoked_subcommand:
        return
    fleet = _connect()
    if watched and as_json:
        watch_json(lambda: _as_dicts(fleet))
    elif watched:
        watch(lambda: _read_states(fleet), _table)
    elif as_json:
        print_json(_as_dicts(fleet))
    elif states := _read_states(fleet):
        out.print(_table(states))
    else:
        out.print("no breaker yet: workers create them with the first prompts")


@cli.command()
def events(
    name: Name,
    count: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show a breaker's last transitions, newest first."""
    transitions = _check_name(name).events(name, count)
    if as_json:
        print_json(transitions)
        return
    table = Table("at (UTC)", *EVENT_FIELDS, right=("failures", "trips"))
    for event in transitions:
        table.add(at_utc(int(event["at_ms"])), *(event[field] for field in EVENT_FIELDS))
    out.print(table)


@cli.command("open", hidden=True)
@cli.command()
def force_open(name: Name) -> None:
    """
    Keep a breaker open, so that nothing is sent.

    Until `auto`; workers obey with their next call.
    """
    _force(name, "open")


@cli.command("close", hidden=True)
@cli.command()
def force_closed(name: Name) -> None:
    """
    Keep a breaker closed, whatever its calls return.

    Until `auto`; workers obey with their next call.
    """
    _force(name, "closed")


@cli.command()
def auto(name: Name) -> None:
    """Return a breaker to its own rules."""
    _force(name, None)


def _force(name: str, forced: Forced | None) -> None:
    fleet = _check_name(name)
    operator = Operator(client(usable_redis_url()))
    try:
        state = operator.force_breaker(fleet, name, forced)
    except ValueError as fault:  # the key belongs to another program
        refuse(str(fault))
    out.print(_table([state]))


def _connect() -> Breakers:
    return Breakers.from_url(usable_redis_url(), timeout_s=TIMEOUT_S)


def _as_dicts(fleet: Breakers) -> list[dict[str, object]]:
    return [asdict(state) for state in _read_states(fleet)]


def _read_states(fleet: Breakers) -> list[BreakerState]:
    """
    Read every breaker.

    Raises:
        RedisError: Redis does not answer; this process has no local state to show instead.
    """
    states = fleet.peek_all()
    if not states or states[0].source == "local":
        fleet.events("any", 1)
    return states


def _check_name(name: str) -> Breakers:
    """Check that the breaker exists: in Redis, or as a provider that was not called yet."""
    fleet = _connect()
    names = {state.name for state in _read_states(fleet)} | (provider_names() or set())
    if name not in names:
        known = ", ".join(sorted(names)) or "none: there is no roles file, and no prompt was sent"
        refuse(f"unknown breaker {name!r}; there are {known}{nearest(name, names)}")
    return fleet


def _table(states: list[BreakerState]) -> Table:
    is_wide = out.width >= WIDE_COLUMNS
    heads = ["breaker", "state", *NUMBERS, "forced", "reason"]
    if is_wide:
        heads.append("who")
    table = Table(*heads, whole=("breaker", "state"), right=NUMBERS)
    for state in states:
        cells: list[Cell] = [
            state.name,
            Text(plain(state.state), style=COLOURS.get(state.state, "")),
            state.failures,
            state.successes,
            _opens_in(state),
            _duration(state.held_for_s),
            state.trips,
            state.forced or "",
            state.reason,
        ]
        if is_wide:
            cells.append(state.who)
        table.add(*cells)
    return table


def _opens_in(state: BreakerState) -> str:
    if state.due and not state.open_for_s:
        return "due"
    return _duration(state.open_for_s)


def _duration(seconds: float) -> str:
    if not seconds:
        return ""
    return f"{seconds:.1f} s"
