"""
What a worker does with a message that it cannot run: a dead letter, or it is left to others.

Celery's consumer logs such a message with its whole body and forgets it; its caller waits for
ever. An exception that it does not foresee ends the worker.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from traceback import extract_tb
from typing import Any

import structlog
from celery.worker.consumer import Consumer as CeleryConsumer
from kombu.pidbox import Node
from redis.exceptions import RedisError

from breakwater.errors import BadTask, InvalidMessage, UnknownTask
from breakwater.messaging import times
from tasks.delivery import envelope, foreign_tasks
from tasks.delivery.faults import HOST_ERRORS, MAX_FAULTS, FailedMessages
from tasks.delivery.foreign_tasks import CELERY_PREFIX
from tasks.delivery.worker_transport import keeper

SERVED_CELERY_TASKS = {"celery.accumulate"}
"""Of those; the others run tasks where nothing settles them, or for ever."""

FAULTY_DELAY_MS = 5_000
"""How long a message that has failed here waits, while others show whether they pass."""

_log = structlog.get_logger("breakwater")


class Commands(Node):
    """
    What carries out the commands for all workers, and listens on whatever comes.

    After a command that fails, Celery unsubscribes and subscribes anew: what is published between
    the two, a `cancel` say, is lost.
    """

    def handle_message(self, body: Any, message: Any = None) -> Any:
        """Carry out a command; one that is none is told in the log."""
        try:
            return super().handle_message(body, message)  # type: ignore[no-untyped-call]
        except (OSError, RedisError):
            raise
        except Exception as fault:  # noqa: BLE001 - kombu trusts what is published
            _log.warning("command.refused", error=type(fault).__name__)


class Consumer(CeleryConsumer):  # type: ignore[misc]
    """Celery's consumer, which no message can stop."""

    def __init__(self, on_task_request: Any, *args: Any, app: Any, **kwargs: Any) -> None:
        app.control.mailbox.node_cls = Commands
        super().__init__(on_task_request, *args, app=app, **kwargs)
        self._failed_messages = FailedMessages()
        # Also what waits for a free child is handed over by the worker, so it is wrapped there.
        self._to_pool = self.controller._process_task
        self._waits_for_children: bool = on_task_request == self.controller._process_task_sem
        self.controller._process_task = self._process
        if not self._waits_for_children:
            self.on_task_request = self._process

    def connection_for_read(self, heartbeat: Any = None) -> Any:
        """Connect, sooner after an outage than Celery: it waits 2 s, 4 s, … up to half a minute."""
        connection = self.app.connection_for_read(heartbeat=heartbeat)
        connection.ensure_connection = partial(
            connection.ensure_connection, interval_start=0.2, interval_step=0.3, interval_max=2
        )
        return self.ensure_connected(connection)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        """Return what is called with each message."""
        handle = super().create_task_handler(*args, **kwargs)

        def on_message(message: Any) -> None:
            if keeper().rest.is_on:
                message.channel.qos.refuse(message.delivery_tag)
                return
            try:
                if name := self._foreign_task(message):
                    foreign_tasks.leave_in_queue(keeper().store, message.delivery_tag, name)
                    message.ack()
                    return
                self._check(message)
                handle(message)
                self._failed_messages.passed()
            except BadTask as fault:
                self._dead_letter(message, fault)
            except (ConnectionError, TimeoutError, RedisError):  # Redis is away
                raise
            except Exception as fault:
                if keeper().closing:  # the pool may be gone already; the message goes back
                    raise
                self._cannot_run(message, fault)

        return on_message

    def _process(self, request: Any) -> None:
        """Hand a task to the pool; if the pool cannot take it, its message goes back."""
        try:
            self._to_pool(request)
        except Exception as fault:  # noqa: BLE001 - whatever the pool raises, the prompt is not at fault
            if self._waits_for_children:
                self.controller._quick_release()
            self._give_back(request.message, fault)

    def _cannot_run(self, message: Any, fault: Exception) -> None:
        """Give a message back; after some faults of it alone, bury it."""
        task_id = envelope.task_id_of({"headers": message.headers})
        if isinstance(fault, HOST_ERRORS) or not task_id:
            return self._give_back(message, fault)
        is_again = self._failed_messages.has_failed(task_id)
        if self._failed_messages.failed(task_id) >= MAX_FAULTS:
            return self.on_invalid_task(None, message, fault)
        if not is_again:
            return self._give_back(message, fault)
        _log.warning("message.waits", task_id=task_id, error=type(fault).__name__)
        due_ms = times.Clock.of(message.properties).now_ms() + FAULTY_DELAY_MS
        keeper().store.schedule(message.delivery_tag, due_ms)
        message.ack()  # so that those behind it show whether it is the message
        return None

    def _give_back(self, message: Any, fault: Exception) -> None:
        keeper().rest.begin(fault)
        message.channel.qos.refuse(message.delivery_tag)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Bury a message whose body kombu could not decode; a command for all is just dropped."""
        if isinstance(message.delivery_tag, str):
            self.on_invalid_task(None, message, exc)

    def on_unknown_message(self, _body: Any, message: Any) -> None:
        """Bury a message that names no task."""
        self._dead_letter(message, InvalidMessage("it names no task"))

    def on_unknown_task(self, _body: Any, message: Any, _exc: Exception) -> None:
        """Bury a message that Celery takes for an unknown task; such were left to others before."""
        self._dead_letter(message, UnknownTask("its task is not known here"))

    def on_invalid_task(self, _body: Any, message: Any, exc: Exception) -> None:
        """Bury a message that Celery could not make a task of; what it says may quote the body."""
        where = [f" in {at.name}, line {at.lineno}" for at in extract_tb(exc.__traceback__)[-1:]]
        told = type(exc).__name__ + "".join(where)
        self._dead_letter(message, InvalidMessage(f"Celery cannot make a task of it: {told}"))

    def _foreign_task(self, message: Any) -> str:
        """Return the name of a task that is not ours, which only the body can tell; else empty."""
        name = message.headers.get("task")
        if name and not str(name).startswith(CELERY_PREFIX):
            return ""
        try:
            body = _body(message)
        except InvalidMessage:
            return ""
        name = name or (body.get("task") if isinstance(body, dict) else None)
        if not isinstance(name, str) or envelope.deeper_than(envelope.MAX_DEPTH, body):
            return ""
        is_celerys = name.startswith(CELERY_PREFIX) and name not in SERVED_CELERY_TASKS
        if name not in self.strategies or (is_celerys and foreign_tasks.names_none_of_ours(body)):
            return name
        return ""

    def _check(self, message: Any) -> None:
        body, properties = _body(message), message.properties
        name = envelope.check_task(message.headers, body)
        if message.headers.get("task") is None:  # protocol 1 has its times in the body
            now_ms = times.Clock.of(properties).now_ms()
            properties[times.EXPIRES_AT] = times.restate(body, now_ms)
        if name.startswith(CELERY_PREFIX) and name not in SERVED_CELERY_TASKS:
            raise UnknownTask(
                f"task {name[:80]!r} is not served: it would run others of which none is settled "
                f"by itself; enqueue each, such as in a group"
            )

    def _dead_letter(self, message: Any, fault: BadTask) -> None:
        body = None
        with suppress(InvalidMessage):
            body = _body(message)
        task_id = envelope.task_id_of({"headers": message.headers}, body)
        envelope.dead_letter(keeper().store, message.delivery_tag, fault, task_id)
        message.ack()


def _body(message: Any) -> Any:
    if message.content_type not in (message.accept or ()):
        raise InvalidMessage("its content type is not taken; application/json is")
    try:
        return message.payload
    except Exception as error:  # noqa: BLE001 - decoders raise what they like
        raise InvalidMessage(f"its body cannot be decoded: {type(error).__name__}") from None
