"""
What Celery consumes and publishes through: kombu's Redis transport with an atomic take.

kombu pops a message (BRPOP) and then writes down that it is out; a worker killed in between, or a
reply lost on the wire, loses it. Here a script does both. A script cannot wait, so an idle worker
waits at its queues' bells, which producers ring; messages of a producer that rings none (stock
Celery, from another codebase) are found by a look once a second.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import Empty
from typing import TYPE_CHECKING, Any

import redis
from kombu.transport import redis as stock
from kombu.transport.virtual import QoS as VirtualQoS
from redis.commands.core import Script
from redis.connection import ConnectionPool
from redis.exceptions import ConnectionError as Away
from redis.exceptions import NoScriptError, RedisError

from tasks import connection, encryption
from tasks.connection import heals
from tasks.delivery import times
from tasks.delivery.letter import open_text, quotes_in
from tasks.delivery.outbox import Letter, put, put_script
from tasks.delivery.store import ALONE, PRIORITIES, PRIORITY_MARK, list_of
from tasks.errors import InvalidMessage

if TYPE_CHECKING:  # as below: a producer takes nothing, and has no log
    from tasks.delivery.keeper import Keeper

MOST = 8
"""Messages a take brings at most; several workers share a burst."""
WAIT_FOR_ROOM_S = 0.5
REPLIES = ".pidbox"
"""How the queues end through which workers answer `inspect`: no tasks, and nothing to lose."""
TAKEN_FROM = "taken_from"
"""A message's property: the queue it was found in, which need not be the one it was sent to."""
AS_TAKEN = "as_taken"
"""The same: its list and itself, as Redis had them; for the keeper alone."""
LAST_REPLY_S = 1.0
"""How long a channel that closes waits for the reply to its take."""
REST_S = 1.0
"""How long nothing is taken after Redis has refused a take: it would refuse the next one, too."""
DUE_SOON_MS = 1_000
"""A message that is due within this is not put away again."""

_keeper: "Callable[[], Keeper] | None" = None


def use_keeper(factory: "Callable[[], Keeper]") -> None:
    """Say where this process' keeper comes from; asked when the first message is taken."""
    global _keeper  # noqa: PLW0603 - kombu builds its channels itself, and passes nothing in
    _keeper = factory


def keeper() -> "Keeper":
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
            return MOST
        mine = keeper()
        rests = mine.rest.is_on or mine.blocked.is_on
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


