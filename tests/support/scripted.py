"""A provider that answers by a script, and settings to route over several of them."""

from collections.abc import Callable

from breakwater.attempt import Usage
from tasks.config import ProviderSettings, Role, Settings, Target
from tasks.providers.base import Completion, Request

Step = BaseException | str | Callable[[Request], Completion]


class ScriptedProvider:
    """Answer each call with the next step; the last step repeats for ever."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.requests: list[Request] = []

    def complete(self, request: Request) -> Completion:
        """Raise the step if it is an error, else answer with it."""
        self.requests.append(request)
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, BaseException):
            raise step
        return answer(step) if isinstance(step, str) else step(request)

    def check(self) -> str:
        """Say that all is well."""
        return "ok"

    def close(self) -> None:
        """Nothing is open."""


def answer(text: str) -> Completion:
    """Return a whole answer."""
    return Completion(text, "m-2026", "stop", Usage(input_tokens=3, output_tokens=2), "req-1")


def settings_over(*providers: str, **roles: list[str]) -> Settings:
    """Return settings with these providers, and roles that name them in order."""
    return Settings(
        providers={name: ProviderSettings(name, "openai-chat", "m") for name in providers},
        roles={
            role: Role(role, tuple(Target(name, "m") for name in chain))
            for role, chain in (roles or {"coder": list(providers)}).items()
        },
    )
