"""
The response cache: what is kept of an answer, and which calls have the same.

A role with `cache` makes the same call once: while it is out the same ones wait for its answer
("single flight"), and afterwards they get it for as long as the role keeps it. How they wait is
told in docs/delivery.md; the keys at the head of `delivery/scripts/delivery.lua`.
"""

import json
from dataclasses import asdict, fields
from decimal import Decimal
from typing import NamedTuple

from breakwater.attempt import Attempt, Cost, Usage
from breakwater.calls.call import CompletionCall
from breakwater.redis.encryption import fingerprint, opened, seal
from breakwater.result import Answer
from tasks.answering.walk import ChainAnswer
from tasks.config import Role, Settings, Target
from tasks.delivery.lease import Lease
from tasks.ledger.attempt_recorder import AttemptRecorder
from tasks.providers.base import Completion

VERSION = 1
"""Of what is kept; answers of another one are not found."""
OF_THE_TASK = frozenset({"metadata", "deadline_s", "stream"})
"""What of a call does not change its answer."""
WORTH_KEEPING = frozenset({"stop", "tool_calls"})
"""How a whole and good answer ends."""
NOT_KEPT_S = 60
"""How long nobody waits for the same call again, when its answer turned out not worth keeping."""


def shared(
    call: CompletionCall,
    role: Role,
    settings: Settings,
    lease: Lease,
    recorder: AttemptRecorder,
    left_s: float,
) -> ChainAnswer | None:
    """
    Return the answer that another task got to this very call; None: make it.

    Args:
        role: One that shares.
        lease: Of the task; it knows afterwards whether others wait for its answer.
        recorder: Told of the attempt that was not needed.
        left_s: How long the task has to wait at most.

    Raises:
        WaitsForSharedAnswer: Another one is making it; this task waits in Redis.
        DeliverySuperseded, Cancelled: As of `Lease.share`.
    """
    keep_s = role.cache.ttl_s if role.cache else 0
    answer = lease.share(digest(call, role, settings), round(left_s * 1000) + 1, keep_s)
    if answer is None:
        return None
    routed = found(
        answer, number=recorder.number(), started_ms=recorder.now_ms(), waited=lease.waited
    )
    (attempt,) = routed.attempts
    recorder.record(attempt, settings.providers[attempt.provider], attempt.model)
    return routed


def digest(call: CompletionCall, role: Role, settings: Settings) -> str:
    """Return 64 hex digits; calls that have the same ask the same, of the same targets."""
    asked = {field.name for field in fields(call)} - OF_THE_TASK
    return fingerprint(
        json.dumps(
            {
                **{name: value for name, value in asdict(call).items() if name in asked},
                "version": VERSION,
                "system": call.system if call.system is not None else role.system,
                "params": [settings.params_for(target, role, call.params) for target in role.chain],
                "chain": [_of_target(target, settings) for target in role.chain],
            },
            sort_keys=True,
        )
    )


def _of_target(target: Target, settings: Settings) -> list[str | None]:
    provider = settings.providers[target.provider]
    return [provider.name, provider.adapter, provider.base_url, target.model]


class CacheEntry(NamedTuple):
    """The serialised answer for equal calls, and how long Redis keeps it; 0: not at all."""

    keep_s: int = 0
    answer: str = ""


def kept(task_id: str, routed: ChainAnswer, ttl_s: int) -> CacheEntry:
    """
    Return the cache entry of an answer.

    Args:
        task_id: The task that made the call.
        routed: The answer.
        ttl_s: How long the role keeps answers.
    """
    completion = routed.completion
    if completion.finish_reason not in WORTH_KEEPING:
        return CacheEntry(min(ttl_s, NOT_KEPT_S))
    answer = routed.answer(task_id).as_dict()
    return CacheEntry(ttl_s, seal(json.dumps(answer)))


def found(text: str, *, number: int, waited: bool, started_ms: int = 0) -> ChainAnswer:
    """
    Return a kept answer as one that cost nothing.

    Args:
        text: What was kept.
        number: Of the attempt that stands for it.
        waited: The task waited for it; else it was there.
        started_ms: When the attempt was made.
    """
    answer = Answer.from_dict(json.loads(opened(text)))
    shared = f"shared the call of task {answer.task_id}"
    why = shared if waited else "answered by the response cache"
    attempt = Attempt(
        answer.provider, answer.model, "cached", why=why, number=number,
        started_ms=started_ms, cost=Cost(Decimal(0)),
    )  # fmt: skip
    completion = Completion(
        text=answer.text,
        model=answer.model,
        finish_reason=answer.finish_reason,
        usage=Usage(),
        tool_calls=answer.tool_calls,
        data=answer.data,
    )
    target = Target(answer.provider, answer.model)
    return ChainAnswer(completion, target, [attempt], admits_all=False)
