"""The roles that a worker publishes for producers; `breakwater/roles.py` reads them."""

import json

from breakwater.calls.params import PARAMS
from tasks.config.settings import Settings


def to_publish(settings: Settings) -> str:
    """
    Return the roles of a worker, as JSON.

    A strict role comes with the parameters that one of its targets does not take.
    """
    roles: dict[str, dict[str, str]] = {name: {} for name in settings.roles}
    for name, role in settings.roles.items():
        if not role.drop_params:
            roles[name] = settings.unsupported_params(role, PARAMS)
    return json.dumps({"roles": roles, "any": settings.serves_any_role})
