"""The models of the chains, compared with what a provider lists."""

from collections.abc import Collection

from tasks.config import Settings


def unlisted(settings: Settings, provider: str, known: Collection[str]) -> dict[str, list[str]]:
    """
    Find the models that roles ask of a provider and that it does not list.

    Args:
        known: The provider's list; an empty one says nothing.

    Returns:
        By model, the roles whose chains name it.
    """
    roles = list(settings.roles.values())
    if settings.serves_any_role:
        roles.append(settings.role("any"))
    found: dict[str, list[str]] = {}
    for role in roles if known else ():
        for target in role.chain:
            if target.provider == provider and not is_listed(target.model, known):
                found.setdefault(target.model, []).append(role.name)
    return found


def is_listed(model: str, known: Collection[str]) -> bool:
    """Tell whether a list has a model; Ollama adds `:latest`, OpenRouter leaves out `:free`."""
    names = (model, f"{model}:latest", model.removeprefix("models/"), model.rpartition(":")[0])
    return any(name in known for name in names)
