"""Draw `breakwater top`: from 80 columns and 24 lines up; more room shows more."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
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
from workers.commands.ledger_reports import cost
from workers.commands.queues import ANY_ROLE, oldest
from workers.terminal.console import COLOURS
from workers.terminal.figures import age, dollars, short
from workers.terminal.plain import plain

WIDE_COLUMNS = 120
"""From this width on there are also tokens, errors and the address of Redis."""
MIN_EVENTS = 4
MIN_PROVIDERS = MIN_QUEUES = 3
HEAD_LINES = 6
"""Lines that are not rows: the head, the heads of two tables, blank lines."""

Provider = tuple[str, BreakerState | None]


def draw(snapshot: DashboardSnapshot, width: int, height: int) -> RenderableType:
    """Draw the fleet on a screen of this many columns and lines."""
    is_wide = width >= WIDE_COLUMNS
    providers, queues = _choose_rows(snapshot, height)
    rows = HEAD_LINES + len(providers) + len(queues)
    events = snapshot.events[: max(MIN_EVENTS, height - rows - 1)]
    return Group(
        _head(snapshot, width),
        Text(),
        _provider_table(snapshot, providers, is_wide),
        Text(),
        _role_table(snapshot, queues, is_wide),
        Text(),
        *_events(events, snapshot.fleet.now_ms, width),
    )


def _choose_rows(snapshot: DashboardSnapshot, height: int) -> tuple[list[Provider], list[Queue]]:
    """
    Choose the rows for which there is room, those in trouble first.

    The chosen rows are sorted by name: a row stays in place while its numbers change.
    """
    providers, queues = _providers(snapshot), _queues(snapshot)
    room = height - HEAD_LINES - MIN_EVENTS
    if len(providers) + len(queues) > room:
        providers = providers[: max(MIN_PROVIDERS, room // 2)]
    queues = queues[: max(MIN_QUEUES, room - len(providers))]
    return sorted(providers, key=itemgetter(0)), sorted(queues, key=lambda queue: queue.role)


def _providers(snapshot: DashboardSnapshot) -> list[Provider]:
    """Return the providers, those in trouble first."""
    states = {state.name: state for state in snapshot.breakers}
    providers = [(name, states.get(name)) for name in {*states, *snapshot.rates.providers}]
    return sorted(providers, key=lambda provider: (not _trouble(provider[1]), provider[0]))


def _queues(snapshot: DashboardSnapshot) -> list[Queue]:
    """Return the queues to show, those in trouble first."""
    queues = [
        queue for queue in snapshot.fleet.queues if queue.role or queue.depth or queue.running
    ]
    return sorted(queues, key=lambda queue: (not (queue.parked or queue.paused), queue.role))


def _head(snapshot: DashboardSnapshot, width: int) -> Text:
    workers = snapshot.fleet.workers
    slots = sum(worker.concurrency for worker in workers)
    running = sum(worker.running for worker in workers)
    at = datetime.fromtimestamp(snapshot.fleet.now_ms / 1000, UTC).strftime("%H:%M:%S UTC")
    text = Text.assemble(("breakwater ", "bold"), f"{at}  ")
    text.append(f"{len(workers)} workers", style=_red_if(not workers))
    text.append(f" {running}/{slots} busy  ")
    lines = snapshot.rates.providers.values()
    hour_usd = sum((line.cost_usd for line in lines), start=Decimal(0)) * _per_hour(snapshot)
    if hour_usd:
        text.append(f"${dollars(hour_usd)}/h  ")
    text.append_text(_versions(snapshot))
    if width >= WIDE_COLUMNS:
        text.append(f"  {shown()}")
    if snapshot.rates.missing:
        text.append(f"\n{plain(snapshot.rates.missing)}", style="yellow")
    text.truncate(width * 2)
    return text


def _red_if(is_bad: bool) -> str:
    if is_bad:
        return "red"
    return ""


def _versions(snapshot: DashboardSnapshot) -> Text:
    versions = snapshot.fleet.versions()
    text = Text(plain(f"roles {', '.join(versions)}"))
    if len(versions) > 1:
        text.stylize("yellow")
    return text


def _provider_table(
    snapshot: DashboardSnapshot, providers: Iterable[Provider], is_wide: bool
) -> Table:
    numbers = ["calls/min", "ok", "p50", "p95", "$/h"]
    if is_wide:
        numbers[-1:-1] = ["in/min", "out/min"]
    table = _table("provider", "breaker", "")
    _add_numbers(table, numbers)
    if is_wide:
        table.add_column("errors")
    for name, state in providers:
        line = snapshot.rates.providers.get(name)
        rates = _rates(snapshot, line)
        cells: list[str | Text] = [plain(name), _state(state), _trouble(state)]
        cells += [rates.per_minute, rates.ok, rates.p50, rates.p95]
        if is_wide:
            cells += [rates.tokens_in, rates.tokens_out, rates.usd, _errors(line)]
        else:
            cells.append(rates.usd)
        table.add_row(*cells)
    return table


def _state(state: BreakerState | None) -> Text:
    if state is None:
        return Text()
    return Text(plain(state.state), style=COLOURS.get(state.state, ""))


def _role_table(snapshot: DashboardSnapshot, queues: Iterable[Queue], is_wide: bool) -> Table:
    numbers = ["waiting", "oldest", "running", "calls/min", "p95"]
    if is_wide:
        numbers[-1:] = ["ok", "p95", "$/h"]
    table = _table("role")
    table.expand = True
    _add_numbers(table, numbers)
    table.add_column("state, served by", ratio=1, no_wrap=True)
    for queue in queues:
        rates = _rates(snapshot, snapshot.rates.roles.get(queue.role))
        cells = [plain(queue.role or ANY_ROLE), short(queue.depth), oldest(queue)]
        cells += [str(queue.running), rates.per_minute]
        if is_wide:
            cells += [rates.ok, rates.p95, rates.usd]
        else:
            cells.append(rates.p95)
        table.add_row(*cells, _served(snapshot, queue))
    return table


def _table(*heads: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for head in heads:
        table.add_column(head, no_wrap=True)
    return table


def _add_numbers(table: Table, heads: Iterable[str]) -> None:
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)


def _trouble(state: BreakerState | None) -> Text:
    text = Text()
    if state is None:
        return text
    if state.forced:
        text.append(f"forced {state.forced}", style="yellow")
    elif state.open_for_s:
        text.append(f"{plain(state.reason)} {state.open_for_s:.0f} s", style="red")
    elif state.due:
        text.append("the next call probes", style="yellow")
    elif state.held_for_s:
        text.append(f"held {state.held_for_s:.0f} s", style="yellow")
    elif state.failures and state.state == "closed":
        text.append(f"{state.failures} failed", style="yellow")
    return text


@dataclass(frozen=True, slots=True)
class Rates:
    """The cells of a group: calls and tokens per minute, latencies, dollars per hour."""

    per_minute: str = ""
    ok: str = ""
    p50: str = ""
    p95: str = ""
    tokens_in: str = ""
    tokens_out: str = ""
    usd: str = ""


def _rates(snapshot: DashboardSnapshot, line: GroupSummary | None) -> Rates:
    if line is None or not line.attempts:
        return Rates()
    minutes = snapshot.rates.span_s / 60
    return Rates(
        per_minute=f"{line.calls / minutes:.3g}",
        ok=_percent(line.success_rate),
        p50=_duration(line.percentile("latency_ms", 50)),
        p95=_duration(line.percentile("latency_ms", 95)),
        tokens_in=short(round(line.sums["input_tokens"] / minutes)),
        tokens_out=short(round(line.sums["output_tokens"] / minutes)),
        usd=cost(line, times=_per_hour(snapshot)),
    )


def _per_hour(snapshot: DashboardSnapshot) -> Decimal:
    return Decimal(3600) / Decimal(snapshot.rates.span_s)


def _percent(share: float | None) -> str:
    if share is None:
        return ""
    return f"{share:.0%}"


def _duration(ms: int | None) -> str:
    if ms is None:
        return ""
    if ms < 1000:
        return f"{ms} ms"
    return f"{ms / 1000:.3g} s"


def _errors(line: GroupSummary | None) -> str:
    if line is None:
        return ""
    return ", ".join(f"{error} {number}" for error, number in (+line.errors).most_common(3))


def _served(snapshot: DashboardSnapshot, queue: Queue) -> Text:
    text = Text()
    if queue.paused:
        text.append(f"paused by {plain(queue.paused.who)} ", style="yellow")
    if queue.parked:
        left_s = max(0.0, (queue.parked.until_ms - snapshot.fleet.now_ms) / 1000)
        text.append(f"parked {left_s:.0f} s: {plain(queue.parked.why)} ", style="red")
    if queue.depth and not queue.consumers:
        text.append("no worker ", style="red")
    if serving := snapshot.rates.serving.get(queue.role):
        total = serving.total()
        shares = [f"{plain(name)} {n / total:.0%}" for name, n in serving.most_common(3)]
        text.append(", ".join(shares))
    return text


def _events(events: Iterable[Event], now_ms: int, width: int) -> Iterator[Text]:
    for event in events:
        line = Text(f"{age((now_ms - event.at_ms) / 1000):>6} ago  ", style="dim")
        line.append(plain(event.text), style=event.colour or "default")
        line.truncate(width, overflow="ellipsis")
        yield line
