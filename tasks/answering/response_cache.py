"""
The response cache: which calls are equal, and what Redis keeps of an answer.

A role with `cache` makes equal calls once. While the call is out, tasks with an equal call wait
for its answer ("single flight"). Afterwards they get the answer for as long as the role keeps it.
docs/delivery.md explains how they wait; the head of `delivery.lua` lists the keys.
"""

import json
from dataclasses import asdict, fields
from decimal import Decimal
from typing import NamedTuple

import structlog

from breakwater.attempt import Attempt, Cost, Usage
from breakwater.calls.call import CompletionCall
from breakwater.errors import ConfigError
from breakwater.redis.encryption import fingerprint, opened, seal
from breakwater.result import Answer
from tasks.answering.walk import ChainAnswer
from tasks.config import Role, Settings, Target
from tasks.delivery.lease import Lease
from tasks.ledger.attempt_recorder import AttemptRecorder
from tasks.providers.base import Completion

_log = structlog.get_logger("breakwater")

VERSION = 1
"""The version of the stored answer; answers of other versions are not used."""
OF_THE_TASK = frozenset({"metadata", "deadline_s", "stream"})
"""Fields of a call that do not change its answer."""
WORTH_KEEPING = frozenset({"stop", "tool_calls"})
"""Finish reasons of answers that are kept."""
NOT_KEPT_S = 60
"""After an answer that is not kept, equal calls are made without waiting for this long."""
UNREADABLE = (ValueError, KeyError, RecursionError, ConfigError)
"""What reading a damaged answer raises; ConfigError: no key decrypts it."""


def shared(
    call: CompletionCall,
    role: Role,
    settings: Settings,
    lease: Lease,
    recorder: AttemptRecorder,
    left_s: float,
) -> ChainAnswer | None:
    """
    Return the answer that another task got to an equal call; None: this task makes the call.

    Args:
        role: A role with `cache`.
        lease: The task's; `keep_s` says afterwards whether others wait for its answer.
        recorder: Records the attempt that was not needed.
        left_s: Seconds for which the task can wait.

    An answer that cannot be read is a miss: one damaged entry must not fail every equal prompt.

    Raises:
        WaitsForSharedAnswer: Another task makes the call; this one waits in Redis.
        DeliverySuperseded: See `Lease.share`.
        Cancelled: See `Lease.share`.
    """
    keep_s = role.cache.ttl_s if role.cache else 0
    answer = lease.share(digest(call, role, settings), round(left_s * 1000) + 1, keep_s)
    if answer is None:
        return None
    try:
        routed = found(
            answer, number=recorder.number(), started_ms=recorder.now_ms(), waited=lease.waited
        )
        provider = settings.providers[routed.target.provider]
    except UNREADABLE as error:
        _log.warning("cache.unreadable", task_id=lease.task_id, error=type(error).__name__)
        return None
    (attempt,) = routed.attempts
    recorder.record(attempt, provider, attempt.model)
    return routed


def digest(call: CompletionCall, role: Role, settings: Settings) -> str:
    """Return 64 hex digits: equal for calls that ask the same of the same targets."""
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
