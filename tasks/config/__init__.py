"""
Where the providers and roles come from: a roles file, else the keys in the environment.

`load_settings` is for workers and needs every key; `role_names` is for producers and needs none.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tasks.config.last_good import LastGood
from tasks.config.params import PARAMS, check_params
from tasks.config.settings import (
    NAME,
    BreakerSettings,
    CacheSettings,
    ProviderSettings,
    Role,
    Settings,
    Target,
    Timeout,
)
from tasks.errors import ConfigError

__all__ = [
    "NAME",
    "PARAMS",
    "BreakerSettings",
    "CacheSettings",
    "ProviderSettings",
    "Role",
    "Settings",
    "Target",
    "Timeout",
    "check_params",
    "load_settings",
    "provider_names",
    "role_names",
    "roles_path",
]

DEFAULT = Path("roles.yaml")
LAST_GOOD = LastGood()
"""What this process has read from roles files."""
_served: frozenset[str] | None = None

# Producers import this package too, and YAML and pydantic cost 60 ms: the functions that need
# them import them, hence the exceptions (PLC0415) below.


def load_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """
    Read `ROLES_FILE`, else `./roles.yaml`, else detect the providers from the environment.

    Raises:
        ConfigError: Listing every fault, by line.
    """
    path = roles_path(environ)
    if path is None:
        from tasks.config import detection  # noqa: PLC0415

        return detection.detect(environ)
    from tasks.config import roles_file  # noqa: PLC0415

    return roles_file.read(path, environ)


def role_names(environ: Mapping[str, str] = os.environ) -> frozenset[str] | None:
    """
    Return the names of the roles, without keys, expansion or validation.

    A worker also knows those that it serves or has served, whatever its file says now.

    Asked at every enqueue: the file is parsed again only when it has changed.

    Returns:
        None where they cannot be known: there is no roles file, or it names no roles.

    Raises:
        ConfigError: There is a roles file, but it cannot be read or is no YAML, and this process
            has never read it. Else what it said last counts (`tasks/config/last_good.py`).
    """
    if environ is not os.environ or _served is None:
        return _names("roles", environ)
    with suppress(ConfigError):
        return _served | (_names("roles", environ) or frozenset())
    return _served


def serve(settings: Settings | None) -> None:
    """Know a worker's own roles from now on, in this process and its children; None: it ends."""
    global _served  # noqa: PLW0603 - one worker a process
    known = settings and not settings.serves_any_role
    _served = frozenset(settings.roles) | settings.removed if settings and known else None


def provider_names(environ: Mapping[str, str] = os.environ) -> frozenset[str] | None:
    """Return the names of the providers, as `role_names` does those of the roles."""
    return _names("providers", environ)


def _names(key: str, environ: Mapping[str, str]) -> frozenset[str] | None:
    path = known_path(environ)
    if path is None:
        return None
    from tasks.config import document  # noqa: PLC0415

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
