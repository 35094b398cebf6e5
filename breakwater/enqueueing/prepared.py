"""What a call becomes before it is queued: checked, with its queue and its headers."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from breakwater import roles
from breakwater.calls.call import Call, bind
from breakwater.calls.messages import as_json
from breakwater.calls.options import to_wire
from breakwater.celery_app import app
from breakwater.config import role_names
from breakwater.errors import UnknownRole
from breakwater.messaging.names import COMMON_QUEUE, queue_of
from breakwater.messaging.times import HEADER
from breakwater.redis.encryption import fingerprints
from breakwater.redis.retry import FOREVER, persistently

T = TypeVar("T")

ANSWER_OPTIONS = ("system", "params", "schema", "tools", "tool_choice")
"""Options on which an answer depends."""
REDACTED_REPRS = {"argsrepr": "(…)", "kwargsrepr": "{…}"}
"""What monitoring sees of the arguments."""


@dataclass(frozen=True, slots=True)
class PreparedCall:
    """A call that may be queued, as it goes into its message."""

    role: str
    prompt: Any = field(repr=False)
    options: dict[str, Any] = field(repr=False)
    queue: str

    @classmethod
    def of(
        cls, args: Sequence[Any], kwargs: Mapping[str, Any], choose: Callable[[str], str]
    ) -> "PreparedCall":
        """
        Check a call of `complete`.

        Args:
            choose: Its queue, by its role.

        Raises:
            BadTask: The role, the prompt or an option is at fault.
        """
        role, prompt, chosen = bind(args, to_wire(kwargs))
        call = Call.of(role, prompt, chosen)
        queue = choose(call.role)
        roles.check_params(call.role, call.params)
        return cls(call.role, as_json(call.messages), chosen, queue)

    def digests(self) -> str:
        """
        Return digests of what is asked, one for each encryption key, with a space between.

        Calls with the same ask the same: role, prompt, and the options in `ANSWER_OPTIONS`.
        """
        options = {name: self.options.get(name) for name in ANSWER_OPTIONS}
        return " ".join(fingerprints(json.dumps([self.role, self.prompt, options], sort_keys=True)))


def queue_selector(queue: str | None) -> Callable[[str], str]:
    """Return what chooses a call's queue: this one, if one is given."""
    return (lambda _role: queue) if queue else queue_for


def queue_for(role: str) -> str:
    """
    Choose the role's own queue, or the common one where there is no roles file.

    What the workers publish is known too: without a file a role must be among that, if it is known;
    with one a role may be in either.

    Raises:
        UnknownRole: The roles are known, and this is none of them.
    """
    known = role_names()
    if known is not None and role in known:
        return queue_of(role)
    served = roles.published()
    if served and not served.serves(role):
        served = roles.published(roles.FRESH_S)
    if known is None:
        if served and not served.serves(role):
            raise UnknownRole.named(role, served.roles, "the workers' roles file")
        return COMMON_QUEUE
    others = served.roles if served else {}
    if role in others:
        return queue_of(role)
    raise UnknownRole.named(role, known | others.keys(), "the roles file")


def message_headers(given: Mapping[str, Any] | None, asked: str) -> dict[str, Any]:
    """
    Return a message's headers.

    Args:
        asked: Of a task whose id the caller has chosen: `PreparedCall.digests`; else empty.
    """
    return {**({HEADER: {"asked": asked}} if asked else {}), **(given or {})}


def enqueue_persistently(enqueue: Callable[[], T]) -> T:
    """
    Enqueue a task; in a worker for as long as Redis is away.

    There it follows a task that is settled and paid for, and nobody else enqueues it. Its id was
    chosen before, so it may be queued twice and is paid for once.
    """
    if app.current_worker_task is None:
        return enqueue()
    return persistently(enqueue, FOREVER)
