"""
End a part of a chord; the last part queues the body.

Celery runs each Redis step once. If a reply is lost while the results are joined, it fails the
body, although every part is paid for. Here each step can be repeated: a part is counted by its id,
the claim on the body is a token of this part, and the body has an id that is paid for once. Keys,
scripts and claims are Celery's, so its own producers and workers can share a chord.

Source: celery/backends/redis.py, `on_chord_part_return`, Celery 5.7.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from celery.canvas import maybe_signature
from celery.exceptions import ChordError
from celery.result import GroupResult, allow_join_result
from celery.utils import uuid
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from breakwater.redis.retry import retry_celery_step

Untyped = Any
"""A value of Celery, which has no types."""

LOOK_S = 1.0
"""While another part holds the claim on the body, this part polls at this interval."""
CLAIM_S = 6
"""The duration of a claim on the body while the results are joined."""
DONE_S = 300
"""For this long, a repeated part can see that the body was queued."""

T = TypeVar("T")


class Part:
    """
    A part of a chord that has ended.

    Args:
        backend: Celery's Redis backend.
        request: The part's request; `chord` is the body's signature.
        state: The part's state.
        result: The part's result, or its error.
        within_s: How long a step may wait for Redis.
    """

    def __init__(
        self, backend: Untyped, request: Untyped, state: str, result: Untyped, within_s: float
    ) -> None:
        self._backend = backend
        self._request = request
        self._state = state
        self._result = result
        self._within_s = within_s
        self._token = uuid()
        self._j, self._t, self._s, self._d, self._c, self._group = (
            backend.get_key_for_group(request.group, suffix)
            for suffix in (".j", ".t", ".s", ".d", ".c", "")
        )

    def end(self) -> None:
        """Count the part; if it is the last one, queue the body with all results."""
        while total := self._claimed():
            body = maybe_signature(self._request.chord, app=self._backend.app)
            try:
                results = self._repeat(partial(self._joined, total))
            except ChordError as error:
                return self._fail(body, error)
            except (RedisError, OperationalError):
                raise
            except Exception as error:  # noqa: BLE001 - such as an unreadable result
                return self._fail(body, ChordError(f"Join error: {error!r}"))
            if self._holds_on(body):
                return self._queue(body, results)
        return None

    def _repeat(self, step: Callable[[], T]) -> T:
        return retry_celery_step(step, self._within_s)

    def _claimed(self) -> int:
        """Count the part; return the number of parts if this one must queue the body, else 0."""
        while True:
            ready, added, size, is_claimed = self._repeat(self._count)
            total = int(size or 0) + int(added or 0)
            if ready == -1 or not size or ready != total:
                return 0  # the body was queued or has failed, or parts are missing
            if is_claimed or self._repeat(self._claimant) == self._token.encode():
                return total
            time.sleep(LOOK_S)  # another delivery has the claim, and may have died

    def _count(self) -> Untyped:
        backend, request = self._backend, self._request
        result = backend.encode_result(self._result, self._state)
        index = request.group_index
        if index is None:
            index = "+inf"
        return backend._chord_part_return_script(
            keys=[self._j, self._t, self._s, self._d, self._group, self._c],
            args=[
                request.id, backend.encode([1, request.id, self._state, result]),
                int(backend._chord_zset), index, backend.chord_expires or 0,
                backend._chord_result_expires, CLAIM_S, self._token,
            ],
            client=backend.client,
        )  # fmt: skip

    def _claimant(self) -> bytes | None:
        token: bytes | None = self._backend.client.get(self._c)
        return token

    def _joined(self, total: int) -> list[Untyped]:
        """
        Return the results of all parts.

        Raises:
            ChordError: A part has failed.
        """
        backend = self._backend
        nested = GroupResult.restore(self._request.group, app=backend.app)
        if nested is not None:  # parts that are groups themselves
            nested.on_ready()
            join = nested.join
            if nested.supports_native_join:
                join = nested.join_native
            timeout = backend.app.conf.result_chord_join_timeout
            with allow_join_result():
                return list(join(timeout=timeout, propagate=True))
        if backend._chord_zset:
            parts = backend.client.zrange(self._j, 0, -1)
        else:
            parts = backend.client.lrange(self._j, 0, total)
        return [backend._unpack_chord_result(part, backend.decode) for part in parts]

    def _holds_on(self, body: Untyped) -> bool:
        """
        Extend the claim for as long as queueing may take; return whether this part still has it.
        """
        for_s = self._backend._chord_publish_claim_expires(CLAIM_S, body)
        keys = [self._c, self._s]
        return bool(
            self._repeat(
                lambda: self._backend._chord_claim_extend_script(
                    keys=keys, args=[self._token, for_s], client=self._backend.client
                )
            )
        )

    def _queue(self, body: Untyped, results: list[Untyped]) -> None:
        retry = self._backend.app.amqp._retry_publish
        try:
            self._repeat(lambda: retry(body.delay, results))
        except (RedisError, OperationalError):
            raise  # the claim expires, and the next delivery queues the body
        except Exception as error:  # noqa: BLE001 - such as a role that was removed
            import structlog  # noqa: PLC0415 - only workers have it

            structlog.get_logger("breakwater").warning(
                "chord.failed", group=self._request.group, error=type(error).__name__
            )
            self._fail(body, ChordError(f"Callback error: {error!r}"))
        self._repeat(
            lambda: self._backend._chord_cleanup_script(
                keys=[self._c, self._j, self._t, self._s, self._d],
                args=[self._token, DONE_S],
                client=self._backend.client,
            )
        )

    def _fail(self, body: Untyped, error: ChordError) -> None:
        """Store an error as the body's result, so that repeated parts do nothing."""
        self._repeat(lambda: self._backend.chord_error_from_stack(body, error))
        self._repeat(lambda: self._backend.client.delete(self._s))
