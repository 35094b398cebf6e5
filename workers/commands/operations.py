"""`breakwater operations`: who did what, and when."""

from dataclasses import asdict
from itertools import islice
from typing import Annotated

import typer

from breakwater.messaging.journal import Operation, Operations
from breakwater.redis.connection import client
from workers.terminal.console import AsJson, at_utc, out, print_json, seconds, usable_redis_url
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

    Of pause, resume, drain, reload, cancel, dead retry, dead drop, and breakers moved by
    hand, the newest 10,000. Who: BREAKWATER_WHO, else user@host.
    """
    found = [*islice(Operations(client(usable_redis_url())).find(since_s=since), count)]
    if as_json:
        print_json([asdict(each) for each in found])
        return
    table = Table("at (UTC)", "who", "what", "to", "")
    for each in found:
        why = each.details.get("why", "")
        table.add(at_utc(each.at_ms), each.who, each.what, _targets(each), why)
    out.print(table if found else "no operation")


def _targets(operation: Operation) -> str:
    more = operation.number - len(operation.targets)
    return ", ".join(operation.targets) + (f" and {more} more" if more > 0 else "")
