"""Build messages that hold a caller's delays as durations, not only as times by its clock."""

import time
from typing import Any

from celery.app.amqp import AMQP

from breakwater.messaging.times import COUNTDOWN, ENQUEUED, EXPIRES, HEADER

Untyped = Any
"""A value of Celery or kombu, which have no types."""


class Amqp(AMQP):  # type: ignore[misc]
    """Celery's AMQP, with one further header, and no priority by default."""

    def _create_task_sender(self) -> Untyped:
        send = super()._create_task_sender()

        def send_task_message(
            producer: Untyped, name: str, message: Untyped, **options: Untyped
        ) -> Untyped:
            own, headers = message.headers.get(HEADER, {}), options.get("headers") or {}
            if isinstance(headers.get(HEADER), dict):
                options["headers"] = {**headers, HEADER: {**headers[HEADER], **own}}
            # kombu would make a missing priority 0, the highest.
            return send(producer, name, message, **{"priority": None, **options})

        return send_task_message

    def as_task_v2(  # noqa: PLR0913, PLR0917 - Celery's
        self,
        task_id: str,
        name: str,
        args: Untyped = None,
        kwargs: Untyped = None,
        countdown: float | None = None,
        eta: Untyped = None,
        group_id: str | None = None,
        group_index: int | None = None,
        expires: Untyped = None,
        *more: Untyped,
        **options: Untyped,
    ) -> Untyped:
        """
        Build a message in the format of task protocol 2.

        Celery converts a countdown, and `expires` in seconds, to times by this host's clock. Both
        are durations, so the header `breakwater` also holds them as durations.
        """
        message = super().as_task_v2(
            task_id, name, args, kwargs, countdown, eta, group_id, group_index, expires,
            *more, **options,
        )  # fmt: skip
        own = {
            span: max(0, round(seconds * 1000))
            for span, seconds in ((COUNTDOWN, countdown or None), (EXPIRES, expires))
            if isinstance(seconds, int | float)
        }
        message.headers[HEADER] = {**own, ENQUEUED: time.time_ns() // 1_000_000}
        return message
