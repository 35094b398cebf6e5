"""
What a worker consumes through: the client's transport with an atomic take.

kombu pops a message (BRPOP) and then writes down that it is out; a worker killed in between, or a
reply lost on the wire, loses it. Here a script does both. A script cannot wait, so an idle worker
waits at its queues' bells, which producers ring; messages of a producer that rings none (stock
Celery, from another codebase) are found by a look once a second.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty
from typing import TYPE_CHECKING, Any

from kombu.transport import redis as stock
from kombu.transport.virtual import QoS as VirtualQoS
from redis.exceptions import ConnectionError as Away
from redis.exceptions import NoScriptError, RedisError

from breakwater.errors import InvalidMessage
from breakwater.messaging import kombu_transport, times
from breakwater.messaging.keys import wakeup_key
from breakwater.messaging.kombu_transport import REPLIES
from breakwater.messaging.names import PRIORITY_MARK
from breakwater.redis.connection import is_transient
from tasks.delivery.delivery_store import ALONE

if TYPE_CHECKING:  # as below: a producer takes nothing, and has no log
    from tasks.delivery.lease_keeper import DeliveryKeeper

MAX_PER_TAKE = 8
"""Messages a take brings at most; several workers share a burst."""
WAIT_FOR_ROOM_S = 0.5
TAKEN_FROM = "taken_from"
"""A message's property: the queue it was found in, which need not be the one it was sent to."""
AS_TAKEN = "as_taken"
"""The same: its list and itself, as Redis had them; for the keeper alone."""
CLOSE_TIMEOUT_S = 1.0
"""How long a channel that closes waits for the reply to its take."""
REFUSED_PAUSE_S = 1.0
"""How long nothing is taken after Redis has refused a take: it would refuse the next one, too."""
DUE_SOON_MS = 1_000
"""A message that is due within this is not put away again."""

_keeper: "Callable[[], DeliveryKeeper] | None" = None


def use_keeper(factory: "Callable[[], DeliveryKeeper]") -> None:
    """Say where this process' keeper comes from; asked when the first message is taken."""
    global _keeper  # noqa: PLW0603 - kombu builds its channels itself, and passes nothing in
    _keeper = factory


def keeper() -> "DeliveryKeeper":
    """Return this process' keeper."""
    assert _keeper is not None, "the worker has not said how it keeps its messages"  # noqa: S101
    return _keeper()


class QoS(stock.QoS):  # type: ignore[misc]
    """What is out, kept by the worker's keeper; the connection may come and go."""

    # kombu puts everything back when a connection ends, also what still runs.
    restore_at_shutdown = False

    def can_consume(self) -> bool:
        """Tell whether the worker can hold another message."""
        return self.can_consume_max_estimate() > 0

    def can_consume_max_estimate(self) -> int:
        """Return how many more messages the worker can hold, whatever connection they came by."""
        if not self.prefetch_count:  # not a worker's: it waits for replies, and has no keeper
            return MAX_PER_TAKE
        mine = keeper()
        rests = mine.rest.is_on or mine.foreign_keys.is_on
        is_shut = mine.closing or rests or not mine.is_ready
        return 0 if is_shut else max(self.prefetch_count - mine.count, 0)

    def append(self, message: Any, delivery_tag: str) -> None:
        """Keep a message; the take has noted it already."""
        list_, raw = message.properties.pop(AS_TAKEN, ("", b""))
        queue, task_id = message.properties.get(TAKEN_FROM, ""), message.headers.get("id")
        keeper().hold(delivery_tag, queue, list_, raw, task_id or "")
        VirtualQoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Let go of a message."""
        keeper().done(delivery_tag)
        VirtualQoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Give a message back to the head of its list, or let go of it."""
        if requeue:
            keeper().give_back(delivery_tag)
        else:
            keeper().done(delivery_tag)
        VirtualQoS.ack(self, delivery_tag)

    def refuse(self, delivery_tag: str) -> None:
        """Give a message back that this worker cannot run now, unless its task has begun."""
        keeper().refuse(delivery_tag)
        VirtualQoS.ack(self, delivery_tag)

    def restore_visible(self, *_: Any, **__: Any) -> None:
        """Leave it to the keepers."""

    def drop_unbegun(self) -> None:
        """Give back what came by a connection that has ended, unless its task runs."""
        for tag in reversed(list(self._delivered)):
            keeper().drop(tag)


