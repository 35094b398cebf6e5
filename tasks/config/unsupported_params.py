"""Roles that set `drop_params: false`: what one of their targets does not take is a fault."""

from collections.abc import Mapping

from breakwater.config.document import Faults, Node
from tasks.config.settings import Settings


def check(settings: Settings, top: Mapping[str, Node], faults: Faults) -> None:
    """
    Add to the faults what a strict role inherits or sets in vain.

    Args:
        top: The file's own entries, `params` and `roles` among them.
    """
    for role in settings.roles.values():
        if role.drop_params:
            continue
        own = top["roles"].value[role.name].value
        for where, entries in (("params", top), (f"roles.{role.name}.params", own)):
            params = entries["params"].value if "params" in entries else None
            if not isinstance(params, dict):
                continue
            for name, why in settings.unsupported_params(role, params).items():
                what = f"{why}; remove it here, or let role {role.name!r} drop it (drop_params)"
                faults.add(params[name].line, f"{where}.{name}", what)
