"""Show the demo: live panels in a terminal, plain lines anywhere else."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest

from rich import box
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from breaker import BreakerState
from breakwater.result import Result
from tasks.config import BreakerSettings, ProviderSettings
from workers.demo.fleet import ROLES, DemoView, Snapshot
from workers.terminal.console import COLOURS

MIN_COLUMNS, MIN_LINES = 80, 24
"""A smaller terminal shows lines instead of panels."""
MAX_COLUMNS = 120
ANSWERS_COLUMNS = 38
"""The width of the panel of answers by role."""
BAR = 20
GREY = "bright_black"


@contextmanager
def view(console: Console) -> Iterator[DemoView]:
    """Choose how to show the demo."""
    if is_live(console):
        with Live(console=console, screen=True, auto_refresh=False) as live:
            yield Panels(live)
    else:
        yield Lines(console)


def is_live(console: Console) -> bool:
    """Return whether the console is a terminal that has room for the panels."""
    columns, lines = console.size
    fits = columns >= MIN_COLUMNS and lines >= MIN_LINES
    return console.is_terminal and not console.is_dumb_terminal and fits


class Lines:
    """Show the demo as lines, each with its time."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.printed_events = 0

    def chapter(self, at_s: float, line: str) -> None:
        """Print the line."""
        self.note(at_s, line)

    def note(self, at_s: float, line: str) -> None:
        """Print the line."""
        self.console.print(f"[dim]{at_s:5.1f} s[/]  {line}")

    def show(self, snapshot: Snapshot) -> None:
        """Print the transitions that are new."""
        for event in snapshot.events[self.printed_events :]:
            arrow = f"{event['from']} → [{COLOURS[event['to']]}]{event['to']}[/]"
            why = f"({event['reason']}, failures {event['failures']})"
            self.note(snapshot.at_s, f"  breaker {event['name']}: {arrow} {why}")
        self.printed_events = len(snapshot.events)


class Panels:
    """Show the demo on one screen, as it happens."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.headline = ""

    def chapter(self, at_s: float, line: str) -> None:
        """Use the line as the screen's headline."""
        self.headline = line

    def note(self, at_s: float, line: str) -> None:
        """Print nothing: the panels show it."""

    def show(self, snapshot: Snapshot) -> None:
        """Redraw the screen."""
        columns, lines = self.live.console.size
        columns = min(columns, MAX_COLUMNS)
        breakers = 3 + len(snapshot.settings.providers)
        middle = 3 + len(ROLES)
        last = lines - breakers - middle - 3
        screen = Group(
            Text.from_markup(f" [bold]Breakwater[/]  {self.headline}"),
            _framed("breakers", _breakers(snapshot), columns, breakers),
            _side_by_side(snapshot, columns, middle),
            _framed("last answers", _last_answers(snapshot, last - 3, columns), columns, last),
            _status(snapshot),
        )
        self.live.update(screen, refresh=True)


def _framed(title: str, inside: RenderableType, columns: int, lines: int) -> Panel:
    return Panel(
        inside, title=f"[bold]{title}[/]", title_align="left", box=box.ROUNDED,
        border_style=GREY, width=columns, height=lines, padding=(0, 1),
    )  # fmt: skip


def _side_by_side(snapshot: Snapshot, columns: int, lines: int) -> Table:
    both = Table.grid()
    transitions = _transitions(snapshot, lines - 2)
    both.add_row(
        _framed("answers", _answers(snapshot), ANSWERS_COLUMNS, lines),
        _framed("transitions", transitions, columns - ANSWERS_COLUMNS, lines),
    )
    return both


