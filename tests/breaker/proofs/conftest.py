"""Where the scripts are put to the proof."""

import fakeredis
import pytest
import redis


@pytest.fixture(params=["fakeredis", "server"])
def client(request: pytest.FixtureRequest) -> redis.Redis:
    """A client of fakeredis, and one of a real server, with nothing in it."""
    if request.param == "fakeredis":
        return fakeredis.FakeRedis(decode_responses=True)
    return redis.Redis.from_url(request.getfixturevalue("redis_url"), decode_responses=True)
