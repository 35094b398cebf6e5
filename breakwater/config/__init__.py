"""
Where the roles file is and which roles it names: what a producer needs, without keys.

A worker reads the whole of it by `tasks.answering.settings_loader`.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from breakwater.config.last_good import LastGood
from breakwater.errors import ConfigError

DEFAULT = Path("roles.yaml")
LAST_GOOD = LastGood()
"""What this process has read from roles files."""
_served: frozenset[str] | None = None

# YAML costs 60 ms to import; the function that needs it imports it.


def role_names(environ: Mapping[str, str] = os.environ) -> frozenset[str] | None:
    """
    Return the names of the roles, without keys, expansion or validation.

    A worker also knows those that it serves or has served, whatever its file says now.

    Asked at every enqueue: the file is parsed again only when it has changed.

    Returns:
        None where they cannot be known: there is no roles file, or it names no roles.

    Raises:
        ConfigError: There is a roles file, but it cannot be read or is no YAML, and this process
            has never read it. Else what it said last counts (`breakwater/config/last_good.py`).
    """
    if environ is not os.environ or _served is None:
        return _names("roles", environ)
    with suppress(ConfigError):
        return _served | (_names("roles", environ) or frozenset())
    return _served


def set_served_roles(names: frozenset[str] | None) -> None:
    """Add a worker's roles to what `role_names` returns in this process; None: it has none."""
    global _served  # noqa: PLW0603 - one worker a process
    _served = names


def provider_names(environ: Mapping[str, str] = os.environ) -> frozenset[str] | None:
    """Return the names of the providers, as `role_names` does those of the roles."""
    return _names("providers", environ)


def _names(key: str, environ: Mapping[str, str]) -> frozenset[str] | None:
    path = known_path(environ)
    if path is None:
        return None
    from breakwater.config import document  # noqa: PLC0415

    def read() -> Mapping[str, None] | None:
        keys = document.keys_of(path, key)
        return None if keys is None else dict.fromkeys(keys)

    found = LAST_GOOD.read(path, key, read)
    return None if found is None else frozenset(found)


def known_path(environ: Mapping[str, str]) -> Path | None:
    """Return where the roles file is, or was: it may be missing for a moment."""
    if path := roles_path(environ):
        return path.absolute()
    default = DEFAULT.absolute()
    return default if LAST_GOOD.has(default) else None


def roles_path(environ: Mapping[str, str]) -> Path | None:
    """Return where the roles file is to be; None if there is none."""
    if named := environ.get("ROLES_FILE"):
        return Path(named)
    return DEFAULT if DEFAULT.exists() else None
