"""Celery's request for a message, without the prompt."""

import time
from typing import Any, TypeAlias

from celery.worker.request import Request
from celery.worker.state import revoked as revoked_ids

from breakwater.messaging.names import role_in, shadow_name
from breakwater.messaging.times import EXPIRES_AT
from tasks.delivery.worker_transport import keeper

Untyped: TypeAlias = Any
"""A value of Celery, which has no types."""


class QuietRequest(Request):  # type: ignore[misc]
    """
    A request that shows its role, and never its prompt.

    Celery writes a repr of the arguments into logs, events and `inspect active`. Our producer sends
    no repr. A message from another code base contains one, which is replaced here.
    """

    def __init__(
        self, message: Untyped, headers: dict[str, Untyped] | None = None, **options: Untyped
    ) -> None:
        if headers is None:
            headers = message.headers
        headers = {**headers, "argsrepr": "(…)", "kwargsrepr": "{…}"}
        super().__init__(message, headers=headers, **options)
        if not headers.get("shadow"):
            self.name = shadow_name(role_in(self.args, self.kwargs))
            self.request_dict["shadow"] = self.name

    def on_accepted(self, *when: Untyped) -> None:
        """Record that the pool runs the task."""
        keeper().accepted(self.message.delivery_tag)
        super().on_accepted(*when)

    def maybe_expire(self) -> bool:
        """Return whether the task expired while it waited here; the host's clock may jump."""
        expires_at = self.message.properties.get(EXPIRES_AT)
        if expires_at is None or time.monotonic() < expires_at:
            return False
        revoked_ids.add(self.id)
        return True

    def info(self, safe: bool = False) -> Untyped:
        """Describe the request for `inspect`; Celery shows all arguments unless `safe`."""
        return super().info(safe=True)