class Channel(stock.Channel):  # type: ignore[misc]
    """kombu's channel, but for where Redis is, how it takes and how it publishes."""

    QoS = QoS
    # kombu's are 0, which is the highest: nothing could overtake a backlog.
    default_priority = None
    priority_steps = PRIORITIES
    _look = True
    _asked = _tag = ""
    _rests_until = 0.0
    _puts: tuple[ConnectionPool, Script] | None = None

    def _brpop_start(self, timeout: float | None = None) -> None:
        if all(queue.endswith(REPLIES) for queue in self.active_queues):
            self._asked = ""
            super()._brpop_start(timeout)
            return
        queues = self._queue_cycle.consume(len(self.active_queues))
        most = min(self.qos.can_consume_max_estimate(), MOST)
        if not queues or not most or time.monotonic() < self._rests_until:
            return
        self._drop_asked()  # the last connection was given up before it replied
        self._in_poll = connection = self.client.connection
        self._brpop_sent_at = time.monotonic()
        if self._look:
            from tasks.delivery import strangers  # noqa: PLC0415 - a worker's

            store, self._tag = keeper().store, keeper().new_tag()
            self._asked = "EVALSHA"
            connection.send_command(
                "EVALSHA",
                store.script("take").sha,
                *store.take_command(queues, most, self._tag, keeper().count, strangers.digest()),
            )
        else:
            self._asked = "BRPOP"
            bells = [f"bell:{queue}" for queue in queues]
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
            if not heals(error):
                self._rests_until, self._look = time.monotonic() + REST_S, True
                keeper().blocked.refused(error)
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
        from tasks.delivery import envelope, strangers  # noqa: PLC0415 - a worker's

        delivery_tag, queue = tag.decode(), list_.decode().split(PRIORITY_MARK)[0]
        self._queue_cycle.rotate(queue)
        payload: dict[str, Any] = {}
        try:
            payload = envelope.read(raw)
            if name := strangers.stranger(payload.get("headers")):
                strangers.leave(keeper().store, delivery_tag, name)
                return
            envelope.check(payload)
        except InvalidMessage as fault:
            envelope.bury(keeper().store, delivery_tag, fault, envelope.task_id_of(payload))
            return
        if (wait_ms := times.due_in_ms(payload["headers"], now_ms)) > DUE_SOON_MS:
            later = times.undelayed(envelope.read(raw))
            keeper().store.defer(delivery_tag, now_ms + wait_ms, stock.dumps(later))
            return
        payload["properties"].update({
            "delivery_tag": delivery_tag,
            TAKEN_FROM: queue,
            AS_TAKEN: (list_.decode(), raw),
            times.TAKEN_AT: (now_ms, time.monotonic()),
            times.EXPIRES_AT: times.restate(payload["headers"], now_ms),
        })  # fmt: skip
        self.connection._deliver(payload, queue)

    def _subscribe(self) -> None:
        """
        Subscribe to the channels of all workers, each by its name where it has one.

        kombu subscribes to every name as if it were a pattern, and Redis compares a pattern with
        those of a user's ACL to the letter: `&team-a:*` would not let it through.
        """
        topics = self._topics(self.active_fanout_queues)
        if not topics:
            return
        listener = self.subclient
        if listener.connection._sock is None:
            listener.connection.connect()
        self._in_listen = listener.connection
        names, patterns = _names_and_patterns(topics)
        if names:
            listener.subscribe(*names)
        if patterns:
            listener.psubscribe(*patterns)

    def _unsubscribe_from(self, queue: str) -> None:
        listener = self.subclient
        if listener.connection and listener.connection._sock:
            names, patterns = _names_and_patterns(self._topics([queue]))
            if names:
                listener.unsubscribe(*names)
            if patterns:
                listener.punsubscribe(*patterns)

    def _topics(self, queues: Iterable[str]) -> list[str]:
        return [topic for queue in queues for topic in self._get_subscribe_topics(queue)]

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

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        """Publish a message, and ring for it; replies and queues that expire are kombu's own."""
        if kwargs.get("_publish_batch") or queue in self._expires or queue.endswith(REPLIES):
            message["properties"].pop("priority", None)  # the reader knows but the queue's own list
            sealed = message if queue.endswith(REPLIES) else encryption.seal_message(message)
            super()._put(queue, sealed, **kwargs)
            return
        self.put([self.letter(queue, message)])

    def _q_for_pri(self, queue: str, pri: int | None) -> str:
        """Return the list for a priority."""
        return list_of(queue, pri)

    def prepare_message(
        self, body: Any, priority: int | None = None, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Build a message as kombu does, which takes a priority of 0 for none."""
        message: dict[str, Any] = super().prepare_message(body, priority, *args, **kwargs)
        if priority is not None:
            message["properties"]["priority"] = priority
        elif message["properties"]["priority"] is None:
            del message["properties"]["priority"]
        return message

    def encode_body(self, body: Any, encoding: str | None = None) -> tuple[Any, str | None]:
        """Leave a body of JSON as it is, unless base64 is shorter than its quotes escaped."""
        if isinstance(body, str) and body.isascii() and 3 * quotes_in(body) < len(body):
            return body, "utf-8"
        encoded: tuple[Any, str | None] = super().encode_body(body, encoding)
        return encoded

    def letter(self, queue: str, message: Any) -> Letter:
        """Write a message as it will lie in its list, encrypted if there are keys."""
        key = self._q_for_pri(queue, self._get_message_priority(message, reverse=False))
        text = open_text(encryption.seal_message(message))
        return Letter.of(queue, key, text, message.get("headers") or {})

    def put(self, letters: Iterable[Letter]) -> None:
        """Put messages into their lists, in one step."""
        if self._puts is None or self._puts[0] is not self.pool:
            # Kept: kombu builds a client for every message, which costs more than to send it.
            self._puts = self.pool, put_script(redis.Redis(connection_pool=self.pool))
        put(self._puts[1], letters)

    def _get_pool(self, asynchronous: bool = False) -> ConnectionPool:
        """Build the pool of what waits for messages (asynchronous), or of all else."""
        where, kind = connection.address(), dict[str, Any]()
        prefix: str = stock.Channel.keyprefix_fanout
        self.keyprefix_fanout = prefix.format(db=where.db)
        if asynchronous:
            kind["connection_class"] = _watched(where.connection_class, self)
        pool = where.pool(
            max_connections=connection.MAX_CONNECTIONS,
            socket_timeout=self.socket_timeout,
            socket_connect_timeout=self.socket_connect_timeout,
            health_check_interval=self.health_check_interval,
            **kind,
        )
        if asynchronous:  # kombu closes them
            self._async_sentinel_manager = getattr(pool, "sentinel_manager", None)
        else:
            self._sentinel_manager = getattr(pool, "sentinel_manager", None)
        return pool

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
                self._in_poll.can_read(LAST_REPLY_S)
        for number in range(MOST, 0, -1):
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


class Transport(stock.Transport):  # type: ignore[misc]
    """kombu's Redis transport over our channel."""

    Channel = Channel
    can_parse_url = True  # else kombu takes the URL apart, to no purpose

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        """Return what is shown of REDIS_URL; there is no password in it."""
        return connection.shown()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = Poller()


def _names_and_patterns(topics: Iterable[str]) -> tuple[list[str], list[str]]:
    found: tuple[list[str], list[str]] = [], []
    for topic in topics:
        found[any(sign in topic for sign in "*?[")].append(topic)
    return found


def _watched(kind: type, channel: Channel) -> type:
    """Make of a class of connections one that tells the channel's poller when it disconnects."""

    class Watched(kind):  # type: ignore[misc]
        def disconnect(self, *args: Any, **kwargs: Any) -> None:
            super().disconnect(*args, **kwargs)
            if channel._registered:
                channel._on_connection_disconnect(self)

    return Watched
