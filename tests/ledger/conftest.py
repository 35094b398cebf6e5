"""Every test of the database runs over both."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.ledger.database import Database
from tests.support.postgres import emptied, postgres


@pytest.fixture(scope="session")
def _postgres_url() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture
def postgres_url(_postgres_url: str) -> str:
    """An empty PostgreSQL."""
    return emptied(_postgres_url)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """An empty ledger."""
    with Database(url) as opened:
        yield opened
