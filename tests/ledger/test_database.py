"""The ledger's database stores each row once, and its sums equal those of the rows."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, event, inspect, text
from sqlalchemy.exc import DBAPIError

from breakwater.attempt import UNCOUNTED, Cost
from breakwater.errors import ConfigError
from tasks.ledger.attempt_filter import AttemptFilter
from tasks.ledger.database import IDS_MULTIPLE, Database
from tasks.ledger.export import export
from tasks.ledger.summary import GROUPS, summarise
from tasks.ledger.tables import METADATA, SCHEMA, versions
from tests.support.ledger_rows import DAY_MS, START_MS, abandoned, random_rows, row
from tests.support.spawner import spawn

MIGRATIONS = Path(__file__).parents[2] / "tasks/ledger/migrations"


def rows_of(database: Database) -> list[dict[str, Any]]:
    return list(export(database, AttemptFilter()))


def sums_of(database: Database) -> list[dict[str, Any]]:
    """By days, and by rows: a filter by metadata reads each row."""
    return [line.as_dict(GROUPS) for line in summarise(database, GROUPS, AttemptFilter())]


def test_a_row_comes_back_as_it_was(database: Database) -> None:
    """Costs are exact to the last digit, and metadata is an object."""
    database.add([row("t", metadata={"team": "a", "n": 5}, request_id="r-1", place=1)])

    (stored,) = rows_of(database)

    assert stored["task_id"] == "t"
    assert (stored["cost_usd"], stored["price_source"], stored["price_version"]) == (
        "0.000123", "genai-prices", "1",
    )  # fmt: skip
    assert (stored["metadata"], stored["failover"]) == ({"team": "a", "n": 5}, 1)
    assert (stored["request_id"], stored["first_token_ms"]) == ("r-1", None)


def test_tokens_that_the_provider_did_not_count_are_null(database: Database) -> None:
    """In the row and in its export; sums add the counts that exist."""
    started = {"started_ms": START_MS + DAY_MS // 2}
    database.add([row("t1", usage=UNCOUNTED, cost=Cost(), **started), row("t2", **started)])

    stored = {each["task_id"]: each for each in export(database, AttemptFilter())}
    whole_days = summarise(database, ["provider"], AttemptFilter())
    since = summarise(database, ["provider"], AttemptFilter(since_ms=START_MS + 1))

    assert [stored[task]["input_tokens"] for task in ("t1", "t2")] == [None, 10]
    assert whole_days[0].sums["input_tokens"] == since[0].sums["input_tokens"] == 10
    assert database.add([row("t1", usage=UNCOUNTED, cost=Cost(), **started)]) == 0


def test_batches_of_different_lengths_share_a_statement(database: Database) -> None:
    """Drivers cache statements: 12 MB of them, when each length had its own."""
    statements: set[str] = set()
    event.listen(database.engine, "before_cursor_execute", lambda *args: statements.add(args[2]))

    for length in range(1, 2 * IDS_MULTIPLE, 7):
        assert database.add([row(f"{length}-{at}") for at in range(length)]) == length

    assert len([each for each in statements if "task_id IN" in each]) == 2


def test_a_row_that_arrives_again_changes_nothing(database: Database) -> None:
    """Whether it arrives twice in one batch or in two."""
    rows = random_rows(50, 1)
    new = database.add(rows)
    sums = sums_of(database)

    again = database.add([*rows, *rows])

    assert (new, again) == (50, 0)
    assert (len(rows_of(database)), sums_of(database)) == (50, sums)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("late", [True, False])
def test_the_outcome_of_a_call_replaces_its_abandoned_row(
    database: Database, together: bool, late: bool
) -> None:
    """In any order of arrival; the sums no longer count the abandoned call."""
    rows = [abandoned(), row()] if late else [row(), abandoned()]
    for batch in [rows] if together else [[each] for each in rows]:
        database.add(batch)

    assert [stored["outcome"] for stored in rows_of(database)] == ["succeeded"]
    assert [(line["outcome"], line["attempts"]) for line in sums_of(database)] == [("succeeded", 1)]


def test_an_id_that_is_queued_again_later_keeps_both_histories(database: Database) -> None:
    """After its result has expired, its attempts are counted from 1 again."""
    database.add([row("t"), row("t", started_ms=START_MS + 3 * DAY_MS)])

    assert len(rows_of(database)) == 2


def test_an_invalid_row_is_dropped_alone(database: Database) -> None:
    """Anybody may write to the stream; the valid rows beside it are stored."""
    good = json.loads(row("good"))
    bad = [
        "", "[]", "{", "{}", json.dumps({**good, "attempt": "x"}),
        json.dumps({**good, "cost_usd": "money"}), json.dumps({**good, "started_ms": None}),
    ]  # fmt: skip

    added = database.add([*bad, row("good")])

    assert added == 1
    assert [stored["task_id"] for stored in rows_of(database)] == ["good"]


def test_numbers_and_words_out_of_range_do_not_stop_the_others(database: Database) -> None:
    """A provider may send any count."""
    mad = json.loads(row("mad"))
    mad |= {"input_tokens": 10**30, "output_tokens": -5, "model": "x" * 9999, "why": "a\x00b"}

    database.add([json.dumps(mad), row("good")])

    assert "good" in [stored["task_id"] for stored in rows_of(database)]


def test_pruning_takes_whole_days_and_their_sums(database: Database) -> None:
    """Younger days stay as they are."""
    rows = random_rows(90, 2)
    database.add(rows)
    kept = [each for each in rows if json.loads(each)["started_ms"] >= START_MS + DAY_MS]

    pruned = database.prune(START_MS + DAY_MS + 5)

    assert pruned == 90 - len(kept)
    assert len(rows_of(database)) == len(kept)
    assert sum(line["attempts"] for line in sums_of(database)) == len(kept)


def test_a_ledger_that_was_pruned_meanwhile_is_added_to(url: str) -> None:
    """Another process has deleted sums that this one remembers."""
    rows = random_rows(60, 4)
    with Database(url) as database, Database(url) as other:
        database.add(rows)
        other.prune(START_MS + 2 * DAY_MS)
        database.add(rows)

        assert len(rows_of(database)) == 60
        assert sum(line["attempts"] for line in sums_of(database)) == 60


ADD = """
import sys
from tasks.ledger.database import Database
from tests.support.ledger_rows import random_rows
with Database(sys.argv[1]) as database:
    rows = random_rows(400, 7)
    for at in range(0, 400, 20):
        database.add(rows[at : at + 20])
