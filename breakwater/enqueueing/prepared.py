"""Prepare a call for its queue: check it, choose the queue, build the headers."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from breakwater import roles
from breakwater.calls.call import CompletionCall, bind_arguments
from breakwater.calls.messages import prompt_as_json
from breakwater.calls.options import to_wire
from breakwater.celery_app import app
from breakwater.config import role_names
from breakwater.errors import UnknownRole
from breakwater.messaging.names import COMMON_QUEUE, queue_of
from breakwater.messaging.times import HEADER
from breakwater.redis.encryption import fingerprints
from breakwater.redis.retry import FOREVER, retry_celery_step

T = TypeVar("T")

ANSWER_OPTIONS = ("system", "params", "schema", "tools", "tool_choice")
"""Options that change the answer."""
REDACTED_REPRS = {"argsrepr": "(…)", "kwargsrepr": "{…}"}
"""The text that monitoring shows instead of the arguments."""


@dataclass(frozen=True, slots=True)
class PreparedCall:
    """A checked call, in the form that its message holds."""

    role: str
    prompt: object = field(repr=False)
    options: dict[str, object] = field(repr=False)
    queue: str

    @classmethod
    def of(
        cls, args: Sequence[object], kwargs: Mapping[str, object], choose: Callable[[str], str]
    ) -> "PreparedCall":
        """
        Check a call of `complete`.

        Args:
            choose: Returns the queue of a role.

        Raises:
            BadTask: The role, the prompt or an option is at fault.
        """
        role, prompt, chosen = bind_arguments(args, to_wire(kwargs))
        call = CompletionCall.of(role, prompt, chosen)
        queue = choose(call.role)
        roles.check_params(call.role, call.params)
        return cls(call.role, prompt_as_json(call.messages), chosen, queue)

    def digests(self) -> str:
        """
        Return digests of the call, one for each encryption key, separated by spaces.

        Calls with equal digests have the same role, prompt and `ANSWER_OPTIONS`.
        """
        options = {name: self.options.get(name) for name in ANSWER_OPTIONS}
        return " ".join(fingerprints(json.dumps([self.role, self.prompt, options], sort_keys=True)))


def queue_selector(queue: str | None) -> Callable[[str], str]:
    """Return a function from role to queue; it always returns `queue` if there is one."""
    if not queue:
        return queue_for
    return lambda _role: queue


def queue_for(role: str) -> str:
    """
    Return the role's own queue, or the common queue if there is no roles file.

    The roles that workers publish count too. Without a roles file, a role must be one of these if
    they can be read. With a roles file, it may be in either place.

    Raises:
        UnknownRole: The roles can be read, and this role is not one of them.
    """
    in_file = role_names()
    if in_file is not None and role in in_file:
        return queue_of(role)
    served = roles.published()
    if served and not served.serves(role):
        served = roles.published(roles.FRESH_S)
    if in_file is None:
        if served and not served.serves(role):
            raise UnknownRole.named(role, served.roles, "the workers' roles file")
        return COMMON_QUEUE
    if not served:
        raise UnknownRole.named(role, in_file, "the roles file")
    if role in served.roles:
        return queue_of(role)
    raise UnknownRole.named(role, in_file | served.roles.keys(), "the roles file")


def message_headers(headers: Mapping[str, object] | None, digests: str) -> dict[str, object]:
    """
    Return a message's headers.

    Args:
        headers: The caller's headers.
        digests: `PreparedCall.digests` if the caller has chosen the task id; else empty.
    """
    ours: dict[str, object] = {}
    if digests:
        ours[HEADER] = {"asked": digests}
    return {**ours, **(headers or {})}


def enqueue_persistently(enqueue: Callable[[], T]) -> T:
    """
    Enqueue a task; in a worker, retry until Redis is available.

    In a worker the task follows one that is settled and paid for, and nothing else will enqueue it.
    Its id was chosen earlier, so the task is paid for once even if it is queued twice.
    """
    if app.current_worker_task is None:
        return enqueue()
    return retry_celery_step(enqueue, FOREVER)
