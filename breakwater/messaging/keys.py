"""
The keys of the delivery in Redis; the head of `scripts/delivery.lua` explains each.

Other keys have other owners, which `OWNERS` of `tests/test_keys.py` lists.
"""

from breakwater.messaging.names import RESULT

CONSUMED_QUEUES = "queues"
WORKERS = "workers"
WORKERS_UNTIL = "workers:until"
DRAINING = "draining"
ISOLATED_WORKERS = "apart:workers"
FOREIGN_TASKS = "foreign"
PARKED_EVENTS = "parked:events"
DEAD_LETTERS = "dead"
DEAD_MESSAGES = "dead:messages"
COUNTS = "delivery"
LEDGER = "ledger"


def task_key(task_id: str) -> str:
    """Return the hash with what outlives one delivery of an unsettled task."""
    return f"task:{task_id}"


def result_key(task_id: str) -> str:
    """Return the key of a task's result, and the channel on which it is published."""
    return RESULT + task_id


def cache_key(digest: str) -> str:
    """Return the string with the cached answer to a call."""
    return f"cache:{digest}"


def shared_call_key(digest: str) -> str:
    """Return the string with the id of the task that makes a call for all equal ones."""
    return f"flight:{digest}"


def wakeup_key(queue: str) -> str:
    """Return the list on which idle workers of a queue wait."""
    return f"bell:{queue}"
