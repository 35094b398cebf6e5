"""
Find the roles file and read the names in it: all that a producer needs, without keys.

A worker reads the whole file by `tasks.answering.settings_loader`.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from breakwater.config.last_good import LastGood
from breakwater.errors import ConfigError

DEFAULT_PATH = Path("roles.yaml")
LAST_GOOD = LastGood()
"""The parts of roles files that this process has read."""
_served: frozenset[str] | None = None

# YAML costs 60 ms to import: the function that needs it imports it.


def role_names(environ: Mapping[str, str] = os.environ) -> frozenset[str] | None:
    """
    Return the names of the roles, without keys, expansion or validation.

    In a worker they include the roles that it serves or has served, whatever the file has now.
    Each enqueue calls this; the file is parsed again only after it has changed.

    Returns:
        None if they are unknown: there is no roles file, or it names no roles.

    Raises:
        ConfigError: There is a roles file, but it cannot be read or is not YAML, and this process
            has never read it. If it has, the last reading counts
            (`breakwater/config/last_good.py`).
    """
    if environ is not os.environ or _served is None:
        return _names("roles", environ)
    with suppress(ConfigError):
        return _served | (_names("roles", environ) or frozenset())
    return _served


def set_served_roles(names: frozenset[str] | None) -> None:
    """Add a worker's roles to those of `role_names` in this process; None removes them."""
    global _served  # noqa: PLW0603 - a process has one worker
    _served = names


def provider_names(environ: Mapping[str, str] = os.environ) -> frozenset[str] | None:
    """Return the names of the providers; None and errors as for `role_names`."""
    return _names("providers", environ)


def _names(key: str, environ: Mapping[str, str]) -> frozenset[str] | None:
    path = known_path(environ)
    if path is None:
        return None
    from breakwater.config import document  # noqa: PLC0415

    def read() -> Mapping[str, None] | None:
        keys = document.keys_of(path, key)
        if keys is None:
            return None
        return dict.fromkeys(keys)

    names = LAST_GOOD.read(path, key, read)
    if names is None:
        return None
    return frozenset(names)


def known_path(environ: Mapping[str, str]) -> Path | None:
    """Return the path of the roles file, also while a file that was read before is missing."""
    if path := roles_path(environ):
        return path.absolute()
    default = DEFAULT_PATH.absolute()
    if LAST_GOOD.has(default):
        return default
    return None


def roles_path(environ: Mapping[str, str]) -> Path | None:
    """Return the path of the roles file, `ROLES_FILE` or `./roles.yaml`; None if there is none."""
    if named := environ.get("ROLES_FILE"):
        return Path(named)
    if DEFAULT_PATH.exists():
        return DEFAULT_PATH
    return None
