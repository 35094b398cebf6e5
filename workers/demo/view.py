"""How the demo is shown: live panels in a terminal, plain lines anywhere else."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any, Literal

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from breaker import BreakerState
from tasks.config import BreakerSettings
from workers.demo.stage import ROLES, Scene, View
from workers.terminal.console import COLOURS

LEAST = (80, 24)
"""Columns and lines; a smaller terminal gets the lines."""
WIDEST = 120
LEFT = 38
"""Columns of the panel of answers by role."""


@contextmanager
def view(console: Console) -> Iterator[View]:
    """Choose how to show the story."""
    if is_live(console):
        with Live(console=console, screen=True, auto_refresh=False) as live:
            yield Panels(live)
    else:
        yield Lines(console)


def is_live(console: Console) -> bool:
    """Tell whether there is a terminal that can hold the panels."""
    wide, high = console.size
    fits = wide >= LEAST[0] and high >= LEAST[1]
    return console.is_terminal and not console.is_dumb_terminal and fits


class Lines:
    """The story as lines, each with its time."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.told = 0

    def chapter(self, at_s: float, line: str) -> None:
        """Print the line."""
        self.note(at_s, line)

    def note(self, at_s: float, line: str) -> None:
        """Print the line."""
        self.console.print(f"[dim]{at_s:5.1f} s[/]  {line}")

    def show(self, scene: Scene) -> None:
        """Print the transitions that are new."""
        for event in scene.events[self.told :]:
            arrow = f"{event['from']} → [{COLOURS[event['to']]}]{event['to']}[/]"
            why = f"({event['reason']}, failures {event['failures']})"
            self.note(scene.at_s, f"  breaker {event['name']}: {arrow} {why}")
        self.told = len(scene.events)


class Panels:
    """The story as it happens, on one screen."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.headline = ""

    def chapter(self, at_s: float, line: str) -> None:
        """Head the screen with the line."""
        self.headline = line

    def note(self, at_s: float, line: str) -> None:
        """Leave it to the panels."""

    def show(self, scene: Scene) -> None:
        """Draw the screen anew."""
        wide, high = self.live.console.size
        wide = min(wide, WIDEST)
        breakers = 3 + len(scene.settings.providers)
        middle = 3 + len(ROLES)
        last = high - breakers - middle - 3
        screen = Group(
            Text.from_markup(f" [bold]Breakwater[/]  {self.headline}"),
            _framed("breakers", _breakers(scene), wide, breakers),
            _side_by_side(scene, wide, middle),
            _framed("last answers", _last(scene, last - 3, wide), wide, last),
            _status(scene),
        )
        self.live.update(screen, refresh=True)


def _framed(title: str, inside: RenderableType, wide: int, high: int) -> Panel:
    return Panel(
        inside, title=f"[bold]{title}[/]", title_align="left", box=box.ROUNDED,
        border_style="bright_black", width=wide, height=high, padding=(0, 1),
    )  # fmt: skip


def _side_by_side(scene: Scene, wide: int, high: int) -> Table:
    both = Table.grid()
    both.add_row(
        _framed("answers", _answers(scene), LEFT, high),
        _framed("transitions", _transitions(scene, high - 2), wide - LEFT, high),
    )
    return both


def _table(*headers: str, widths: tuple[int, ...] = (), numbers: tuple[str, ...] = ()) -> Table:
    """Make a table whose first columns keep their widths, so that nothing moves about."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bright_black")
    for header, width in zip_longest(headers, widths):
        align: Literal["right", "left"] = "right" if header in numbers else "left"
        table.add_column(header, justify=align, width=width, no_wrap=True, overflow="ellipsis")
    return table


