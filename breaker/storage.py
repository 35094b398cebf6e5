"""
The interface of the storages that keep breakers.

    redis_storage.py   for a fleet: breakers in Redis, one Lua script for each step
    local_storage.py   for one process: breakers in memory, the same rules
    failover.py        Redis while it answers, this process's memory while it does not
"""

from collections.abc import Iterable
from typing import Protocol

from breaker.state import BreakerState, Forced, Report, Rules, State, StorageReply


class Storage(Protocol):
    """Keeps breakers and runs the steps of a call; each step is atomic."""

    def admit(self, name: str, rules: Rules, token: str) -> StorageReply:
        """Admit or refuse a call; a token that was admitted is admitted again."""

    def record(self, name: str, rules: Rules, report: Report) -> StorageReply | None:
        """
        Count the outcome of an admitted call. A repetition would count twice.

        Returns:
            None if the report was dropped: what admitted the call is no longer in use.
        """

    def renew(self, name: str, rules: Rules, tokens: Iterable[str]) -> StorageReply:
        """Restart the leases of running probes; an expired lease stays expired."""

    def peek(self, name: str, rules: Rules) -> BreakerState:
        """Read the state of a breaker; nothing changes."""


class FleetStorage(Storage, Protocol):
    """A storage that a whole fleet shares, where an operator's override reaches every process."""

    def force(
        self, name: str, rules: Rules, *, to: State | None = None, forced: Forced | str = ""
    ) -> StorageReply:
        """
        Make a manual transition, and set (open, closed) or remove (none) the override.

        Raises:
            RedisError: Redis does not answer; nothing has changed.
        """
