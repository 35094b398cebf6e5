"""Report while a task is waited for: that it waits, why, and until when."""

import time
from dataclasses import dataclass

from redis.exceptions import RedisError

from breakwater.messaging.names import COMMON_QUEUE
from breakwater.messaging.whereabouts import OperatorHold, Parked, Whereabouts, find
from breakwater.redis.connection import client, explain
from tasks.operations.fleet import Fleet, FleetSnapshot, Queue
from workers.terminal.console import err
from workers.terminal.figures import age, number_of
from workers.terminal.plain import plain

REDIS_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """Where a task is, and the state of its queue."""

    where: Whereabouts
    queue: Queue | None
    now_ms: int

    @property
    def is_taken(self) -> bool:
        """Whether a worker has taken the task, or has answered it."""
        return self.where.state in {"running", "settled"} or self.where.how == "taken"

    def lines(self) -> list[str]:
        """Describe what holds the task and what to do about it; empty if nothing is known."""
        if self.where.state == "running":
            return ["a worker runs it"]
        if self.where.state != "waiting":
            return []
        return [*self._obstacles(), self._place()]

    def _obstacles(self) -> list[str]:
        lines = []
        paused, parked, role = self.where.paused, self.where.parked, ""
        if self.queue:
            paused = self.queue.paused or paused
            parked = self.queue.parked or parked
            role = self.queue.role
        role = plain(role or self.where.queue.removeprefix("role."))
        if paused:
            lines.append(_describe_pause(role, paused))
        if parked:
            lines.append(f"{role} is parked {self._until(parked)}: {plain(parked.why)}")
        if self.queue and not self.queue.consumers:
            lines.append(
                f"no worker consumes the queue {plain(self.queue.name)} now; "
                f"start one: celery -A workers worker"
            )
        return lines

    def _until(self, parked: Parked) -> str:
        left_s = (parked.until_ms - self.now_ms) / 1000
        if left_s <= 0:
            return "until a call is tried"
        moment = time.strftime("%H:%M:%S UTC", time.gmtime(parked.until_ms / 1000))
        return f"until {moment} ({age(left_s)})"

    def _place(self) -> str:
        where = self.where
        if where.how == "shared":
            return "it waits for the answer to an equal call, which another task makes"
        if where.how == "taken":
            return "a worker has taken it, and is about to begin"
        if where.due_ms is not None:
            left_s = max(0.0, (where.due_ms - self.now_ms) / 1000)
            return f"it is delayed for {age(left_s)} more"
        if where.ahead is None:
            return "it waits to be taken again"
        if not where.ahead:
            return f"it waits in {plain(where.queue)}, the next"
        return f"it waits in {plain(where.queue)} behind {number_of(where.ahead, 'other')}"


def _describe_pause(role: str, paused: OperatorHold) -> str:
    paused_by = f"{role} is paused by {plain(paused.who)}"
    if paused.why:
        paused_by += f": {plain(paused.why)}"
    return f"{paused_by}; `breakwater resume {role}` when it is time"


def read_status(task_id: str, queue: str) -> TaskStatus:
    """
    Read where a task is, and the state of its queue.

    Args:
        queue: The queue that the task was sent to; empty if that is unknown.

    Raises:
        RedisError: Redis does not answer.
    """
    with client(connect_s=REDIS_TIMEOUT_S, answer_s=REDIS_TIMEOUT_S) as redis:
        where, fleet = find(redis, task_id), Fleet(redis).snapshot()
    return TaskStatus(where, _queue_named(fleet, where.queue or queue), fleet.now_ms)


def _queue_named(fleet: FleetSnapshot, name: str) -> Queue | None:
    queues = {queue.name: queue for queue in fleet.queues}
    if name in queues or not name:
        return queues.get(name)
    # A queue that no worker has ever consumed.
    role = ""
    if name != COMMON_QUEUE:
        role = name.removeprefix("role.")
    return Queue(name, role, 0, None, 0, 0, 0, None, None)


class StatusReporter:
    """Print a task's status on standard error, each line once while it stays true."""

    def __init__(self, task_id: str, queue: str) -> None:
        self._task_id, self._queue = task_id, queue
        self._printed: list[str] = []
        self.is_taken = False

    def report(self) -> None:
        """Read the status, and print the lines that are new."""
        try:
            status = read_status(self._task_id, self._queue)
        except RedisError as error:
            lines = [f"Redis: {explain(error)[0]}; still waiting (task {self._task_id})"]
        else:
            self.is_taken = self.is_taken or status.is_taken
            lines = status.lines()
        for line in lines:
            if line not in self._printed:
                err.print(line, style="yellow")
        self._printed = lines
