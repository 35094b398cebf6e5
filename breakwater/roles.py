"""
Read the roles that workers publish in Redis, for producers without a roles file.

Workers write the hash `roles` with their heartbeat (`messaging/scripts/delivery.lua` explains it).
A producer caches the roles for half a minute, so that a call costs no round trip. If Redis does not
answer, the roles are unknown, and no call is refused.
"""

import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from redis.exceptions import RedisError

from breakwater.errors import ConfigError, InvalidOption
from breakwater.redis.connection import client, redis_url

ROLES = "roles"
AGE_S = 30.0
"""The maximum age of the cached roles."""
FRESH_S = 1.0
"""Their maximum age if a role is not among them."""
AWAY_S = 5.0
"""The pause after Redis did not answer."""
ANSWER_S = 0.5


@dataclass(frozen=True, slots=True)
class Published:
    """The roles that the workers of a fleet serve."""

    roles: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By role: the parameters that it refuses, and why."""
    any: bool = False
    """Whether some workers serve every role."""

    def serves(self, role: str) -> bool:
        """Return whether a worker serves this role."""
        return self.any or role in self.roles


class _Cache:
    """The roles that this process has read last."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.published: Published | None = None
        self.url = ""
        self.due_at = float("-inf")
        self.read_at = float("-inf")


_cache = _Cache()


def published(max_age_s: float = AGE_S) -> Published | None:
    """
    Return the roles that workers serve; None if they are unknown.

    Reads them from Redis if the cached ones are older than `max_age_s`; waits half a second at
    most.
    """
    now, url = time.monotonic(), redis_url()
    with _cache.lock:
        is_current = _cache.url == url
        if is_current and (now < _cache.due_at or now - _cache.read_at <= max_age_s):
            return _cache.published
        if not is_current:
            _cache.url, _cache.published = url, None
        latest = _read()
        if latest is None:
            _cache.due_at = time.monotonic() + AWAY_S
            return _cache.published
        _cache.read_at = time.monotonic()
        _cache.published = None
        if latest.roles or latest.any:
            _cache.published = latest
        return _cache.published


def check_params(role: str, params: Mapping[str, object]) -> None:
    """
    Refuse parameters that the workers would refuse, by the cached roles; never reads Redis.

    Raises:
        InvalidOption: As a worker raises it.
    """
    if _cache.published is None:
        return
    refused = _cache.published.roles.get(role, {})
    faults = [
        f"params.{name}: {why}; leave it out, or set drop_params: true for role {role!r}"
        for name, why in sorted(refused.items())
        if name in params
    ]
    if faults:
        raise InvalidOption("; ".join(faults), {"faults": faults})


def forget() -> None:
    """Clear the cache."""
    global _cache  # noqa: PLW0603 - one view a process
    _cache = _Cache()


def _read() -> Published | None:
    try:
        with client(connect_s=ANSWER_S, answer_s=ANSWER_S) as redis:
            texts = cast("list[bytes]", redis.hvals(ROLES))
    except (RedisError, ConfigError, OSError):
        return None
    roles: dict[str, Mapping[str, str]] = {}
    serves_any = False
    for text in texts:
        try:
            entry = json.loads(text)
            roles |= {str(name): dict(refused) for name, refused in entry["roles"].items()}
            serves_any |= bool(entry.get("any"))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # a version that writes it in another format
    return Published(roles, serves_any)


os.register_at_fork(after_in_child=forget)
