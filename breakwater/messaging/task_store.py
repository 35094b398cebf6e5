"""
The Redis steps that clients take too: each is one script and one round trip.

The head of `scripts/delivery.lua` explains the keys. All times are Redis' own. Every `RedisError`
is passed on unchanged. The steps that only workers take are in `tasks/delivery/delivery_store.py`.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import redis
from redis.commands.core import Script

from breakwater.messaging.keys import result_key, task_key
from breakwater.messaging.settlement import Settlement
from breakwater.redis.script_arguments import named
from breakwater.redis.text import to_text

Reply = Any
"""An argument or a reply of a script: text, bytes, a number, or a list of these."""
SCRIPTS = ("settle", "record", "where")


@functools.cache
def packaged() -> Mapping[str, str]:
    """Read the complete scripts of a client."""
    return read_scripts("breakwater.messaging", SCRIPTS)


def read_scripts(package: str, names: Iterable[str]) -> Mapping[str, str]:
    """Read the scripts of a package; each begins with the functions that all scripts share."""
    shared = (files("breakwater.messaging") / "scripts" / "delivery.lua").read_text()
    folder = files(package) / "scripts"
    return {name: shared + (folder / f"{name}.lua").read_text() for name in names}


class TaskStore:
    """
    Run the scripts.

    Args:
        client: Any redis-py client; used with its own timeouts and retries.
        sources: The scripts by name; tests insert a clock of their own.
    """

    def __init__(self, client: redis.Redis, sources: Mapping[str, str] | None = None) -> None:
        self.client = client
        self._scripts = {
            name: client.register_script(source) for name, source in (sources or packaged()).items()
        }

    def script(self, name: str) -> Script:
        """Return a script, so that the caller can run it on its own connection."""
        return self._scripts[name]

    def settle(self, settlement: Settlement) -> str:
        """
        Write a task's result, unless it has one.

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
        """Return whether a task has a result."""
        return bool(self.client.exists(result_key(task_id)))

    def _run(self, name: str, keys: Sequence[str], *args: Reply) -> Reply:
        return self._scripts[name](keys=keys, args=args)