def _breakers(scene: Scene) -> Table:
    table = _table("provider", "state", "failures", "", widths=(10, 12, 9))
    for name, provider in scene.settings.providers.items():
        state, rules = scene.states.get(name), provider.breaker
        model = Text(provider.model, style="bright_black")
        if state is None:
            table.add_row(name, "[bright_black]● closed", _dots(0, rules.fail_max), model)
            continue
        table.add_row(
            f"[bold]{name}",
            f"[{COLOURS[state.state]}]● {state.state}",
            _dots(state.failures, rules.fail_max, "red"),
            _outlook(state, rules) or model,
        )
    return table


def _outlook(state: BreakerState, rules: BreakerSettings) -> str:
    """Say what the breaker waits for."""
    if state.state == "open" and not state.open_for_s:
        return "[yellow]the next prompt is a probe"
    if state.state == "open":
        whole = max(rules.reset_timeout_s, state.open_for_s)
        left = round(20 * state.open_for_s / whole)
        bar = f"[red]{'━' * left}[/][bright_black]{'─' * (20 - left)}[/]"
        return f"{bar} probes in {state.open_for_s:3.1f} s"
    if state.state == "half-open":
        needed = rules.success_threshold
        return f"{_dots(state.successes, needed, 'green')} {state.successes} of {needed} probes"
    if state.held_for_s:
        return f"[yellow]held back by Retry-After for {state.held_for_s:3.1f} s"
    return ""


def _dots(full: int, of: int, colour: str = "bright_black") -> str:
    full = min(full, of)
    return f"[{colour}]{'●' * full}[/][bright_black]{'○' * (of - full)}[/]"


def _answers(scene: Scene) -> Table:
    providers = list(scene.settings.providers)
    count = Counter((answer["role"], answer["provider"]) for answer in scene.answers)
    table = _table("role", *providers, widths=(9,), numbers=tuple(providers))
    for role in ROLES:
        cells = [str(count[role, name] or "[bright_black]·[/]") for name in providers]
        table.add_row(role, *cells)
    return table


def _transitions(scene: Scene, rows: int) -> RenderableType:
    if not scene.events:
        return "[bright_black]none yet"
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(width=5, no_wrap=True)
    table.add_column(min_width=max(map(len, scene.settings.providers)), no_wrap=True)
    table.add_column()
    for event in scene.events[-rows:]:
        at_s = (int(event["at_ms"]) - scene.began_ms) / 1000
        told = {
            "open": f"opens: {event['reason']}",
            "half-open": "half-open: probing",
            "closed": f"closes: {event['reason']}",
        }[event["to"]]
        table.add_row(
            f"[bright_black]{at_s:5.1f}", event["name"], f"[{COLOURS[event['to']]}]{told}"
        )
    return table


def _last(scene: Scene, rows: int, wide: int) -> Table:
    told = ["text"] if wide == WIDEST else []
    widths = (10, 11, 8, 30) if told else (10, 11, 8)
    table = _table("role", "answered by", "took", " why", *told, widths=widths, numbers=("took",))
    for answer in scene.answers[: -rows - 1 : -1]:
        table.add_row(
            answer["role"],
            answer["provider"],
            f"{answer['latency_ms']} ms",
            f" {_why(answer)}",
            *(Text(" ".join(answer["text"].split()), style="bright_black") for _ in told),
        )
    return table


def _why(answer: dict[str, Any]) -> str:
    """Say why this provider was asked, and colour what is out of the ordinary."""
    why = answer["attempts"][-1]["why"]
    if "probing" in why:
        return f"[yellow]{why.partition(',')[0]}: a probe[/]"
    return why if why.startswith("after") else f"[bright_black]{why}[/]"


def _status(scene: Scene) -> Text:
    waiting = sum(scene.waiting.values())
    under_way = max(0, scene.asked - len(scene.answers) - waiting)
    return Text.from_markup(
        f" [bold]{scene.workers}[/] workers   [bold]{waiting}[/] waiting   "
        f"[bold]{under_way}[/] under way   [bold]{len(scene.answers)}[/] of {scene.asked} answered"
        f"   [bright_black]{scene.at_s:.0f} s, Ctrl-C ends[/]"
    )