"""


@pytest.mark.slow
def test_processes_that_add_the_same_at_once_count_it_once(url: str) -> None:
    """Also the first rows of a day, and a ledger that does not exist yet."""
    adding = [spawn([sys.executable, "-c", ADD, url]) for _ in range(4)]

    assert [process.wait(180) for process in adding] == [0, 0, 0, 0]
    with Database(url) as database:
        assert len(rows_of(database)) == 400
        assert sum(line["attempts"] for line in sums_of(database)) == 400


def migrate(engine: Engine, version: str) -> None:
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, version)


@pytest.fixture
def first_schema(url: str) -> str:
    """A ledger of the first version, with rows and without sums."""
    engine = create_engine(url)
    migrate(engine, "0001")
    with Database("sqlite://") as source, engine.begin() as connection:
        source.add(random_rows(200, 3))
        with source.reading() as reading:
            rows = reading.execute(text("SELECT * FROM attempts")).mappings().all()
        names = list(rows[0])
        connection.execute(
            text(f"INSERT INTO attempts ({', '.join(names)}) VALUES (:{', :'.join(names)})"),
            [dict(each) for each in rows],
        )
    engine.dispose()
    return url


def test_an_older_ledger_is_migrated(first_schema: str) -> None:
    """The sums of its rows are added."""
    with Database("sqlite://") as fresh:
        fresh.add(random_rows(200, 3))
        wanted = sums_of(fresh)

    with Database(first_schema) as database:
        assert sums_of(database) == wanted
        assert database.add(random_rows(200, 3)) == 0


@pytest.mark.parametrize("by", ["migrations", "worker"])
def test_the_tables_are_those_of_the_newest_migration(url: str, by: str) -> None:
    """Migrations and a new ledger create the same tables, which are those of the code."""
    engine = create_engine(url)
    if by == "migrations":
        migrate(engine, "head")
    Database(url).close()
    with engine.begin() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), METADATA)
        version = MigrationContext.configure(connection).get_current_revision()
    engine.dispose()
    scripts = ScriptDirectory(str(MIGRATIONS))

    assert scripts.get_current_head() == SCHEMA == version
    assert differences == []


def test_a_new_ledger_is_made_without_alembic(url: str) -> None:
    """Alembic takes 10 MB, in a worker that runs for weeks."""
    code = (
        "import sys; from tasks.ledger.database import Database; Database(sys.argv[1]).close();"
        "sys.exit('alembic' in sys.modules)"
    )

    subprocess.run([sys.executable, "-c", code, url], check=True)


def test_a_ledger_without_a_version_is_migrated(url: str) -> None:
    """Alembic leaves such a ledger after a downgrade to its base."""
    engine = create_engine(url)
    with engine.begin() as connection:
        versions.create(connection)
    engine.dispose()

    with Database(url) as database:
        assert database.add(random_rows(10, 1)) == 10


def test_a_table_of_another_program_is_an_error(url: str) -> None:
    """A ledger may share its database; rows must not be written to another program's table."""
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE attempts (who VARCHAR(9))"))

    with pytest.raises(DBAPIError, match="attempts"):
        Database(url)

    assert inspect(engine).get_table_names() == ["attempts"]  # no partial ledger
    engine.dispose()


def test_a_newer_ledger_is_left_alone(url: str) -> None:
    """An old worker would write incomplete rows."""
    with Database(url) as database, database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(ConfigError, match="was written by a newer version"):
        Database(url)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("my.secret", "is not a valid database URL"),
        ("nosuch://x/y", "is not a valid database URL"),
        ("mysql+pymysql://h/d", "needs the module pymysql"),
    ],
)
def test_an_invalid_url_is_an_error(bad: str, message: str) -> None:
    """The message does not quote the URL, which may contain a password."""
    with pytest.raises(ConfigError, match=message) as raised:
        Database(bad)

    assert bad not in str(raised.value)


def test_a_reader_creates_no_empty_ledger(tmp_path: Path) -> None:
    """An empty ledger would look as if nothing had ever happened."""
    path = tmp_path / "none.db"

    with pytest.raises(ConfigError, match="there is no ledger"):
        Database(f"sqlite:///{path}", create=False)

    assert not path.exists()
