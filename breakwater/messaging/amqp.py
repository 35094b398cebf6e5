"""Make messages that say how long a caller meant, not only which time that is by its clock."""

import time
from typing import Any

from celery.app.amqp import AMQP

from breakwater.messaging.times import COUNTDOWN, ENQUEUED, EXPIRES, HEADER


class Amqp(AMQP):  # type: ignore[misc]
    """Celery's, but for one header, and for the priority of what has none."""

    def _create_task_sender(self) -> Any:
        send = super()._create_task_sender()

        def send_task_message(producer: Any, name: str, message: Any, **options: Any) -> Any:
            own, given = message.headers.get(HEADER, {}), options.get("headers") or {}
            if isinstance(given.get(HEADER), dict):
                options["headers"] = {**given, HEADER: {**given[HEADER], **own}}
            # kombu would make it 0, which is the highest.
            return send(producer, name, message, **{"priority": None, **options})

        return send_task_message

    def as_task_v2(  # noqa: PLR0913, PLR0917 - Celery's
        self,
        task_id: str,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        countdown: float | None = None,
        eta: Any = None,
        group_id: str | None = None,
        group_index: int | None = None,
        expires: Any = None,
        *more: Any,
        **options: Any,
    ) -> Any:
        """
        Make a message in the format of task protocol 2.

        Celery turns a countdown, and `expires` in seconds, into times by this host's clock. They
        are spans, so the header `breakwater` holds them as spans too.
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
