"""The task: `complete(role, prompt, **options)`, from the producer's call to the settled result."""

import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from celery import Task
from celery.result import AsyncResult

from tasks.call import Call, bind
from tasks.config import role_names
from tasks.errors import BreakwaterError, Cancelled, DeadlineExceeded, UnknownRole
from tasks.queue import COMMON_QUEUE, app, queue_of, shadow_name

if TYPE_CHECKING:
    from tasks.ledger import Attempt
    from tasks.routing import Routed

MAX_WAIT_S = 60.0
"""A waiting task looks again at least this often."""
MAX_CARRIED = 100
"""Attempts of earlier walks that travel with a waiting task; the newest are kept."""
MAX_REPEATS = 3
"""How often a task is repeated after a call that was cut off, or a bug of ours, before it fails."""
HEADER = "breakwater"
"""The message's header for what must outlive one delivery."""


class Complete(Task):  # type: ignore[misc]
    """The task class behind `complete`: it checks, routes to a queue, and shows no prompt."""

    Request = "tasks.queue:QuietRequest"
    # Events and logs carry this much of the result: its task id, none of the answer.
    resultrepr_maxsize = 64
    # The worker's log has our own line for these, without a traceback.
    throws = (BreakwaterError,)
    max_retries = None

    def apply_async(
        self,
        args: Any = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncResult:
        """
        Check the call and put it on its role's queue; options are Celery's.

        Raises:
            BadTask: The role, the prompt or an option is at fault; nothing was queued.
            kombu.exceptions.OperationalError: Redis did not take it; nothing was queued.
        """
        role, prompt, chosen = bind(args or (), kwargs or {})
        call = Call.of(role, prompt, chosen)
        headers = dict(options.pop("headers", None) or {})
        headers.setdefault(HEADER, asdict(Carried(_now_ms())))
        options.setdefault("shadow", shadow_name(call.role))
        if not options.get("queue"):
            options["queue"] = queue_for(call.role)
        return super().apply_async(
            (call.role, _as_json(call)),
            chosen,
            headers=headers,
            argsrepr="(…)",
            kwargsrepr="{…}",
            **options,
        )


@app.task(bind=True, base=Complete, name="complete", typing=False)
def complete(self: Task, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """
    Answer a prompt through the first provider of the role's chain that can.

    Args:
        role: A role of the roles file.
        prompt: A string, or a list of messages `{"role": …, "content": …}`.
        system: Instead of the role's own system prompt.
        params: Parameters over the role's, such as `{"temperature": 0}`.
        metadata: A JSON object that is kept with the task.
        deadline_s: Seconds from enqueueing until the task gives up; the role's own if absent.

    Returns:
        The result object: text, provider, usage, attempts and so on.

    Raises:
        BadTask: The role does not exist, or the prompt or an option does not fit.
        ProviderError: The prompt is at fault; the class says how.
        ChainExhausted: Every target refused the prompt.
        DeadlineExceeded: No target answered in time.
    """
    # Late, so that a producer that only enqueues imports no HTTP stack and no log.
    from tasks.routing import NothingAvailable, route  # noqa: PLC0415
    from tasks.runtime import runtime  # noqa: PLC0415

    role_name, prompt, options = bind(args, kwargs)
    call = Call.of(role_name, prompt, options)
    carried = Carried.of(self)
    current = runtime()
    role = current.settings.role(call.role)
    started_ms = _now_ms()
    left_s = (call.deadline_s or role.deadline_s) - (started_ms - carried.enqueued_ms) / 1000
    if left_s <= 0:
        raise _too_late(call, carried.attempts)
    try:
        routed = route(
            call,
            role,
            current.registry,
            task_id=self.request.id,
            deadline=time.monotonic() + left_s,
            earlier=carried.attempts,
        )
    except NothingAvailable as nothing:
        carried = carried.after(nothing.attempts)
        if nothing.wait_s >= left_s:
            raise _too_late(call, carried.attempts) from None
        wait_s = nothing.wait_s + _jitter_s(self.request.retries, left_s - nothing.wait_s)
        raise _later(self, call, options, carried, min(wait_s, MAX_WAIT_S)) from None
    except Exception as fault:
        if not _nobodys_fault(fault) or carried.repeats >= MAX_REPEATS:
            raise
        carried = replace(carried, repeats=carried.repeats + 1)
        wait_s = _jitter_s(carried.repeats, left_s)
        raise _later(self, call, options, carried, wait_s) from fault
    return _result(self.request.id, call, routed, carried, started_ms)


def queue_for(role: str) -> str:
    """
    Choose the role's own queue, or the common one when the roles cannot be known here.

    Raises:
        UnknownRole: The roles are known, and this is none of them.
    """
    known = role_names()
    if known is None:
        return COMMON_QUEUE
    if role not in known:
        raise UnknownRole.named(role, known, "the roles file")
    return queue_of(role)


def _as_json(call: Call) -> Any:
    """Return the prompt as it travels: a plain string where it is one."""
    if len(call.messages) == 1 and call.messages[0].role == "user":
        return call.messages[0].content
    return [{"role": m.role, "content": m.content} for m in call.messages]


@dataclass(frozen=True, slots=True)
class Carried:
    """What travels in the message from one delivery to the next."""

    enqueued_ms: int
    attempts: list[dict[str, Any]] = field(default_factory=list)
    repeats: int = 0
    """How often the task was repeated because a call was cut off, or because of a bug."""

    @classmethod
    def of(cls, task: Task) -> "Carried":
        """Read the message's header; a message from another codebase may have none."""
        match (task.request.headers or {}).get(HEADER):
            case {"enqueued_ms": int(at), "attempts": list(attempts), "repeats": int(repeats)}:
                return cls(at, attempts, repeats)
            case _:
                return cls(_now_ms())

    def after(self, attempts: "Iterable[Attempt]") -> "Carried":
        """Add the attempts of a walk; the newest are kept."""
        return replace(
            self, attempts=[*self.attempts, *(a.as_dict() for a in attempts)][-MAX_CARRIED:]
        )


def _nobodys_fault(fault: Exception) -> bool:
    """Tell a call that was cut off from our side, or a bug of ours, from a verdict on the task."""
    return isinstance(fault, Cancelled) or not isinstance(fault, BreakwaterError)


def _jitter_s(tries: int, at_most_s: float) -> float:
    """
    Draw a wait between nothing and a bound that doubles with every try.

    Full jitter keeps a thousand waiting tasks from returning at once.
    Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    return random.uniform(0, min(MAX_WAIT_S, 2.0 ** min(tries, 6), at_most_s))


def _later(
    task: Task, call: Call, options: dict[str, Any], carried: Carried, wait_s: float
) -> Exception:
    """Put the task back into Redis, not to be looked at before `wait_s` seconds have passed."""
    again: Exception = task.retry(
        args=(call.role, _as_json(call)),
        kwargs=options,
        countdown=wait_s,
        headers={HEADER: asdict(carried)},
        throw=False,
    )
    return again


def _too_late(call: Call, attempts: list[dict[str, Any]]) -> DeadlineExceeded:
    last = f"; the last attempt: {attempts[-1]['error']}" if attempts else ""
    return DeadlineExceeded(
        f"no target of role {call.role!r} answered before the deadline{last}",
        {"attempts": attempts},
    )


def _result(
    task_id: str, call: Call, routed: "Routed", carried: Carried, started_ms: int
) -> dict[str, Any]:
    completion, served = routed.completion, routed.attempts[-1]
    return {
        "task_id": task_id,
        "role": call.role,
        "text": completion.text,
        "data": None,
        "tool_calls": [],
        "provider": routed.target.provider,
        "model": completion.model,
        "finish_reason": completion.finish_reason,
        "usage": completion.usage.as_dict(),
        "cost_usd": served.cost_usd,
        "latency_ms": served.latency_ms,
        "queued_ms": max(0, started_ms - carried.enqueued_ms),
        "request_id": completion.request_id,
        "attempts": carried.after(routed.attempts).attempts,
    }


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
