"""
Where the providers and roles come from: a roles file, else the keys in the environment.

`load_settings` is for workers and needs every key; `role_names` is for producers and needs none.
"""

import os
from collections.abc import Mapping
from pathlib import Path

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
]

# Producers import this package too, and YAML and pydantic cost 60 ms: the functions that need
# them import them, hence the exceptions (PLC0415) below.


def load_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """
    Read `ROLES_FILE`, else `./roles.yaml`, else detect the providers from the environment.

    Raises:
        ConfigError: Listing every fault, by line.
    """
    path = _roles_path(environ)
    if path is None:
        from tasks.config import detection  # noqa: PLC0415

        return detection.detect(environ)
    from tasks.config import roles_file  # noqa: PLC0415

    return roles_file.read(path, environ)


def role_names(environ: Mapping[str, str] = os.environ) -> frozenset[str] | None:
    """
    Return the names of the roles, without keys, expansion or validation.

    Asked at every enqueue: the file is parsed again only when it has changed.

    Returns:
        None where they cannot be known: there is no roles file, or it names no roles.

    Raises:
        ConfigError: There is a roles file, but it cannot be read or is no YAML.
    """
    return _names("roles", environ)


def provider_names(environ: Mapping[str, str] = os.environ) -> frozenset[str] | None:
    """Return the names of the providers, as `role_names` does those of the roles."""
    return _names("providers", environ)


def _names(key: str, environ: Mapping[str, str]) -> frozenset[str] | None:
    path = _roles_path(environ)
    if path is None:
        return None
    from tasks.config import document  # noqa: PLC0415

    return document.keys_of(path, key, document.stamp(path))


def _roles_path(environ: Mapping[str, str]) -> Path | None:
    if named := environ.get("ROLES_FILE"):
        return Path(named)
    default = Path("roles.yaml")
    return default if default.exists() else None
