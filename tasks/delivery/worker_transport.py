"""
The transport through which a worker consumes: the client's transport with an atomic take.

kombu pops a message (BRPOP), and records afterwards that the worker holds it. So a worker that is
killed in between loses the message, and so does a reply that is lost on the wire. Here one script
does both. A script cannot wait, so an idle worker blocks on the wakeup lists of its queues, to
which producers push. A producer in another code base (stock Celery) pushes no wakeup; the worker
finds its messages with a take once a second.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty
from typing import TYPE_CHECKING, Any, TypeAlias

from kombu.transport import redis as stock
from kombu.transport.virtual import QoS as VirtualQoS
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import NoScriptError, RedisError

from breakwater.errors import InvalidMessage
from breakwater.messaging import kombu_transport, times
from breakwater.messaging.keys import wakeup_key
from breakwater.messaging.kombu_transport import REPLIES
from breakwater.messaging.names import PRIORITY_MARK
from breakwater.redis.batches import batches
from breakwater.redis.connection import is_transient
from tasks.delivery.delivery_store import ALONE

if TYPE_CHECKING:  # as below: a producer takes nothing, and has no log
    from tasks.delivery.lease_keeper import DeliveryKeeper

Untyped: TypeAlias = Any
"""A value of kombu, which has no types."""

MAX_PER_TAKE = 8
"""Messages of one take at most, so that several workers share a burst."""
WAIT_FOR_ROOM_S = 0.5
TAKEN_FROM = "taken_from"
"""A message's property: the queue it was taken from; it may have been sent to another one."""
AS_TAKEN = "as_taken"
"""A message's property: its list and its bytes as Redis had them, for the keeper alone."""
CLOSE_TIMEOUT_S = 1.0
"""How long a closing channel waits for the reply to its take."""
REFUSED_PAUSE_S = 1.0
"""After Redis has refused a take, the worker pauses for this long: the next would fail, too."""
DUE_SOON_MS = 1_000
"""A message that is due within this time is not scheduled again."""

_keeper: "Callable[[], DeliveryKeeper] | None" = None


def use_keeper(factory: "Callable[[], DeliveryKeeper]") -> None:
    """Set the function that returns this process's keeper; the first take calls it."""
    global _keeper  # noqa: PLW0603 - kombu builds its channels itself, and passes nothing in
    _keeper = factory


def keeper() -> "DeliveryKeeper":
    """Return this process's keeper."""
    assert _keeper is not None, "use_keeper() was not called in this process"  # noqa: S101
    return _keeper()


class QoS(stock.QoS):  # type: ignore[misc]
    """The messages that the worker holds; the keeper has them, whatever happens to connections."""

    # kombu requeues everything when a connection ends, also messages whose tasks still run.
    restore_at_shutdown = False

    def can_consume(self) -> bool:
        """Return whether the worker can hold another message."""
        return self.can_consume_max_estimate() > 0

    def can_consume_max_estimate(self) -> int:
        """Return how many more messages the worker can hold; it counts those of all connections."""
        if not self.prefetch_count:  # this channel waits for replies; it has no keeper
            return MAX_PER_TAKE
        mine = keeper()
        pauses = mine.rest.is_on or mine.foreign_keys.is_on
        if mine.closing or pauses or not mine.is_ready:
            return 0
        room: int = self.prefetch_count - mine.count
        return max(room, 0)

    def append(self, message: Untyped, delivery_tag: str) -> None:
        """Hold a message; the take has recorded it already."""
        list_, raw = message.properties.pop(AS_TAKEN, ("", b""))
        queue, task_id = message.properties.get(TAKEN_FROM, ""), message.headers.get("id")
        keeper().hold(delivery_tag, queue, list_, raw, task_id or "")
        VirtualQoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message."""
        keeper().acknowledge(delivery_tag)
        VirtualQoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Requeue a message whose runner is lost, or acknowledge it."""
        if requeue:
            keeper().return_lost(delivery_tag)
        else:
            keeper().acknowledge(delivery_tag)
        VirtualQoS.ack(self, delivery_tag)

    def refuse(self, delivery_tag: str) -> None:
        """Requeue a message that this worker cannot run now, unless its task has begun."""
        keeper().refuse(delivery_tag)
        VirtualQoS.ack(self, delivery_tag)

    def restore_visible(self, *_: object, **__: object) -> None:
        """Do nothing: the keepers of all workers requeue lost messages."""

    def return_unstarted(self) -> None:
        """Requeue the messages of a connection that has ended, unless their tasks run."""
        for tag in reversed(list(self._delivered)):
            keeper().return_unstarted(tag)


