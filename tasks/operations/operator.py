"""
The changes that an operator makes to a running fleet, by a command or on a page.

Each change has an entry in the journal (`breakwater.messaging.journal`). Pause, resume, drain,
retry and drop write it in the same script as the change; a forced breaker, a reload and a
cancellation write it first, so that no change lacks its entry. Every `RedisError` is raised as it
is.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Literal, TypedDict, cast

import redis

from breaker import Breakers, BreakerState
from breaker.state import Forced
from breakwater.attempt import RETRIED, Attempt, attempts_as_json
from breakwater.celery_app import app
from breakwater.config import role_names
from breakwater.messaging.journal import Command, Operations, journal_entry
from breakwater.messaging.names import COMMON_QUEUE, queue_of
from breakwater.redis.batches import batches
from breakwater.redis.text import to_text
from tasks.delivery.delivery_store import DeliveryStore
from tasks.operations.dead_letters import DeadLetter
from tasks.operations.fleet import Worker

REPLY_S = 10.0
"""A `solo` worker answers between two tasks, others within milliseconds."""
BATCH_SIZE = 200
"""Dead letters that one script drops at most, so that none keeps Redis busy for long."""
RetryOutcome = Literal["retried", "gone", "lost", "answered"]


class ReloadReply(TypedDict, total=False):
    """A worker's reply to `reload`: `error`, or the versions and the faults of the file."""

    error: str
    before: str
    after: str
    faults: list[str]


class Operator:
    """
    Change a running fleet.

    One object serves a whole process. Each change names its command: what one command does to a
    thousand letters is one journal entry, and a page names the user of each request. Without a
    command a change is one of its own, by `breakwater.messaging.journal.whoami`.

    Args:
        client: Any redis-py client; used with its own timeouts and retries.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._store = DeliveryStore(client)

    def pause(
        self, queues: Iterable[str], why: str = "", command: Command | None = None
    ) -> list[str]:
        """
        Stop all workers from taking tasks of these queues until `resume`; running tasks finish.

        Returns:
            The queues that were not paused before.
        """
        details: dict[str, object] = {}
        if why:
            details["why"] = why
        return self._run("pause", journal_entry("pause", details, command), why, *queues)

    def resume(self, queues: Iterable[str], command: Command | None = None) -> list[str]:
        """Let workers take tasks of these queues again, at once; return those that were paused."""
        return self._run("resume", journal_entry("resume", command=command), *queues)

    def drain(self, workers: Iterable[Worker], command: Command | None = None) -> list[str]:
        """
        Stop these workers from taking tasks; each exits when its running tasks have finished.

        Returns:
            The names of the workers that are alive and were not draining before.
        """
        ids_and_names = [word for worker in workers for word in (worker.id, worker.name)]
        return self._run("drain", journal_entry("drain", command=command), *ids_and_names)

    def reload(
        self, names: Collection[str], reply_s: float = REPLY_S, command: Command | None = None
    ) -> Mapping[str, ReloadReply]:
        """
        Make every worker read its roles file now.

        Args:
            names: The workers that are expected to reply.

        Returns:
            The reply of each worker by its name; `{"error": "no answer"}` if none came in time.
        """
        Operations(self._client).record("reload", [*names], command=command)
        replies: dict[str, ReloadReply] = {name: {"error": "no answer"} for name in names}
        limit = len(set(names))
        for reply in (
            app.control.broadcast("reload", reply=True, timeout=reply_s, limit=limit) or ()
        ):
            replies.update(reply)
        return replies

    def force_breaker(
        self,
        breakers: Breakers,
        name: str,
        forced: Forced | None,
        command: Command | None = None,
    ) -> BreakerState:
        """
        Keep a breaker open or closed whatever its calls return; None returns it to its own rules.

        Raises:
            ValueError: `name` cannot be a breaker's name, or its key belongs to another program.
        """
        breaker = breakers.get(name)
        Operations(self._client).record(f"breaker {forced or 'auto'}", [name], command=command)
        return breaker.force(forced)

    def retry(self, letter: DeadLetter, command: Command | None = None) -> RetryOutcome:
        """
        Queue a dead letter's message again with a new deadline; its attempts are kept.

        Two operators who retry one letter at the same time queue it once. If the roles file no
        longer has the role of the letter's queue, the message goes to the common queue: every
        worker consumes that one, and fails the task with `UnknownRole`.

        Returns:
            `retried`; or `gone` (another operator has retried or dropped it), `lost` (its message
            no longer exists), `answered` (its task has another result by now). Nothing has changed
            in these three cases.
        """
        why = f"by hand, after {letter.error}"
        retried = Attempt("", "", "rejected", error=RETRIED, why=why)
        attempts = json.dumps(attempts_as_json([*letter.attempts, retried]))
        queue = ""  # the letter's own
        if _is_of_removed_role(letter.queue):
            queue = COMMON_QUEUE
        entry = journal_entry("dead retry", command=command)
        reply = self._store.script("revive")(args=[letter.id, queue, attempts, entry])
        return cast("RetryOutcome", to_text(reply))

    def drop(self, letters: Iterable[DeadLetter], command: Command | None = None) -> int:
        """Delete letters and their messages for good; return how many still existed."""
        entry = journal_entry("dead drop", command=command)
        script = self._store.script("drop")
        return sum(
            cast("int", script(args=[entry, *ids]))
            for ids in batches((letter.id for letter in letters), BATCH_SIZE)
        )

    def cancel(self, task_ids: Collection[str], command: Command | None = None) -> None:
        """Cancel the tasks that have no result yet; see `breakwater.celery_app.Control.revoke`."""
        app.control.revoke([*task_ids], command=command)

    def _run(self, script: str, *args: str) -> list[str]:
        return [to_text(name) for name in self._store.script(script)(args=args)]


def _is_of_removed_role(queue: str) -> bool:
    """Return whether the queue was made for a role that the roles file no longer has."""
    roles = role_names()
    if roles is None or not queue.startswith(queue_of("")):
        return False
    return queue not in {queue_of(role) for role in roles}
