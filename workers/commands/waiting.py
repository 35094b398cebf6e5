"""What is said while a task is waited for: that it waits, why, and until when."""

import time
from dataclasses import dataclass

from redis.exceptions import RedisError

from breakwater.messaging.names import COMMON_QUEUE
from breakwater.messaging.whereabouts import Whereabouts, find
from breakwater.redis.connection import client, explain
from tasks.operations.fleet import Fleet, FleetSnapshot, Queue
from workers.terminal.console import age, err
from workers.terminal.plain import plain

REDIS_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Stand:
    """How a task stands, and its queue."""

    where: Whereabouts
    queue: Queue | None
    now_ms: int

    @property
    def runs(self) -> bool:
        """Tell whether a worker has it, or has answered."""
        return self.where.state in {"running", "settled"} or self.where.how == "taken"

    def lines(self) -> list[str]:
        """Say what holds it, and what to do about it; empty if it runs or is settled."""
        if self.where.state == "running":
            return ["a worker runs it"]
        if self.where.state != "waiting":
            return []
        return [*self._held(), *self._waits()]

    def _held(self) -> list[str]:
        held, queue = [], self.queue
        paused = (queue and queue.paused) or self.where.paused
        parked = (queue and queue.parked) or self.where.parked
        role = (queue.role if queue else "") or self.where.queue.removeprefix("role.")
        if paused:
            why = f": {plain(paused.why)}" if paused.why else ""
            held.append(
                f"{plain(role)} is paused by {plain(paused.who)}{why}; "
                f"`breakwater resume {plain(role)}` when it is time"
            )
        if parked:
            left_s = (parked.until_ms - self.now_ms) / 1000
            until = time.strftime("%H:%M:%S UTC", time.gmtime(parked.until_ms / 1000))
            when = f"until {until} ({age(left_s)})" if left_s > 0 else "until something is tried"
            held.append(f"{plain(role)} is parked {when}: {plain(parked.why)}")
        if queue and not queue.consumers:
            held.append(
                f"no worker consumes the queue {plain(queue.name)} now; "
                f"start one: celery -A workers worker"
            )
        return held

    def _waits(self) -> list[str]:
        where = self.where
        if where.how == "shared":
            return ["it waits for the answer to an equal call, which another task makes"]
        if where.how == "taken":
            return ["a worker has taken it, and is about to begin"]
        if where.due_ms is not None:
            left_s = max(0.0, (where.due_ms - self.now_ms) / 1000)
            return [f"it is put aside for {age(left_s)} more"]
        if where.ahead is None:
            return ["it waits to be taken again"]
        waits = f"it waits in {plain(where.queue)}"
        if not where.ahead:
            return [f"{waits}, the next"]
        return [f"{waits} behind {where.ahead} other{'s' if where.ahead > 1 else ''}"]


def stand(task_id: str, queue: str) -> Stand:
    """
    Look at a task and its queue.

    Args:
        queue: Where it was put; empty if that is not known.

    Raises:
        RedisError: Redis is away.
    """
    with client(connect_s=REDIS_TIMEOUT_S, answer_s=REDIS_TIMEOUT_S) as reached:
        where, view = find(reached, task_id), Fleet(reached).snapshot()
    return Stand(where, _named(view, where.queue or queue), view.now_ms)


def _named(view: FleetSnapshot, name: str) -> Queue | None:
    known = {queue.name: queue for queue in view.queues}
    if name in known or not name:
        return known.get(name)
    # No worker has ever consumed it.
    role = name.removeprefix("role.") if name != COMMON_QUEUE else ""
    return Queue(name, role, 0, None, 0, 0, 0, None, None)


class Teller:
    """Says how a task stands, whenever that is another than before."""

    def __init__(self, task_id: str, queue: str) -> None:
        self._task_id, self._queue = task_id, queue
        self._said: list[str] = []
        self.runs = False

    def look(self) -> None:
        """Look, and say what is new on standard error."""
        try:
            seen = stand(self._task_id, self._queue)
        except RedisError as error:
            lines = [f"Redis: {explain(error)[0]}; waiting on (task {self._task_id})"]
        else:
            self.runs = self.runs or seen.runs
            lines = seen.lines()
        for line in lines:
            if line not in self._said:
                err.print(line, style="yellow")
        self._said = lines
