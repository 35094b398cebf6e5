"""`breakwater ledger summary` and `ledger export`; `metrics` is the group's old name."""

import json
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any

import typer

from breakwater.errors import nearest
from tasks.ledger.database import Database
from tasks.ledger.export import COLUMNS, export
from tasks.ledger.summary import (
    FOREVER_MS,
    GROUPS,
    OUTCOMES,
    AttemptFilter,
    GroupSummary,
    summarise,
)
from workers.terminal.console import (
    AsJson,
    err,
    group,
    moment_ms,
    out,
    print_csv,
    print_json,
    print_json_line,
)
from workers.terminal.table import Table

OLD_GROUP = group(no_args_is_help=True, help="The old name of `ledger summary` and `export`.")

Provider = Annotated[str | None, typer.Option(help="Only of this provider.")]
Model = Annotated[str | None, typer.Option(help="Only of this model.")]
Role = Annotated[str | None, typer.Option(help="Only of this role.")]
Outcome = Annotated[
    str | None, typer.Option(help="Only succeeded, failed, abandoned, rejected or cached ones.")
]
Since = Annotated[
    int | None,
    typer.Option(parser=moment_ms, metavar="TIME", help="From then on: 24h, 2026-11-21."),
]
Until = Annotated[int | None, typer.Option(parser=moment_ms, metavar="TIME", help="Before then.")]
Metadata = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="Of tasks with this; repeat.")
]


class Table_(StrEnum):  # noqa: N801 - typer shows the values, not this name
    """How a summary is printed."""

    table = "table"
    csv = "csv"
    json = "json"


class Rows(StrEnum):
    """How rows are printed; json is an object a line."""

    csv = "csv"
    json = "json"


@OLD_GROUP.command()
def summary(  # noqa: PLR0913, PLR0917 - a command's options
    by: Annotated[
        str, typer.Option(help="Some of provider,model,role,outcome,day; empty: all in one.")
    ] = "provider",
    provider: Provider = None,
    model: Model = None,
    role: Role = None,
    outcome: Outcome = None,
    since: Since = None,
    until: Until = None,
    metadata: Metadata = None,
    form: Annotated[Table_, typer.Option("--format", help="How to print it.")] = Table_.table,
    as_json: AsJson = False,
) -> None:
    """
    Show how many calls there were, how they ended, how long they took and what they cost.

    Percentiles are of answers, in ms, within 1 %. Times are UTC.
    """
    groups = _groups(by)
    where = _where(provider, model, role, outcome, since, until, metadata)
    with Database(create=False) as database:
        lines = summarise(database, groups, where)
    if as_json or form == Table_.json:
        print_json([line.as_dict(groups) for line in lines])
    elif form == Table_.csv:
        rows = [_flat(line.as_dict(groups)) for line in lines]
        print_csv(rows[0] if rows else (), rows)
    elif lines:
        _print_table(lines, groups)
    else:
        out.print("no attempts" + (" like that" if where != AttemptFilter() else " yet"))


@OLD_GROUP.command("export")
def export_(
    provider: Provider = None,
    model: Model = None,
    role: Role = None,
    outcome: Outcome = None,
    since: Since = None,
    until: Until = None,
    metadata: Metadata = None,
    form: Annotated[Rows, typer.Option("--format", help="How to print them.")] = Rows.csv,
) -> None:
    """Print attempts, the oldest first: as CSV, or JSON with an object a line."""
    where = _where(provider, model, role, outcome, since, until, metadata)
    with Database(create=False) as database:
        rows = export(database, where)
        if form == Rows.json:
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
        raise typer.BadParameter(
            f"no outcome {outcome!r}; there are {', '.join(OUTCOMES)}{nearest(outcome, OUTCOMES)}"
        )
    until_ms = FOREVER_MS if until_ms is None else until_ms
    return AttemptFilter(provider, model, role, outcome, since_ms or 0, until_ms, _pairs(metadata))


def _groups(by: str) -> list[str]:
    groups = [word.strip() for word in by.split(",") if word.strip()]
    for word in groups:
        if word not in GROUPS:
            raise typer.BadParameter(
                f"cannot sum by {word!r}; there are {', '.join(GROUPS)}{nearest(word, GROUPS)}"
            )
    return groups


def _pairs(given: list[str] | None) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in given or []]
    for key, equals, value in pairs:
        if not (key and equals):
            raise typer.BadParameter(f"{key + equals + value!r} is not KEY=VALUE")
    return {key: value for key, _, value in pairs}


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: json.dumps(value) if isinstance(value, dict) else value for key, value in row.items()
    }


def _print_table(lines: list[GroupSummary], groups: list[str]) -> None:
    numbers = ("calls", "ok", "failover", "p50", "p95", "p99", "in", "out", "USD")
    table = Table(*groups, *numbers, whole=groups, right=numbers)
    for line in lines:
        table.add(
            *line.group,
            f"{line.calls}",
            _share(line.success_rate),
            _share(line.failover_share),
            *(_ms(line.percentile("latency_ms", share)) for share in (50, 95, 99)),
            short(line.sums["input_tokens"]),
            short(line.sums["output_tokens"]),
            dollars(line.cost_usd) + ("+?" if line.sums["unpriced"] else ""),
        )
    out.print(table)
    for line in lines:
        told = [f"{error} {number}" for error, number in (+line.errors).most_common()]
        if line.outcomes["rejected"]:
            told.append(f"rejected {line.outcomes['rejected']}")
        if line.outcomes["cached"]:
            told.append(f"answered by the cache {line.outcomes['cached']}")
        if line.sums["unpriced"]:
            told.append(f"no price known {line.sums['unpriced']}")
        if told:
            err.print(f"{' '.join(line.group) or 'all'}: {', '.join(told)}", style="dim")


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _ms(ms: int | None) -> str:
    return "-" if ms is None else f"{ms}"


def dollars(usd: Decimal) -> str:
    """Say an amount: to the cent, or its first digits if it is less than a dollar."""
    return f"{usd:.2f}" if usd >= 1 or not usd else f"{usd:.4f}"


def short(number: int) -> str:
    """Say a number in a few digits: 12345 is 12.3k."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (1000, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)
