"""The rows' way through Redis: into the stream `ledger`, and out of it."""

from collections.abc import Iterable, Sequence

import redis
from redis.exceptions import RedisError

from tasks.ledger import spool

LEDGER = "ledger"


def write(client: redis.Redis, rows: Sequence[str]) -> None:
    """Hand rows to Redis; to the disk if it is away."""
    try:
        send(client, rows)
    except RedisError:
        spool.keep(rows)


def send(client: redis.Redis, rows: Iterable[str]) -> None:
    """
    Hand rows to Redis.

    Raises:
        RedisError: It is away; some may have arrived, and may be sent again.
    """
    with client.pipeline(transaction=False) as pipe:
        for row in rows:
            pipe.xadd(LEDGER, {"row": row})
        pipe.execute()
