"""`breakwater operations`: show what operators changed, and when."""

from dataclasses import asdict
from itertools import islice
from typing import Annotated

import typer

from breakwater.messaging.journal import Operation, Operations
from breakwater.redis.connection import client
from workers.terminal.console import AsJson, out, print_json, usable_redis_url
from workers.terminal.figures import at_utc, seconds
from workers.terminal.table import Table


def operations(
    since: Annotated[
        float | None, typer.Option(parser=seconds, metavar="AGE", help="Such as 30m or 7d.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """
    Show what operators did, newest first.

    The newest 10,000 of: pause, resume, drain, reload, cancel, dead retry, dead drop,
    and breakers overridden by hand. Who: BREAKWATER_WHO, else user@host.
    """
    newest = Operations(client(usable_redis_url())).find(since_s=since)
    entries = [*islice(newest, count)]
    if as_json:
        print_json([asdict(entry) for entry in entries])
        return
    if not entries:
        out.print("no operation")
        return
    table = Table("at (UTC)", "who", "what", "to", "")
    for entry in entries:
        why = entry.details.get("why", "")
        table.add(at_utc(entry.at_ms), entry.who, entry.what, _targets(entry), why)
    out.print(table)


def _targets(operation: Operation) -> str:
    listed = ", ".join(operation.targets)
    more = operation.number - len(operation.targets)
    if more > 0:
        return f"{listed} and {more} more"
    return listed
