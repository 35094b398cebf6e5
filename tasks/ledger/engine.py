"""Connect to the ledger's database: SQLite by default, PostgreSQL for a fleet."""

import os

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from breakwater.errors import ConfigError

DEFAULT_URL = "sqlite:///ledger.db"
BUSY_S = 10.0
"""How long to wait for SQLite while another process writes."""
LIBPQ = {"connect_timeout": 5, "tcp_user_timeout": 30_000}
"""
Defaults for PostgreSQL's client, which LEDGER_URL can override.

Seconds to connect, and milliseconds until a silent network counts as down. Without these the client
waits two minutes and a quarter of an hour.
Source: PostgreSQL's manual, "Parameter Key Words" of libpq.
"""


def ledger_url() -> str:
    """Return LEDGER_URL, by default the URL of a SQLite file in the current directory."""
    return os.environ.get("LEDGER_URL") or DEFAULT_URL


def is_sqlite() -> bool:
    """Return whether LEDGER_URL names a SQLite file; only the workers of one host can share it."""
    return ledger_url().startswith("sqlite")


def check_connection() -> str:
    """
    Connect to the ledger without creating it; return its URL without the password.

    Raises:
        ConfigError: LEDGER_URL cannot be used.
        SQLAlchemyError: The database is away.
    """
    engine = open_engine(ledger_url())
    if not is_sqlite():
        engine.connect().close()
    engine.dispose()
    return engine.url.render_as_string(hide_password=True)


def open_engine(url: str) -> Engine:
    """
    Build an engine; a transaction with the option `writes` locks a SQLite file from its start.

    Raises:
        ConfigError: The URL is not valid, or its driver is not installed.
    """
    try:
        parsed = make_url(url)
        options = {}
        if parsed.drivername.endswith(("psycopg", "psycopg2")):
            options = {name: LIBPQ[name] for name in LIBPQ if name not in parsed.query}
        engine = create_engine(parsed, pool_pre_ping=True, connect_args=options)
    except (ArgumentError, NoSuchModuleError):
        raise ConfigError(
            "LEDGER_URL is not a valid database URL; examples are "
            "sqlite:////var/lib/breakwater/ledger.db and postgresql+psycopg://user@host/name"
        ) from None
    except ModuleNotFoundError as missing:
        raise ConfigError(
            f"LEDGER_URL needs the module {missing.name}; for PostgreSQL: "
            f"pip install 'breakwater-llm[postgres]', with postgresql+psycopg://…"
        ) from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: DBAPIConnection, _record: object) -> None:
    connection.isolation_level = None  # `_begin_sqlite` sends BEGIN
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={int(BUSY_S * 1000)}", "journal_mode=WAL", "synchronous=FULL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    begin = "BEGIN"
    if connection.get_execution_options().get("writes"):
        # A transaction that reads first fails to write if another one has written in between.
        begin = "BEGIN IMMEDIATE"
    connection.exec_driver_sql(begin)