class Channel(kombu_transport.Channel):
    """The client's channel, with an atomic take."""

    QoS = QoS
    _look = True
    _asked = _tag = ""
    _rests_until = 0.0

    def _brpop_start(self, timeout: float | None = None) -> None:
        if all(queue.endswith(REPLIES) for queue in self.active_queues):
            self._asked = ""
            super()._brpop_start(timeout)
            return
        queues = self._queue_cycle.consume(len(self.active_queues))
        most = min(self.qos.can_consume_max_estimate(), MAX_PER_TAKE)
        if not queues or not most or time.monotonic() < self._rests_until:
            return
        self._drop_asked()  # the last connection was given up before it replied
        self._in_poll = connection = self.client.connection
        self._brpop_sent_at = time.monotonic()
        if self._look:
            from tasks.delivery import foreign_tasks  # noqa: PLC0415 - a worker's

            store, self._tag = keeper().store, keeper().new_tag()
            self._asked = "EVALSHA"
            connection.send_command(
                "EVALSHA",
                store.script("take").sha,
                *store.take_command(
                    queues, most, self._tag, keeper().count, foreign_tasks.task_digest()
                ),
            )
        else:
            self._asked = "BRPOP"
            bells = [wakeup_key(queue) for queue in queues]
            connection.send_command("BRPOP", *bells, timeout or self.brpop_timeout)

    def _brpop_read(self, **options: Any) -> bool:
        if not self._asked:
            taken: bool = super()._brpop_read(**options)
            return taken
        connection = self.client.connection
        try:
            answer = self.client.parse_response(connection, self._asked, **options)
        except NoScriptError:
            take = keeper().store.script("take")
            take.sha = take.registered_client.script_load(take.script)
            raise Empty from None
        except RedisError as error:
            if not is_transient(error):
                self._rests_until, self._look = time.monotonic() + REFUSED_PAUSE_S, True
                keeper().foreign_keys.refused(error)
                raise Empty from None
            # A refusal (a replica that was the master, a full server) is an outage as well.
            connection.disconnect()
            raise Away(f"{type(error).__name__}: {error}") from error
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        # After a bell, and after a take that brought something, there may be more; the bells are
        # waited at for a second, and then comes a look for what nobody rang for.
        self._look = self._asked == "BRPOP" or bool(answer)
        if self._asked == "EVALSHA":
            with keeper().receiving():
                for i in range(0, len(answer) - 1, 3):
                    self._receive_message(int(answer[-1]), *answer[i : i + 3])
            self._tag = ""
        if self._asked == "BRPOP" or not answer:
            raise Empty
        return True

    def _receive_message(self, now_ms: int, tag: bytes, list_: bytes, raw: bytes) -> None:
        from tasks.delivery import envelope, foreign_tasks  # noqa: PLC0415 - a worker's

        delivery_tag, queue = tag.decode(), list_.decode().split(PRIORITY_MARK)[0]
        self._queue_cycle.rotate(queue)
        payload: dict[str, Any] = {}
        try:
            payload = envelope.read(raw)
            if name := foreign_tasks.foreign_task(payload.get("headers")):
                foreign_tasks.leave_in_queue(keeper().store, delivery_tag, name)
                return
            envelope.check(payload)
        except InvalidMessage as fault:
            envelope.dead_letter(keeper().store, delivery_tag, fault, envelope.task_id_of(payload))
            return
        if (wait_ms := times.due_in_ms(payload["headers"], now_ms)) > DUE_SOON_MS:
            later = times.undelayed(envelope.read(raw))
            keeper().store.schedule(delivery_tag, now_ms + wait_ms, stock.dumps(later))
            return
        payload["properties"].update({
            "delivery_tag": delivery_tag,
            TAKEN_FROM: queue,
            AS_TAKEN: (list_.decode(), raw),
            times.TAKEN_AT: (now_ms, time.monotonic()),
            times.EXPIRES_AT: times.restate(payload["headers"], now_ms),
        })  # fmt: skip
        self.connection._deliver(payload, queue)

    def _receive_one(self, listener: Any) -> bool:
        """Receive a command for all workers; one that is none would end every one of them."""
        try:
            return bool(super()._receive_one(listener))
        except (Empty, OSError, RedisError):
            raise
        except Exception as fault:  # noqa: BLE001 - kombu trusts what is published
            import structlog  # noqa: PLC0415 - a worker's

            structlog.get_logger("breakwater").warning(
                "command.refused", error=type(fault).__name__
            )
            return False

    def close(self) -> None:
        """Close the connections; what was taken by this one and not begun goes back."""
        if not self.closed and self._qos is not None:
            self._drop_asked()
            self._qos.drop_unbegun()
        self._in_poll = None
        super().close()

    def _drop_asked(self) -> None:
        """Give back what a take has brought whose reply was not read: its tags are known."""
        if not self._tag:
            return
        if self._in_poll and self._in_poll.is_connected:
            with suppress(OSError, RedisError):  # the take comes first, then what undoes it
                self._in_poll.can_read(CLOSE_TIMEOUT_S)
        for number in range(MAX_PER_TAKE, 0, -1):
            keeper().drop(f"{self._tag}:{number}")
        keeper().drop(f"{self._tag}:1{ALONE}")
        self._tag = ""


class Poller(stock.MultiChannelPoller):  # type: ignore[misc]
    """
    kombu's poller, but one that a worker without an event loop can wait in.

    Under gevent it slept for its whole two seconds although a slot had long become free: 4 tasks
    a second with 8 slots, for tasks of 20 ms.
    """

    def get(self, callback: Any, timeout: float | None = None) -> Any:
        """Wait for room first, then for a message."""
        consuming = [channel for channel in self._channels if channel.active_queues]
        if consuming and not any(channel.qos.can_consume() for channel in consuming):
            keeper().wait_for_room(WAIT_FOR_ROOM_S)
            timeout = 0
        return super().get(callback, timeout)


class Transport(kombu_transport.Transport):
    """The client's transport over a channel that takes."""

    Channel = Channel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = Poller()
