"""What a worker makes of a message: Celery's request, which shows no prompt."""

import time
from typing import Any

from celery.worker.request import Request
from celery.worker.state import revoked as revoked_ids

from breakwater.messaging.names import role_in, shadow_name
from breakwater.messaging.times import EXPIRES_AT
from tasks.delivery.worker_transport import keeper


class QuietRequest(Request):  # type: ignore[misc]
    """
    A request that shows its role and never its prompt.

    Celery puts a repr of the arguments into logs, events and `inspect active`. Our producer sends
    none; a message from another codebase brings its own, which is replaced here.
    """

    def __init__(self, message: Any, headers: dict[str, Any] | None = None, **given: Any) -> None:
        headers = {**(message.headers if headers is None else headers)}
        headers.update(argsrepr="(…)", kwargsrepr="{…}")
        super().__init__(message, headers=headers, **given)
        if not headers.get("shadow"):
            self.name = shadow_name(role_in(self.args, self.kwargs))
            self.request_dict["shadow"] = self.name

    def on_accepted(self, *when: Any) -> None:
        """Note that the pool runs it."""
        keeper().accepted(self.message.delivery_tag)
        super().on_accepted(*when)

    def maybe_expire(self) -> bool:
        """Tell whether the task expired while it waited here; the host's clock may jump."""
        expires_at = self.message.properties.get(EXPIRES_AT)
        if expires_at is None or time.monotonic() < expires_at:
            return False
        revoked_ids.add(self.id)
        return True

    def info(self, safe: bool = False) -> Any:
        """Describe the request for `inspect`; Celery shows all arguments unless `safe`."""
        return super().info(safe=True)
