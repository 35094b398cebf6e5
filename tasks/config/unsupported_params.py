"""Check roles with `drop_params: false`: each of their targets must take every parameter."""

from collections.abc import Mapping

from breakwater.config.document import Faults, Node
from tasks.config.settings import Settings


def check(settings: Settings, top: Mapping[str, Node], faults: Faults) -> None:
    """
    Add a fault for each parameter that a strict role sets or inherits, and a target does not take.

    Args:
        top: The top-level entries of the file.
    """
    for role in settings.roles.values():
        if role.drop_params:
            continue
        own = top["roles"].entries[role.name].entries
        for where, entries in (("params", top), (f"roles.{role.name}.params", own)):
            if "params" not in entries:
                continue
            params = entries["params"].entries
            for name, why in settings.unsupported_params(role, params).items():
                message = f"{why}; remove it here, or let role {role.name!r} drop it (drop_params)"
                faults.add(params[name].line, f"{where}.{name}", message)
