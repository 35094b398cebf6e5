"""Send rows of the ledger to Redis, into the stream `ledger`."""

from collections.abc import Iterable, Sequence

import redis
from redis.exceptions import RedisError

from breakwater.messaging.keys import LEDGER
from tasks.ledger import row_spool


def write(client: redis.Redis, rows: Sequence[str]) -> None:
    """Send rows to Redis; write them to disk if Redis is away."""
    try:
        send(client, rows)
    except RedisError:
        row_spool.keep(rows)


def send(client: redis.Redis, rows: Iterable[str]) -> None:
    """
    Send rows to Redis.

    Raises:
        RedisError: Redis is away. Some rows may have arrived; all may be sent again.
    """
    with client.pipeline(transaction=False) as pipe:
        for row in rows:
            pipe.xadd(LEDGER, {"row": row})
        pipe.execute()
