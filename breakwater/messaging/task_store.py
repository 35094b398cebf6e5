"""
The steps in Redis that a client takes too: each one script, one round trip.

The keys are explained at the head of `scripts/delivery.lua`. Time is Redis' own. Every `RedisError`
comes out as it is. What only a worker does is in `tasks/delivery/delivery_store.py`.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any, cast

import redis
from redis.commands.core import Script

from breakwater.messaging.keys import result_key, task_key
from breakwater.messaging.settlement import Settlement
from breakwater.redis.script_arguments import named
from breakwater.redis.text import to_text

SCRIPTS = ("settle", "record", "where")


@functools.cache
def packaged() -> Mapping[str, str]:
    """Read the scripts of a client, each whole."""
    return read_scripts("breakwater.messaging", SCRIPTS)


def read_scripts(package: str, names: Iterable[str]) -> Mapping[str, str]:
    """Read scripts of a package's folder; the functions that they share stand in front of each."""
    shared = (files("breakwater.messaging") / "scripts" / "delivery.lua").read_text()
    folder = files(package) / "scripts"
    return {name: shared + (folder / f"{name}.lua").read_text() for name in names}


class TaskStore:
    """
    Run the scripts.

    Args:
        client: Any redis-py client; used with its own timeouts and retries.
        sources: The scripts by name; tests put a clock of their own into them.
    """

    def __init__(self, client: redis.Redis, sources: Mapping[str, str] | None = None) -> None:
        self.client = client
        self._scripts = {
            name: client.register_script(source) for name, source in (sources or packaged()).items()
        }

    def script(self, name: str) -> Script:
        """Return a script, to run it on a connection of one's own."""
        return self._scripts[name]

    def settle(self, settlement: Settlement) -> str:
        """
        Write a task's result, once.

        Returns:
            settled, opened (settled, and that queue was parked), already (it has a result), or
            superseded (another delivery has begun).
        """
        one = settlement
        letter = [word for pair in one.dead.items() for word in pair]
        arguments = named(
            fence=one.fence, tag=one.tag, task_id=one.task_id, expires_s=one.expires_s,
            opens=one.opens, numbered=one.numbered, keep_s=one.keep_s, letter=letter,
        )  # fmt: skip
        keys = [task_key(one.task_id), result_key(one.task_id)]
        return to_text(self._run("settle", keys, arguments, one.meta, one.answer, *one.rows))

    def is_settled(self, task_id: str) -> bool:
        """Tell whether a task has a result."""
        return bool(self.client.exists(result_key(task_id)))

    def _run(self, name: str, keys: Sequence[str], *args: Any) -> Any:
        return cast("Any", self._scripts[name](keys=keys, args=args))
