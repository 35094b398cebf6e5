"""
The pages that show results: `python -m benchmarks.report` writes them from `benchmarks/results`.

`docs/benchmarks.md` and the README keep their words; what stands between marks is generated.
"""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.plot import Bar, Panel, svg
from benchmarks.rivals.catalogue import BASE, BY_NAME, RIVALS
from benchmarks.rivals.experiment import MODELS

ROOT = Path(__file__).parents[1]
PAGE, PICTURE, README = (
    ROOT / name for name in ("docs/benchmarks.md", "docs/benchmarks.svg", "README.md")
)
OURS = "breakwater"
TOP = (OURS, BASE, "taskiq", "litellm-tuned", "pydantic-ai", "langchain")
"""Who stands in the README."""
FEW, MANY = 200, 1000
HOLDS = 0.95
NOTHING = TO = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"
Runs = Sequence[dict[str, Any]]


def main() -> None:
    """Write the pages."""
    for path, text in pages().items():
        path.write_text(text)


def pages() -> dict[Path, str]:
    """Return what the pages should say."""
    load, outage = results.read("load"), results.read("outage")
    parts = {
        "machine": _machine(load),
        "cpu": f"{_cpu(load['runs'], FEW)}\n{_cpu(load['runs'], MANY)}",
        "memory": _memory(load["runs"]),
        "limit": _limit(load["runs"]),
        "outage": _outage(outage["runs"]),
        "trip": _trips(outage["runs"]),
        "summary": _summary(load["runs"], outage["runs"]),
    }
    page, readme = PAGE.read_text(), README.read_text()
    for name, text in parts.items():
        page, readme = _put(page, name, text), _put(readme, name, text)
    return {PAGE: page, README: readme, PICTURE: _picture(load["runs"], outage["runs"])}


