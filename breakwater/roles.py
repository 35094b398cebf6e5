"""
The roles that workers serve, as they publish them in Redis: for producers without a roles file.

Workers write the hash `roles` (`delivery/scripts/delivery.lua` explains it) when they say that they
are there. A producer keeps what it has read for half a minute, so that a call costs no round trip;
without an answer of Redis nothing is known, and nothing is refused.
"""

import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import RedisError

from breakwater.errors import ConfigError, InvalidOption
from breakwater.redis.connection import client, redis_url

ROLES = "roles"
AGE_S = 30.0
"""How old what is known may be."""
FRESH_S = 1.0
"""How old it may be where a role is not among it."""
AWAY_S = 5.0
"""How long Redis is not asked again when it has not answered."""
ANSWER_S = 0.5


@dataclass(frozen=True, slots=True)
class Published:
    """What the workers of a fleet serve."""

    roles: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By role: parameters that it refuses, and why."""
    any: bool = False
    """There are workers that serve every role."""

    def serves(self, role: str) -> bool:
        """Tell whether a worker serves this role."""
        return self.any or role in self.roles


class _View:
    """What this process has read last."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.found: Published | None = None
        self.of = ""
        self.due_at = float("-inf")
        self.read_at = float("-inf")


_view = _View()


def published(max_age_s: float = AGE_S) -> Published | None:
    """
    Return what the workers serve; None if that is not known.

    Redis is asked when what is known is older than this; half a second at most.
    """
    now, where = time.monotonic(), redis_url()
    with _view.lock:
        known = _view.of == where
        if known and (now < _view.due_at or now - _view.read_at <= max_age_s):
            return _view.found
        _view.of, found = where, _ask()
        if found is None:
            _view.due_at = time.monotonic() + AWAY_S
            _view.found = _view.found if known else None
        else:
            _view.read_at = time.monotonic()
            _view.found = found if found.roles or found.any else None
        return _view.found


def check_params(role: str, params: Mapping[str, Any]) -> None:
    """
    Refuse parameters that the workers would refuse, by what is known; nothing is asked.

    Raises:
        InvalidOption: As a worker raises it.
    """
    refused = _view.found.roles.get(role, {}) if _view.found else {}
    faults = [
        f"params.{name}: {why}; leave it out, or set drop_params: true for role {role!r}"
        for name, why in sorted(refused.items())
        if name in params
    ]
    if faults:
        raise InvalidOption("; ".join(faults), {"faults": faults})


def forget() -> None:
    """Forget what was read."""
    global _view  # noqa: PLW0603 - one view a process
    _view = _View()


def _ask() -> Published | None:
    try:
        with client(connect_s=ANSWER_S, answer_s=ANSWER_S) as redis:
            found: Any = redis.hvals(ROLES)
    except (RedisError, ConfigError, OSError):
        return None
    roles: dict[str, Mapping[str, str]] = {}
    serves_any = False
    for text in found:
        try:
            said = json.loads(text)
            roles |= {str(name): dict(refused) for name, refused in said["roles"].items()}
            serves_any |= bool(said.get("any"))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # of a version that writes it in another way
    return Published(roles, serves_any)


os.register_at_fork(after_in_child=forget)
