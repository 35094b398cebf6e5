"""The roles that a worker publishes for producers; `breakwater/roles.py` reads them."""

import json

from breakwater.calls.params import PARAMS
from tasks.config.settings import Settings


def to_publish(settings: Settings) -> str:
    """Write the roles of a worker, as JSON."""
    roles = {
        name: {} if role.drop_params else settings.unsupported_params(role, PARAMS)
        for name, role in settings.roles.items()
    }
    return json.dumps({"roles": roles, "any": settings.serves_any_role})