def _put(page: str, name: str, text: str) -> str:
    """Put a text between its marks, if the page has them."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
    before, mark, rest = page.partition(begin)
    return f"{before}{begin}{text}{end}{rest.partition(end)[2]}" if mark else page


def _machine(load: dict[str, Any]) -> str:
    about = load["about"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    others = statistics.median(run["cores"].get("others", 0.0) for run in load["runs"])
    return (
        f"Measured on {about['date']}: {about['cores']} cores ({about['cpu']}), {about['system']}, "
        f"Python {about['python']}; {versions}. The rivals' versions are in "
        f"`benchmarks/rivals/requirements/`. Other work on the machine took {others:.1f} cores "
        f"meanwhile, at the median.\n"
    )


def _table(head: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    names = list(head)
    lines = [names, ["---"] * len(names), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _of(runs: Runs, **wanted: object) -> list[dict[str, Any]]:
    return [run for run in runs if all(run[name] == value for name, value in wanted.items())]


def against(runs: Runs, figure: str, rival: str, **wanted: object) -> list[float]:
    """Return a rival's figures, each as a share of bare Celery's in the same turn."""
    base = {run["turn"]: run[figure] for run in _of(runs, rival=BASE, **wanted)}
    mine = _of(runs, rival=rival, **wanted)
    return [run[figure] / base[run["turn"]] for run in mine if run["turn"] in base]


def _cell(runs: Runs, figure: str, unit: str, rival: str, **wanted: object) -> str:
    """Say how a rival compares: the median, its spread, and the plain figure."""
    ratios = against(runs, figure, rival, **wanted)
    if not ratios:
        return NOTHING
    plain = statistics.median(run[figure] for run in _of(runs, rival=rival, **wanted))
    shown = f"{plain:.0f}" if plain >= 20 else f"{plain:.1f}"
    if rival == BASE:
        return f"1 · {shown} {unit}"
    return f"**{statistics.median(ratios):.2f}**{_spread(ratios, '.2f')} · {shown} {unit}"


def _cpu(runs: Runs, calls: int) -> str:
    head = [f"CPU a completion, {calls:,} in flight", *MODELS]
    rows = [
        [
            rival.title,
            *(_cell(runs, "cpu_ms", "ms", rival.name, adapter=a, calls=calls) for a in MODELS),
        ]
        for rival in RIVALS
        if _of(runs, rival=rival.name, calls=calls)
    ]
    return _table(head, rows)


def _memory(runs: Runs) -> str:
    head = [f"Memory, {MANY:,} in flight", *MODELS, "rate, of the ideal", "really in flight"]
    rows = []
    for rival in RIVALS:
        mine = _of(runs, rival=rival.name, calls=MANY, adapter="openai")
        if mine:
            memory = [
                _cell(runs, "proportional_mb", "MB", rival.name, calls=MANY, adapter=adapter)
                for adapter in MODELS
            ]
            held = f"{_median(mine, 'in_flight'):,.0f}"
            rows.append([rival.title, *memory, _share(mine, "of_ideal"), held])
    return _table(head, rows)


def _median(runs: Runs, figure: str) -> float:
    return float(statistics.median(run[figure] for run in runs))


def _share(runs: Runs, figure: str) -> str:
    values = [run[figure] for run in runs]
    return f"{statistics.median(values):.0%}{_spread(values, '.0%')}"


def _spread(values: Sequence[float], form: str) -> str:
    """Say from where to where, if there is more than one."""
    low, high = (format(end, form) for end in (min(values), max(values)))
    return f" ({low}{TO}{high})" if len(values) > 1 else ""


def _limit(runs: Runs) -> str:
    """Tell how many calls at once one process holds."""
    runs, rows = _of(runs, adapter="openai"), []
    for rival in RIVALS:
        tried = sorted({run["calls"] for run in _of(runs, rival=rival.name)})
        shares = {n: _median(_of(runs, rival=rival.name, calls=n), "of_ideal") for n in tried}
        held = [n for n in tried if shares[n] >= HOLDS]
        if tried and tried[-1] > MANY:
            all_tried = ", ".join(f"{n:,}: {share:.0%}" for n, share in shares.items() if n >= MANY)
            rows.append([rival.title, f"{max(held, default=0):,}", all_tried])
    return _table(
        ["one process", f"holds {HOLDS:.0%} up to", "rate of the ideal, by calls at once"], rows
    )


def _outage(runs: Runs) -> str:
    ways = list(dict.fromkeys(run["way"] for run in runs if run["way"] != "alone"))
    rows = [
        [BY_NAME[name].title, *(_way(_of(runs, rival=name), way) for way in ways)]
        for name in BY_NAME
        if _of(runs, rival=name)
    ]
    return _table(["first provider is dead:", *ways], rows)


def _way(runs: Runs, way: str) -> str:
    """Say what one way to be dead cost one rival."""
    mine = _of(runs, way=way)
    if not mine:
        return NOTHING
    alone_s = {run["turn"]: run["p50_s"] for run in _of(runs, way="alone")}
    slower = statistics.median(run["p50_s"] / alone_s[run["turn"]] for run in mine)
    lost = max(run["lost"] for run in mine)
    calls = [run["dead_calls"] for run in mine if run["dead_calls"] is not None]
    return (
        f"**{max(calls) if calls else NOTHING}** calls · p50 {slower:.2f}{TIMES} · "
        f"p99 {_median(mine, 'p99_s'):.1f} s" + f" · **{lost} lost**" * bool(lost)
    )


def _trips(runs: Runs) -> str:
    ours = [run for run in _of(runs, rival=OURS) if "last_call_ms" in run]
    rows = [
        [
            way,
            str(max(run["dead_calls"] for run in mine)),
            str(max(run["in_flight_at_trip"] for run in mine)),
            f"{max(0.0, *(run['last_call_ms'] for run in mine)):.0f} ms",
        ]
        for way in dict.fromkeys(run["way"] for run in ours)
        if (mine := _of(ours, way=way))
    ]
    return _table(
        ["way", "calls to the dead one", "of them in flight at the trip", "last one began"], rows
    )


def _summary(load: Runs, outage: Runs) -> str:
    head = [
        "asking OpenAI",
        f"CPU a completion, {FEW:,} in flight",
        f"CPU a completion, {MANY:,} in flight",
        f"memory, {MANY:,} in flight",
        f"calls to a dead provider (503), {outage[0]['prompts']} prompts",
    ]
    rows = [
        [
            BY_NAME[name].title,
            _cell(load, "cpu_ms", "ms", name, calls=FEW, adapter="openai"),
            _cell(load, "cpu_ms", "ms", name, calls=MANY, adapter="openai"),
            _cell(load, "proportional_mb", "MB", name, calls=MANY, adapter="openai"),
            _dead_calls(outage, name),
        ]
        for name in TOP
        if _of(load, rival=name, calls=MANY)
    ]
    return _table(head, rows)


def _dead_calls(outage: Runs, name: str) -> str:
    calls = [run["dead_calls"] for run in _of(outage, rival=name, way="503")]
    return str(round(statistics.median(calls))) if calls else NOTHING


def _picture(load: Runs, outage: Runs) -> str:
    many = _of(load, calls=MANY, adapter="openai")
    return svg(
        [
            _bars(f"CPU a completion, ms, {MANY:,} calls in flight", many, "cpu_ms", "{:.1f} ms"),
            _bars("memory of that worker, MB", many, "proportional_mb", "{:.0f} MB"),
            _bars(
                f"calls to a dead provider (503), {outage[0]['prompts']} prompts",
                _of(outage, way="503"), "dead_calls", "{:.0f}",
            ),
        ]
    )  # fmt: skip


def _bars(title: str, runs: Runs, figure: str, form: str) -> Panel:
    bars = []
    for rival in RIVALS:
        values = [run[figure] for run in _of(runs, rival=rival.name)]
        if values:
            middle = statistics.median(values)
            bars.append(Bar(rival.title, values, middle, form.format(middle), rival.name == OURS))
    return Panel(title, bars)


if __name__ == "__main__":
    main()
