"""
A worker's settings: its providers and roles, and how they are read.

    settings.py            what a worker uses, frozen
    roles_file.py          from a roles file to settings
    detection.py           from the environment to settings, without a roles file
    endpoint.py            which keys and URLs a provider may have
    unsupported_params.py  parameters that a strict role's targets do not support
    published_roles.py     the roles that a worker publishes for producers
    shared_page.py         the roles file that a prefork's parent has accepted, for its children

`tasks.answering.settings_loader` chooses between a roles file and the environment.
"""

import breakwater.config
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
    "set_served_roles",
]


def set_served_roles(settings: Settings | None) -> None:
    """
    Add a worker's own roles to `role_names` of this process and its future children.

    Args:
        settings: Those of the worker; None when it ends. Settings that serve any role add no names.
    """
    names = None
    if settings and not settings.serves_any_role:
        names = frozenset(settings.roles) | settings.removed
    breakwater.config.set_served_roles(names)
