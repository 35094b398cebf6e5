"""The schema of a ledger: create it, or migrate it to the newest version."""

import logging
from importlib.resources import files

from sqlalchemy import Connection, inspect, select

from breakwater.errors import ConfigError
from tasks.ledger.tables import METADATA, SCHEMA, versions

logging.getLogger("alembic").setLevel(logging.WARNING)


def version_of(connection: Connection) -> str | None:
    """Return the version of a ledger's schema; None if there is none, empty if it is not set."""
    if not inspect(connection).has_table(versions.name):
        return None
    return connection.execute(select(versions.c.version_num)).scalar() or ""


def migrate(connection: Connection, display_url: str) -> None:
    """
    Create the tables, or migrate those of an older version.

    Raises:
        ConfigError: The ledger was written by a newer version.
    """
    if connection.dialect.name == "postgresql":  # one at a time; the others have nothing left to do
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7236183)")
    version = version_of(connection)
    if version is None:
        # Source: Alembic's cookbook, "Building an Up to Date Database from Scratch". A table with
        # this name that belongs to another program is an error, as it is to a migration.
        METADATA.create_all(connection, checkfirst=False)
        versions.create(connection, checkfirst=False)
        connection.execute(versions.insert().values(version_num=SCHEMA))
    elif version != SCHEMA:
        _upgrade(connection, display_url)


def _upgrade(connection: Connection, display_url: str) -> None:
    from alembic import command  # noqa: PLC0415 - 10 MB, only to migrate
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(files("tasks.ledger") / "migrations"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError:
        raise ConfigError(
            f"the ledger {display_url} was written by a newer version; update this one"
        ) from None
