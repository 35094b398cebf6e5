"""Compare the models of the chains with the list of a provider."""

from collections.abc import Collection

from tasks.config import Settings


def unlisted(settings: Settings, provider: str, listed: Collection[str]) -> dict[str, list[str]]:
    """
    Find the models that roles request from a provider and that the provider does not list.

    Args:
        settings: With the roles and their chains.
        provider: Its name.
        known: The models that it lists; an empty list proves nothing.

    Returns:
        By model, the roles whose chains name it.
    """
    if not listed:
        return {}
    roles = list(settings.roles.values())
    if settings.serves_any_role:
        roles.append(settings.role("any"))
    roles_by_model: dict[str, list[str]] = {}
    for role in roles:
        for target in role.chain:
            if target.provider == provider and not is_listed(target.model, listed):
                roles_by_model.setdefault(target.model, []).append(role.name)
    return roles_by_model


def is_listed(model: str, listed: Collection[str]) -> bool:
    """Return whether a list has a model; Ollama adds `:latest`, OpenRouter omits `:free`."""
    names = (model, f"{model}:latest", model.removeprefix("models/"), model.rpartition(":")[0])
    return any(name in listed for name in names)