class Channel(kombu_transport.Channel):
    """The client's channel, with an atomic take."""

    QoS = QoS
    _take_next = True  # else wait for a wakeup
    _sent = ""  # the command whose reply is due; empty: kombu's own
    _tag = ""  # of a take whose reply is due
    _paused_until = 0.0

    def _brpop_start(self, timeout: float | None = None) -> None:
        if all(queue.endswith(REPLIES) for queue in self.active_queues):
            self._sent = ""
            super()._brpop_start(timeout)
            return
        queues = self._queue_cycle.consume(len(self.active_queues))
        max_messages = min(self.qos.can_consume_max_estimate(), MAX_PER_TAKE)
        if not queues or not max_messages or time.monotonic() < self._paused_until:
            return
        self._return_unread()  # the last connection was given up before it replied
        self._in_poll = connection = self.client.connection
        self._brpop_sent_at = time.monotonic()
        if self._take_next:
            self._send_take(connection, queues, max_messages)
            return
        self._sent = "BRPOP"
        wakeups = [wakeup_key(queue) for queue in queues]
        connection.send_command("BRPOP", *wakeups, timeout or self.brpop_timeout)

    def _send_take(self, connection: Untyped, queues: list[str], max_messages: int) -> None:
        from tasks.delivery import foreign_tasks  # noqa: PLC0415 - a worker's

        mine, digest = keeper(), foreign_tasks.task_digest()
        self._sent, self._tag = "EVALSHA", mine.new_tag()
        lists, arguments = mine.store.take_command(
            queues, max_messages, self._tag, mine.count, digest
        )
        sha = mine.store.script("take").sha
        connection.send_command("EVALSHA", sha, len(lists), *lists, arguments)

    def _brpop_read(self, **options: Untyped) -> bool:
        if not self._sent:
            return bool(super()._brpop_read(**options))
        reply = self._read_reply(options)
        is_take = self._sent == "EVALSHA"
        # There may be more messages behind a wakeup, and behind a take that returned some. Else the
        # worker blocks on the wakeup lists for a second, then takes what came without a wakeup.
        self._take_next = bool(reply) or not is_take
        if is_take:
            self._receive_all(reply)
        if not is_take or not reply:
            raise Empty
        return True

    def _read_reply(self, options: Untyped) -> Untyped:
        """
        Read the reply to what was sent.

        Raises:
            Empty: Redis refused the take, or did not have the script.
            redis.ConnectionError: Redis is unavailable.
        """
        connection = self.client.connection
        try:
            return self.client.parse_response(connection, self._sent, **options)
        except NoScriptError:
            take = keeper().store.script("take")
            take.sha = take.registered_client.script_load(take.script)
            raise Empty from None
        except RedisError as error:
            if not is_transient(error):
                self._paused_until = time.monotonic() + REFUSED_PAUSE_S
                self._take_next = True
                keeper().foreign_keys.refused(error)
                raise Empty from None
            # A refusal (by a former master that is a replica now, by a full server) is an outage.
            connection.disconnect()
            raise NotConnected(f"{type(error).__name__}: {error}") from error
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()

    def _receive_all(self, reply: list[bytes]) -> None:
        """Receive the messages of a take; its last word is the time of it."""
        with keeper().receiving():
            for tag, list_, raw in batches(reply[:-1], 3):
                self._receive_message(int(reply[-1]), tag, list_, raw)
        self._tag = ""

    def _receive_message(self, now_ms: int, tag: bytes, list_: bytes, raw: bytes) -> None:
        from tasks.delivery import envelope, foreign_tasks  # noqa: PLC0415 - a worker's

        store, delivery_tag = keeper().store, tag.decode()
        queue = list_.decode().split(PRIORITY_MARK)[0]
        self._queue_cycle.rotate(queue)
        payload: dict[str, Untyped] = {}
        try:
            payload = envelope.read(raw)
            if name := foreign_tasks.foreign_task(payload.get("headers")):
                foreign_tasks.leave_in_queue(store, delivery_tag, name)
                return
            envelope.check(payload)
        except InvalidMessage as fault:
            envelope.dead_letter(store, delivery_tag, fault, envelope.task_id_of(payload))
            return
        wait_ms = times.due_in_ms(payload["headers"], now_ms)
        if wait_ms > DUE_SOON_MS:
            later = times.undelayed(envelope.read(raw))
            store.schedule(delivery_tag, now_ms + wait_ms, stock.dumps(later))
            return
        payload["properties"].update({
            "delivery_tag": delivery_tag,
            TAKEN_FROM: queue,
            AS_TAKEN: (list_.decode(), raw),
            times.TAKEN_AT: (now_ms, time.monotonic()),
            times.EXPIRES_AT: times.restate(payload["headers"], now_ms),
        })  # fmt: skip
        self.connection._deliver(payload, queue)

    def _receive_one(self, listener: Untyped) -> bool:
        """Receive a control command; an invalid one would crash every worker."""
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
        """Close the connections; requeue what they brought, unless its task has begun."""
        if not self.closed and self._qos is not None:
            self._return_unread()
            self._qos.return_unstarted()
        self._in_poll = None
        super().close()

    def _return_unread(self) -> None:
        """Requeue the messages of a take whose reply was not read: their tags are known."""
        if not self._tag:
            return
        mine = keeper()
        if self._in_poll and self._in_poll.is_connected:
            with suppress(OSError, RedisError):  # Redis must run the take before it is undone
                self._in_poll.can_read(CLOSE_TIMEOUT_S)
        for number in range(MAX_PER_TAKE, 0, -1):
            mine.return_unstarted(f"{self._tag}:{number}")
        mine.return_unstarted(f"{self._tag}:1{ALONE}")
        self._tag = ""


class Poller(stock.MultiChannelPoller):  # type: ignore[misc]
    """
    kombu's poller, in which a worker without an event loop can wait, too.

    Under gevent kombu's slept for its whole two seconds although a slot had been free for long: 4
    tasks a second with 8 slots, for tasks of 20 ms.
    """

    def get(self, callback: Untyped, timeout: float | None = None) -> Untyped:
        """Wait until the worker can hold a message, then for a message."""
        consuming = [channel for channel in self._channels if channel.active_queues]
        if consuming and not any(channel.qos.can_consume() for channel in consuming):
            keeper().wait_for_room(WAIT_FOR_ROOM_S)
            timeout = 0
        return super().get(callback, timeout)


class Transport(kombu_transport.Transport):
    """The client's transport, with a channel that takes messages."""

    Channel = Channel

    def __init__(self, *args: Untyped, **kwargs: Untyped) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = Poller()