def _table(*headers: str, widths: tuple[int, ...] = (), numbers: tuple[str, ...] = ()) -> Table:
    """Make a table whose first columns have fixed widths, so that they do not move."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style=GREY)
    for header, width in zip_longest(headers, widths):
        justify: JustifyMethod = "right" if header in numbers else "left"
        table.add_column(header, justify=justify, width=width, no_wrap=True, overflow="ellipsis")
    return table


def _breakers(snapshot: Snapshot) -> Table:
    table = _table("provider", "state", "failures", "", widths=(10, 12, 9))
    for name, provider in snapshot.settings.providers.items():
        table.add_row(*_breaker_cells(name, provider, snapshot.states.get(name)))
    return table


def _breaker_cells(
    name: str, provider: ProviderSettings, state: BreakerState | None
) -> tuple[RenderableType, ...]:
    rules, model = provider.breaker, Text(provider.model, style=GREY)
    if state is None:
        return name, f"[{GREY}]● closed", _dots(0, rules.fail_max), model
    return (
        f"[bold]{name}",
        f"[{COLOURS[state.state]}]● {state.state}",
        _dots(state.failures, rules.fail_max, "red"),
        _next_event(state, rules) or model,
    )


def _next_event(state: BreakerState, rules: BreakerSettings) -> str:
    """Describe what the breaker waits for; empty if it is closed and nothing holds it."""
    if state.state == "open" and not state.open_for_s:
        return "[yellow]the next prompt is a probe"
    if state.state == "open":
        whole_s = max(rules.reset_timeout_s, state.open_for_s)
        left = round(BAR * state.open_for_s / whole_s)
        bar = f"[red]{'━' * left}[/][{GREY}]{'─' * (BAR - left)}[/]"
        return f"{bar} probes in {state.open_for_s:3.1f} s"
    if state.state == "half-open":
        needed = rules.success_threshold
        return f"{_dots(state.successes, needed, 'green')} {state.successes} of {needed} probes"
    if state.held_for_s:
        return f"[yellow]held back by Retry-After for {state.held_for_s:3.1f} s"
    return ""


def _dots(full: int, total: int, colour: str = GREY) -> str:
    full = min(full, total)
    return f"[{colour}]{'●' * full}[/][{GREY}]{'○' * (total - full)}[/]"


def _answers(snapshot: Snapshot) -> Table:
    providers = list(snapshot.settings.providers)
    counts = Counter((answer["role"], answer["provider"]) for answer in snapshot.answers)
    table = _table("role", *providers, widths=(9,), numbers=tuple(providers))
    for role in ROLES:
        cells = [str(counts[role, name] or f"[{GREY}]·[/]") for name in providers]
        table.add_row(role, *cells)
    return table


def _transitions(snapshot: Snapshot, rows: int) -> RenderableType:
    if not snapshot.events:
        return f"[{GREY}]none yet"
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(width=5, no_wrap=True)
    table.add_column(min_width=max(map(len, snapshot.settings.providers)), no_wrap=True)
    table.add_column()
    for event in snapshot.events[-rows:]:
        at_s = (int(event["at_ms"]) - snapshot.began_ms) / 1000
        description = {
            "open": f"opens: {event['reason']}",
            "half-open": "half-open: probing",
            "closed": f"closes: {event['reason']}",
        }[event["to"]]
        table.add_row(
            f"[{GREY}]{at_s:5.1f}", event["name"], f"[{COLOURS[event['to']]}]{description}"
        )
    return table


def _last_answers(snapshot: Snapshot, rows: int, columns: int) -> Table:
    heads, widths = ["role", "answered by", "took", " why"], [10, 11, 8]
    shows_text = columns == MAX_COLUMNS
    if shows_text:
        heads.append("text")
        widths.append(30)
    table = _table(*heads, widths=tuple(widths), numbers=("took",))
    for answer in snapshot.answers[: -rows - 1 : -1]:
        cells: list[RenderableType] = [
            answer["role"],
            answer["provider"],
            f"{answer['latency_ms']} ms",
            f" {_why(answer)}",
        ]
        if shows_text:
            cells.append(Text(" ".join(answer["text"].split()), style=GREY))
        table.add_row(*cells)
    return table


def _why(answer: Result) -> str:
    """Return why this provider was called, with a colour if that is unusual."""
    why = answer["attempts"][-1]["why"]
    if "probing" in why:
        return f"[yellow]{why.partition(',')[0]}: a probe[/]"
    if why.startswith("after"):
        return why
    return f"[{GREY}]{why}[/]"


def _status(snapshot: Snapshot) -> Text:
    waiting, answered = sum(snapshot.waiting.values()), len(snapshot.answers)
    running = max(0, snapshot.enqueued - answered - waiting)
    return Text.from_markup(
        f" [bold]{snapshot.workers}[/] workers   [bold]{waiting}[/] waiting   "
        f"[bold]{running}[/] under way   [bold]{answered}[/] of {snapshot.enqueued} answered"
        f"   [{GREY}]{snapshot.at_s:.0f} s, Ctrl-C ends[/]"
    )
