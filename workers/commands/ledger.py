"""`breakwater ledger`: sum up, export and maintain the ledger."""

import time
from pathlib import Path
from typing import Annotated

import typer

from breakwater.redis.batches import batches
from breakwater.redis.connection import client
from tasks.ledger import row_spool
from tasks.ledger.database import Database
from tasks.ledger.drain import BATCH_SIZE, Drainer
from tasks.ledger.sums import DAY_MS
from workers.commands.ledger_reports import export_, summary
from workers.terminal.console import fail, group, out, usable_redis_url
from workers.terminal.figures import at_utc, number_of, seconds

cli = group(no_args_is_help=True, help_text="Sum up, export and maintain the ledger.")
cli.command()(summary)
cli.command("export")(export_)


@cli.command()
def drain() -> None:
    """
    Move the attempts that wait in Redis to the database now.

    A running worker does so all the time; use this when none runs. LEDGER_URL must be
    the same as the workers'.
    """
    drained = Drainer(client(usable_redis_url()), Database).drain()
    if drained is None:
        fail("a worker is draining at this moment; it moves every attempt")
    out.print(f"drained {drained}")


@cli.command("import")
def import_(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="JSON Lines files; default: all in SPOOL_DIR.")
    ] = None,
) -> None:
    """
    Add attempts from files to the database, each once.

    Workers keep attempts on disk if Redis does not take them. Files of SPOOL_DIR are
    deleted afterwards; files named here are not.
    """
    number = 0
    with Database() as database:
        for path in paths or row_spool.files():
            rows = batches(row_spool.rows_in(path), BATCH_SIZE)
            number += sum(database.add(batch) for batch in rows)
            if not paths:
                path.unlink()
    out.print(f"imported {number}")


@cli.command()
def prune(
    older_than: Annotated[
        float, typer.Option("--older-than", parser=seconds, metavar="AGE", help="Such as 90d.")
    ],
) -> None:
    """
    Delete whole days (UTC) that are older, for good.

    Both their attempts and their sums.
    """
    before_ms = round((time.time() - older_than) * 1000)
    with Database(create=False) as database:
        pruned = database.prune(before_ms)
    first_kept = at_utc(before_ms // DAY_MS * DAY_MS)
    out.print(f"deleted {number_of(pruned, 'attempt')} before {first_kept}")
