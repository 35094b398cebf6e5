"""How `breakwater top` is drawn: from 80 columns and 24 lines up; more room shows more."""

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from operator import itemgetter

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from breaker import BreakerState
from breakwater.redis.connection import shown
from tasks.ledger.summary import GroupSummary
from tasks.operations.fleet import Queue
from tasks.operations.snapshot import DashboardSnapshot, Event
from workers.commands.ledger_reports import dollars, short
from workers.terminal.console import COLOURS, age
from workers.terminal.plain import plain

WIDE = 120
"""From this width on there are tokens, errors and reasons as well."""
LEAST_EVENTS = 4
HEADS = 6
"""Lines that are not rows: the head, two tables' heads, blanks."""


def draw(scene: DashboardSnapshot, width: int, height: int) -> RenderableType:
    """Draw the fleet on a screen of that many columns and lines."""
    wide = width >= WIDE
    providers, queues = _providers(scene), _queues(scene)
    room = height - HEADS - LEAST_EVENTS
    most = max(3, room // 2) if len(providers) + len(queues) > room else room
    provider_table = _provider_table(scene, sorted(providers[:most], key=itemgetter(0)), wide)
    chosen = queues[: max(3, room - len(providers[:most]))]
    # By name: a row stays where it is while its numbers change.
    role_table = _role_table(scene, sorted(chosen, key=lambda queue: queue.role), wide)
    used = HEADS + min(len(providers), most) + role_table.row_count
    return Group(
        _head(scene, width),
        Text(),
        provider_table,
        Text(),
        role_table,
        Text(),
        *_events(scene.events[: max(LEAST_EVENTS, height - used - 1)], scene.fleet.now_ms, width),
    )


def _head(scene: DashboardSnapshot, width: int) -> Text:
    workers = scene.fleet.workers
    slots = sum(worker.concurrency for worker in workers)
    running = sum(worker.running for worker in workers)
    at = datetime.fromtimestamp(scene.fleet.now_ms / 1000, UTC).strftime("%H:%M:%S UTC")
    versions = scene.fleet.versions()
    lines = scene.rates.providers.values()
    hour_usd = sum((line.cost_usd for line in lines), start=Decimal(0)) * _per_hour(scene)
    text = Text.assemble(
        ("breakwater ", "bold"), f"{at}  ",
        (f"{len(workers)} workers", "" if workers else "red"), f" {running}/{slots} busy  ",
        f"${dollars(hour_usd)}/h  " if hour_usd else "",
        (f"roles {', '.join(versions)}", "" if len(versions) <= 1 else "yellow"),
        f"  {shown()}" if width >= WIDE else "",
    )  # fmt: skip
    if scene.rates.missing:
        text.append(f"\n{plain(scene.rates.missing)}", style="yellow")
    text.truncate(width * 2)
    return text


def _providers(scene: DashboardSnapshot) -> list[tuple[str, BreakerState | None]]:
    """Name the providers, those in trouble first: should not all have room, they do."""
    states = {state.name: state for state in scene.breakers}
    names = sorted({*states, *scene.rates.providers})
    well = {name for name in names if name not in states or not _trouble(states[name])}
    return [(name, states.get(name)) for name in sorted(names, key=lambda n: (n in well, n))]


def _queues(scene: DashboardSnapshot) -> list[Queue]:
    """Choose the queues, those in trouble first: should not all have room, they do."""
    known = [queue for queue in scene.fleet.queues if queue.role or queue.depth or queue.running]
    return sorted(known, key=lambda q: (not (q.parked or q.paused), q.role))


def _provider_table(
    scene: DashboardSnapshot, providers: Iterable[tuple[str, BreakerState | None]], wide: bool
) -> Table:
    table = _table("provider", "breaker", "")
    for head in ("calls/min", "ok", "p50", "p95", *(("in/min", "out/min") if wide else ()), "$/h"):
        table.add_column(head, justify="right", no_wrap=True)
    if wide:
        table.add_column("errors")
    for name, state in providers:
        line = scene.rates.providers.get(name)
        table.add_row(
            plain(name),
            Text(state.state, style=COLOURS[state.state]) if state else "",
            _trouble(state),
            *_rates(scene, line, wide),
            *([_errors(line)] if wide else []),
        )
    return table


def _role_table(scene: DashboardSnapshot, queues: Iterable[Queue], wide: bool) -> Table:
    table = _table("role")
    table.expand = True
    for head in ("waiting", "oldest", "running", "calls/min", *(("ok",) if wide else ()), "p95"):
        table.add_column(head, justify="right", no_wrap=True)
    if wide:
        table.add_column("$/h", justify="right", no_wrap=True)
    table.add_column("state, served by", ratio=1, no_wrap=True)
    for queue in queues:
        per_minute, ok, _, p95, *_, usd = _rates(scene, scene.rates.roles.get(queue.role), wide)
        table.add_row(
            plain(queue.role or "(any)"),
            short(queue.depth),
            age(queue.oldest_s) if queue.oldest_s is not None else "",
            str(queue.running),
            *((per_minute, ok, p95, usd) if wide else (per_minute, p95)),
            _served(scene, queue),
        )
    return table


def _table(*heads: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for head in heads:
        table.add_column(head, no_wrap=True)
    return table


def _trouble(state: BreakerState | None) -> Text:
    text = Text()
    if state is None:
        return text
    if state.forced:
        text.append(f"forced {state.forced}", style="yellow")
    elif state.open_for_s:
        text.append(f"{state.reason} {state.open_for_s:.0f} s", style="red")
    elif state.due:
        text.append("the next call probes", style="yellow")
    elif state.held_for_s:
        text.append(f"held {state.held_for_s:.0f} s", style="yellow")
    elif state.failures and state.state == "closed":
        text.append(f"{state.failures} failed", style="yellow")
    return text


def _rates(scene: DashboardSnapshot, line: GroupSummary | None, wide: bool) -> list[str]:
    """Say a group's calls a minute, success, p50, p95, perhaps tokens a minute, dollars an hour."""
    if line is None or not line.attempts:
        return [""] * (7 if wide else 5)
    minutes = scene.rates.span_s / 60
    ok = line.success_rate
    p50, p95 = (line.percentile("latency_ms", share) for share in (50, 95))
    tokens = [short(round(line.sums[kind] / minutes)) for kind in ("input_tokens", "output_tokens")]
    return [
        f"{line.calls / minutes:.3g}",
        "" if ok is None else f"{ok:.0%}",
        *("" if ms is None else _duration(ms) for ms in (p50, p95)),
        *(tokens if wide else []),
        dollars(line.cost_usd * _per_hour(scene)) + ("+?" if line.sums["unpriced"] else ""),
    ]


def _per_hour(scene: DashboardSnapshot) -> Decimal:
    return Decimal(3600) / Decimal(scene.rates.span_s)


def _duration(ms: int) -> str:
    return f"{ms} ms" if ms < 1000 else f"{ms / 1000:.3g} s"


def _errors(line: GroupSummary | None) -> str:
    return ", ".join(f"{error} {n}" for error, n in (+line.errors).most_common(3)) if line else ""


def _served(scene: DashboardSnapshot, queue: Queue) -> Text:
    text = Text()
    if queue.paused:
        text.append(f"paused by {plain(queue.paused.who)} ", style="yellow")
    if queue.parked:
        left_s = max(0.0, (queue.parked.until_ms - scene.fleet.now_ms) / 1000)
        text.append(f"parked {left_s:.0f} s: {plain(queue.parked.why)} ", style="red")
    if queue.depth and not queue.consumers:
        text.append("no worker ", style="red")
    serving = scene.rates.serving.get(queue.role)
    if serving:
        shares = [f"{name} {n / serving.total():.0%}" for name, n in serving.most_common(3)]
        text.append(", ".join(shares))
    return text


def _events(events: Iterable[Event], now_ms: int, width: int) -> Iterable[Text]:
    for event in events:
        line = Text(f"{age((now_ms - event.at_ms) / 1000):>6} ago  ", style="dim")
        line.append(plain(event.text), style=event.colour or "default")
        line.truncate(width, overflow="ellipsis")
        yield line
