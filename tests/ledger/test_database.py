"""The ledger's database: each row once, whatever comes, and sums that say the same as the rows."""

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
    """By days, and by rows: metadata makes it look at each."""
    return [line.as_dict(GROUPS) for line in summarise(database, GROUPS, AttemptFilter())]


def test_a_row_comes_back_as_it_was(database: Database) -> None:
    """Costs to the last digit, metadata as an object."""
    database.add([row("t", metadata={"team": "a", "n": 5}, request_id="r-1", place=1)])

    (found,) = rows_of(database)

    assert found["task_id"] == "t"
    assert (found["cost_usd"], found["price_source"], found["price_version"]) == (
        "0.000123", "genai-prices", "1",
    )  # fmt: skip
    assert (found["metadata"], found["failover"]) == ({"team": "a", "n": 5}, 1)
    assert (found["request_id"], found["first_token_ms"]) == ("r-1", None)


def test_tokens_that_nobody_counted_are_null(database: Database) -> None:
    """In the row and its export; sums add what is known."""
    started = {"started_ms": START_MS + DAY_MS // 2}
    database.add([row("t1", usage=UNCOUNTED, cost=Cost(), **started), row("t2", **started)])

    found = {each["task_id"]: each for each in export(database, AttemptFilter())}
    whole_days = summarise(database, ["provider"], AttemptFilter())
    since = summarise(database, ["provider"], AttemptFilter(since_ms=START_MS + 1))

    assert [found[task]["input_tokens"] for task in ("t1", "t2")] == [None, 10]
    assert whole_days[0].sums["input_tokens"] == since[0].sums["input_tokens"] == 10
    assert database.add([row("t1", usage=UNCOUNTED, cost=Cost(), **started)]) == 0


def test_a_batch_of_another_length_is_no_other_statement(database: Database) -> None:
    """Drivers keep statements: 12 MB of them, when each length was one of its own."""
    statements: set[str] = set()
    event.listen(database.engine, "before_cursor_execute", lambda *told: statements.add(told[2]))

    for length in range(1, 2 * IDS_MULTIPLE, 7):
        assert database.add([row(f"{length}-{at}") for at in range(length)]) == length

    assert len([each for each in statements if "task_id IN" in each]) == 2


def test_a_row_that_comes_again_changes_nothing(database: Database) -> None:
    """In one batch or in two."""
    rows = random_rows(50, 1)
    new = database.add(rows)
    sums = sums_of(database)

    again = database.add([*rows, *rows])

    assert (new, again) == (50, 0)
    assert (len(rows_of(database)), sums_of(database)) == (50, sums)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("late", [True, False])
def test_the_end_of_a_call_replaces_its_abandonment(
    database: Database, together: bool, late: bool
) -> None:
    """In whatever order they come; and the sums forget it."""
    rows = [abandoned(), row()] if late else [row(), abandoned()]
    for batch in [rows] if together else [[each] for each in rows]:
        database.add(batch)

    assert [found["outcome"] for found in rows_of(database)] == ["succeeded"]
    assert [(line["outcome"], line["attempts"]) for line in sums_of(database)] == [("succeeded", 1)]


def test_an_id_that_is_queued_again_later_keeps_both_accounts(database: Database) -> None:
    """Its numbers begin anew when its result has expired."""
    database.add([row("t"), row("t", started_ms=START_MS + 3 * DAY_MS)])

    assert len(rows_of(database)) == 2


def test_what_is_no_row_is_dropped_alone(database: Database) -> None:
    """The stream is open to everybody; the rows beside it count."""
    good = json.loads(row("good"))
    bad = [
        "", "[]", "{", "{}", json.dumps({**good, "attempt": "x"}),
        json.dumps({**good, "cost_usd": "money"}), json.dumps({**good, "started_ms": None}),
    ]  # fmt: skip

    added = database.add([*bad, row("good")])

    assert added == 1
    assert [found["task_id"] for found in rows_of(database)] == ["good"]


def test_numbers_and_words_out_of_range_do_not_stop_the_others(database: Database) -> None:
    """A provider may count what it likes."""
    mad = json.loads(row("mad"))
    mad |= {"input_tokens": 10**30, "output_tokens": -5, "model": "x" * 9999, "why": "a\x00b"}

    database.add([json.dumps(mad), row("good")])

    assert "good" in [found["task_id"] for found in rows_of(database)]


def test_pruning_takes_whole_days_and_their_sums(database: Database) -> None:
    """What is younger stays as it is."""
    rows = random_rows(90, 2)
    database.add(rows)
    kept = [each for each in rows if json.loads(each)["started_ms"] >= START_MS + DAY_MS]

    pruned = database.prune(START_MS + DAY_MS + 5)

    assert pruned == 90 - len(kept)
    assert len(rows_of(database)) == len(kept)
    assert sum(line["attempts"] for line in sums_of(database)) == len(kept)


def test_a_ledger_that_was_pruned_meanwhile_is_added_to(url: str) -> None:
    """By another process, which took sums away that this one has seen."""
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
    """Also the first rows of a day, and a ledger that none of them finds there."""
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
    """A ledger as the first version wrote it, with rows and without sums."""
    engine = create_engine(url)
    migrate(engine, "0001")
    with Database("sqlite://") as source, engine.begin() as connection:
        source.add(random_rows(200, 3))
        with source.reading() as reading:
            found = reading.execute(text("SELECT * FROM attempts")).mappings().all()
        names = list(found[0])
        connection.execute(
            text(f"INSERT INTO attempts ({', '.join(names)}) VALUES (:{', :'.join(names)})"),
            [dict(each) for each in found],
        )
    engine.dispose()
    return url


def test_an_older_ledger_is_brought_up_to_date(first_schema: str) -> None:
    """With the sums of what it had."""
    with Database("sqlite://") as fresh:
        fresh.add(random_rows(200, 3))
        wanted = sums_of(fresh)

    with Database(first_schema) as database:
        assert sums_of(database) == wanted
        assert database.add(random_rows(200, 3)) == 0


@pytest.mark.parametrize("by", ["migrations", "worker"])
def test_the_tables_are_those_of_the_newest_migration(url: str, by: str) -> None:
    """What the migrations make is what a new ledger has, and what the code takes them to be."""
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
    """10 MB, in a worker that lives for weeks."""
    code = (
        "import sys; from tasks.ledger.database import Database; Database(sys.argv[1]).close();"
        "sys.exit('alembic' in sys.modules)"
    )

    subprocess.run([sys.executable, "-c", code, url], check=True)


def test_a_ledger_without_a_version_is_migrated(url: str) -> None:
    """As Alembic leaves one that was taken back to its beginning."""
    engine = create_engine(url)
    with engine.begin() as connection:
        versions.create(connection)
    engine.dispose()

    with Database(url) as database:
        assert database.add(random_rows(10, 1)) == 10


def test_another_ones_table_is_not_taken_for_ours(url: str) -> None:
    """A ledger may share its database, and rows must not go where they do not belong."""
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE attempts (who VARCHAR(9))"))

    with pytest.raises(DBAPIError, match="attempts"):
        Database(url)

    assert inspect(engine).get_table_names() == ["attempts"]  # nothing half-made
    engine.dispose()


def test_a_newer_ledger_is_left_alone(url: str) -> None:
    """An old worker would write rows that lack something."""
    with Database(url) as database, database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(ConfigError, match="was written by a newer version"):
        Database(url)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("my.secret", "is not a valid database URL"),
        ("nosuch://x/y", "is not a valid database URL"),
        ("mysql+pymysql://h/d", "needs the module pymysql"),
    ],
)
def test_a_url_that_cannot_be_used_is_told(bad: str, said: str) -> None:
    """Without what is in it: there may be a password."""
    with pytest.raises(ConfigError, match=said) as raised:
        Database(bad)

    assert bad not in str(raised.value)


def test_a_reader_makes_no_empty_ledger(tmp_path: Path) -> None:
    """It would seem that nothing ever happened."""
    path = tmp_path / "none.db"

    with pytest.raises(ConfigError, match="there is no ledger"):
        Database(f"sqlite:///{path}", create=False)

    assert not path.exists()
