"""
Where the providers and roles come from: a roles file, else the keys in the environment.

`load_settings` is for workers and needs every key; `breakwater.config.role_names` needs none.
"""

import os
from collections.abc import Mapping

import breakwater.config
from breakwater.config import roles_path
from tasks.config.settings import (
    BreakerSettings,
    CacheSettings,
    ProviderSettings,
    Role,
    Settings,
    Target,
    Timeout,
)

__all__ = [
    "BreakerSettings",
    "CacheSettings",
    "ProviderSettings",
    "Role",
    "Settings",
    "Target",
    "Timeout",
    "load_settings",
    "set_served_roles",
]

# YAML and pydantic cost 60 ms: the functions that need
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


def set_served_roles(settings: Settings | None) -> None:
    """Know a worker's own roles from now on, in this process and its children; None: it ends."""
    known = settings and not settings.serves_any_role
    breakwater.config.set_served_roles(
        frozenset(settings.roles) | settings.removed if settings and known else None
    )
