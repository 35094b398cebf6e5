"""`breakwater ledger summary` and `ledger export`; `metrics` is the old name of the group."""

import json
from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Annotated

import typer

from breakwater.errors import nearest
from tasks.ledger.attempt_filter import FOREVER_MS, AttemptFilter
from tasks.ledger.database import Database
from tasks.ledger.export import COLUMNS, export
from tasks.ledger.summary import GROUPS, OUTCOMES, GroupSummary, summarise
from workers.terminal.console import (
    AsJson,
    err,
    group,
    out,
    print_csv,
    print_json,
    print_json_line,
)
from workers.terminal.figures import dollars, moment_ms, short
from workers.terminal.table import Table

OLD_GROUP = group(no_args_is_help=True, help_text="The old name of `ledger summary` and `export`.")

Provider = Annotated[str | None, typer.Option(help="Only attempts of this provider.")]
Model = Annotated[str | None, typer.Option(help="Only attempts of this model.")]
Role = Annotated[str | None, typer.Option(help="Only attempts of this role.")]
Outcome = Annotated[
    str | None, typer.Option(help="Only succeeded, failed, abandoned, rejected or cached.")
]
Since = Annotated[
    int | None,
    typer.Option(parser=moment_ms, metavar="TIME", help="From this time on: 24h, 2026-11-21."),
]
Until = Annotated[
    int | None, typer.Option(parser=moment_ms, metavar="TIME", help="Before this time.")
]
Metadata = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only tasks with this; repeatable.")
]


class SummaryFormat(StrEnum):
    """How a summary is printed."""

    table = "table"
    csv = "csv"
    json = "json"


class ExportFormat(StrEnum):
    """How attempts are printed; json is one object per line."""

    csv = "csv"
    json = "json"


@OLD_GROUP.command()
def summary(  # noqa: PLR0913, PLR0917 - a command's options
    by: Annotated[
        str, typer.Option(help="Any of provider,model,role,outcome,day; empty: one sum.")
    ] = "provider",
    provider: Provider = None,
    model: Model = None,
    role: Role = None,
    outcome: Outcome = None,
    since: Since = None,
    until: Until = None,
    metadata: Metadata = None,
    form: Annotated[
        SummaryFormat, typer.Option("--format", help="How to print it.")
    ] = SummaryFormat.table,
    as_json: AsJson = False,
) -> None:
    """
    Show calls, their outcomes, latencies and costs.

    Percentiles are of answers, in ms, accurate to 1 %. Times are UTC.
    """
    groups = _groups(by)
    where = _where(provider, model, role, outcome, since, until, metadata)
    with Database(create=False) as database:
        lines = summarise(database, groups, where)
    if as_json or form == SummaryFormat.json:
        print_json([line.as_dict(groups) for line in lines])
    elif form == SummaryFormat.csv:
        _print_csv(lines, groups)
    elif lines:
        _print_table(lines, groups)
    elif where == AttemptFilter():
        out.print("no attempts yet")
    else:
        out.print("no attempts match")


@OLD_GROUP.command("export")
def export_(
    provider: Provider = None,
    model: Model = None,
    role: Role = None,
    outcome: Outcome = None,
    since: Since = None,
    until: Until = None,
    metadata: Metadata = None,
    form: Annotated[
        ExportFormat, typer.Option("--format", help="How to print them.")
    ] = ExportFormat.csv,
) -> None:
    """Print attempts, oldest first, as CSV or lines of JSON."""
    where = _where(provider, model, role, outcome, since, until, metadata)
    with Database(create=False) as database:
        rows = export(database, where)
        if form == ExportFormat.json:
            for row in rows:
                print_json_line(row)
        else:
            print_csv(COLUMNS, map(_flat, rows))


def _where(
    provider: str | None,
    model: str | None,
    role: str | None,
    outcome: str | None,
    since_ms: int | None,
    until_ms: int | None,
    metadata: list[str] | None,
) -> AttemptFilter:
    if outcome and outcome not in OUTCOMES:
        known = ", ".join(OUTCOMES)
        raise typer.BadParameter(
            f"unknown outcome {outcome!r}; there are {known}{nearest(outcome, OUTCOMES)}"
        )
    if until_ms is None:
        until_ms = FOREVER_MS
    return AttemptFilter(provider, model, role, outcome, since_ms or 0, until_ms, _pairs(metadata))


def _groups(by: str) -> list[str]:
    groups = [word.strip() for word in by.split(",") if word.strip()]
    for word in groups:
        if word not in GROUPS:
            raise typer.BadParameter(
                f"cannot sum by {word!r}; there are {', '.join(GROUPS)}{nearest(word, GROUPS)}"
            )
    return groups


def _pairs(metadata: list[str] | None) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in metadata or []]
    for key, equals, value in pairs:
        if not (key and equals):
            raise typer.BadParameter(f"{key + equals + value!r} is not KEY=VALUE")
    return {key: value for key, _, value in pairs}


def _flat(row: Mapping[str, object]) -> dict[str, object]:
    """Return a row whose objects are JSON texts, for one cell of CSV each."""
    return {key: _cell(value) for key, value in row.items()}


def _cell(value: object) -> object:
    if isinstance(value, dict):
        return json.dumps(value)
    return value


def _print_csv(lines: list[GroupSummary], groups: list[str]) -> None:
    rows = [_flat(line.as_dict(groups)) for line in lines]
    heads: list[str] = []
    if rows:
        heads = [*rows[0]]
    print_csv(heads, rows)


def _print_table(lines: list[GroupSummary], groups: list[str]) -> None:
    numbers = ("calls", "ok", "failover", "p50", "p95", "p99", "in", "out", "USD")
    table = Table(*groups, *numbers, whole=groups, right=numbers)
    for line in lines:
        table.add(
            *line.group,
            f"{line.calls}",
            _percent(line.success_rate),
            _percent(line.failover_share),
            *(_number(line.percentile("latency_ms", share)) for share in (50, 95, 99)),
            short(line.sums["input_tokens"]),
            short(line.sums["output_tokens"]),
            cost(line),
        )
    out.print(table)
    for line in lines:
        if notes := _notes(line):
            err.print(f"{' '.join(line.group) or 'all'}: {', '.join(notes)}", style="dim")


def _notes(line: GroupSummary) -> list[str]:
    """List the errors of a group, and the attempts that the columns leave out."""
    notes = [f"{error} {number}" for error, number in (+line.errors).most_common()]
    for text, number in (
        ("rejected", line.outcomes["rejected"]),
        ("answered by the cache", line.outcomes["cached"]),
        ("no price known", line.sums["unpriced"]),
    ):
        if number:
            notes.append(f"{text} {number}")
    return notes


def cost(line: GroupSummary, times: Decimal = Decimal(1)) -> str:
    """Format a group's cost, multiplied; `+?` marks calls without a known price."""
    usd = dollars(line.cost_usd * times)
    if line.sums["unpriced"]:
        return f"{usd}+?"
    return usd


def _percent(share: float | None) -> str:
    if share is None:
        return "-"
    return f"{share:.1%}"


def _number(number: int | None) -> str:
    if number is None:
        return "-"
    return str(number)
