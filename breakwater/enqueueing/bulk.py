"""
Enqueue many calls at once: check all of them first, then send them in few round trips.

Celery builds the messages exactly as for `apply_async`. This saves one connection, one client and
one round trip per call.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import cache
from typing import cast

from celery import Task
from celery.result import AsyncResult
from celery.utils import uuid
from celery.utils.time import maybe_iso8601, maybe_make_aware
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from breakwater.calls import execution_options
from breakwater.calls.options import OPTIONS
from breakwater.celery_app import app
from breakwater.content import JsonObject
from breakwater.enqueueing.interface import DeliveryOptions
from breakwater.enqueueing.prepared import (
    REDACTED_REPRS,
    PreparedCall,
    message_headers,
    queue_selector,
)
from breakwater.errors import BadCalls, BadTask, InvalidOption, QueueUnavailable, nearest
from breakwater.messaging.names import shadow_name
from breakwater.messaging.outbox import Outbox
from breakwater.messaging.tracing import publishing
from breakwater.redis.connection import cause_of, unavailable
from breakwater.redis.foreign_keys import named

SHARED_OPTIONS = ("queue", "priority", "countdown", "eta", "expires", "headers")
"""Celery's options that apply to all calls; the keys of `DeliveryOptions`."""


class BulkEnqueue:
    """
    Many calls that are enqueued at once; the effect on each call is as if it were alone.

    Args:
        task: `complete`.
        calls: Each is a role, a prompt, and perhaps a dict of options.
        task_ids: One id for each call; None: new ids.
        options: Those of `SHARED_OPTIONS`.

    Raises:
        BadCalls: Some calls are at fault; the error lists each.
        InvalidOption: The ids or the options do not fit.
    """

    def __init__(
        self,
        task: Task,
        calls: Iterable[object],
        task_ids: Iterable[str] | None,
        options: DeliveryOptions,
    ) -> None:
        _check_common(options)
        self._task = task
        self._options = options
        self._prepared = _prepare_all(calls, options.get("queue"))
        self._has_chosen_ids = task_ids is not None
        self.task_ids = _ids(task_ids, len(self._prepared))

    def put(self) -> list[AsyncResult]:
        """
        Write the calls to their queues in bounded batches; return their results in order.

        Raises:
            QueueUnavailable: Redis did not accept all calls; `details` says which it accepted.
        """
        self._queued = self._unsure = 0
        try:
            with app.producer_pool.acquire(block=True) as producer:
                self._put_through(Outbox(producer, app.conf.task_publish_retry_policy))
        except (OperationalError, RedisError, OSError) as error:
            raise self._unavailable(error) from error
        results = [self._task.AsyncResult(task_id) for task_id in self.task_ids]
        if parent := app.current_worker_task:
            for result in results:
                parent.add_trail(result)
        return results

    def _put_through(self, outbox: Outbox) -> None:
        common = self._common()
        for call, task_id in zip(self._prepared, self.task_ids, strict=True):
            self._write(outbox, call, task_id, common)
            if outbox.full:
                self._flush(outbox)
        self._flush(outbox)

    def _flush(self, outbox: Outbox) -> None:
        self._unsure = len(outbox)
        outbox.flush()
        self._queued, self._unsure = self._queued + self._unsure, 0

    def _common(self) -> JsonObject:
        """Return the fields that all messages share; `delay` names the enqueueing task likewise."""
        options = self._options
        common: JsonObject = {
            "countdown": options.get("countdown"),
            "eta": options.get("eta"),
            "expires": options.get("expires"),
        }
        common["reply_to"] = app.thread_oid
        if parent := app.current_worker_task:
            common["root_id"] = parent.request.root_id or parent.request.id
            common["parent_id"] = parent.request.id
        return common

    def _write(self, outbox: Outbox, call: PreparedCall, task_id: str, common: JsonObject) -> None:
        digests = ""
        if self._has_chosen_ids and app.current_worker_task is None:
            digests = call.digests()
        headers = message_headers(self._options.get("headers"), digests)
        with publishing(call.role, call.queue, task_id, headers):
            message = app.amqp.create_task_message(
                task_id, self._task.name, (call.role, call.prompt), call.options,
                shadow=shadow_name(call.role), headers=headers, **REDACTED_REPRS, **common,
            )  # fmt: skip
            app.amqp.send_task_message(
                outbox, self._task.name, message, queue=call.queue, headers=headers,
                priority=self._options.get("priority"),
                expiration=_seconds(self._options.get("expires")), **REDACTED_REPRS,
            )  # fmt: skip

    def _unavailable(self, error: Exception) -> QueueUnavailable:
        unsure = ""
        if self._unsure:
            unsure = f", and perhaps {self._unsure} more"
        return unavailable(
            f"Redis took the first {self._queued} of {len(self.task_ids)} tasks{unsure}",
            error,
            "then enqueue the others again under their own ids, which are in details['task_ids']",
            {"task_ids": self.task_ids, "queued": self._queued, "unsure": self._unsure},
            named(cause_of(error), {call.queue for call in self._prepared}),
        )


def _check_common(options: Mapping[str, object]) -> None:
    faults = []
    for name in options.keys() - set(SHARED_OPTIONS):
        hint = nearest(name, SHARED_OPTIONS)
        if name in OPTIONS:
            hint = f": it belongs to each call, (role, prompt, {{{name!r}: …}})"
        faults.append(f"unknown option {name[:40]!r}{hint}")
    if faults:
        raise InvalidOption("; ".join(sorted(faults)), {"faults": sorted(faults)})
    execution_options.check(options, "apply_async")


def _prepare_all(calls: Iterable[object], queue: str | None) -> list[PreparedCall]:
    prepared: list[PreparedCall] = []
    faults = []
    choose = cache(queue_selector(queue))  # checks the roles file once per role, not per call
    for index, call in enumerate(calls):
        try:
            prepared.append(_prepared(call, choose))
        except BadTask as fault:
            faults.append({"index": index, "error": type(fault).__name__, "message": str(fault)})
    if faults:
        raise BadCalls.of(faults, len(prepared) + len(faults))
    return prepared


def _prepared(call: object, choose: Callable[[str], str]) -> PreparedCall:
    if not isinstance(call, tuple | list) or not 2 <= len(call) <= 3:
        size = ""
        if isinstance(call, tuple | list):
            size = f" of {len(call)}"
        raise InvalidOption(
            f"a call is (role, prompt) or (role, prompt, {{option: value}}), "
            f"not a {type(call).__name__}{size}"
        )
    role, prompt, options = (*call, {})[:3]
    if not isinstance(options, Mapping):
        raise InvalidOption(f"the options are a {type(options).__name__}; they must be a dict")
    return PreparedCall.of((role, prompt), options, choose)


def _ids(chosen: Iterable[str] | None, number: int) -> list[str]:
    if chosen is None:
        return [uuid() for _ in range(number)]
    ids = list(chosen)
    if len(ids) != number:
        raise InvalidOption(f"there are {len(ids)} task_ids for {number} calls; each needs one")
    for each in ids:
        execution_options.check_task_id(each)
    if len(set(ids)) < number:
        raise InvalidOption("two of the task_ids are the same; each call needs one of its own")
    return ids


def _seconds(expires: float | datetime | str | None) -> float | None:
    """Return for how many seconds a message is valid, as Celery passes it to its broker."""
    if expires is None:
        return None
    if isinstance(expires, int | float):
        return max(expires, 0)
    due = expires
    if isinstance(due, str):
        due = cast("datetime", maybe_make_aware(maybe_iso8601(due)))
    return max((due - datetime.now(due.tzinfo)).total_seconds(), 0)
