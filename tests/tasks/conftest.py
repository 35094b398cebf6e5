"""What the tests of routing share."""

from collections.abc import Iterator

import fakeredis
import pytest

from breaker import Breakers


@pytest.fixture
def breakers() -> Iterator[Breakers]:
    """Breakers of this test alone."""
    shared = Breakers(fakeredis.FakeRedis())
    yield shared
    shared.close()
