"""
The door: what a caller hands to `complete`, checked before anything is queued or paid for.

The same check runs at the producer, where a fault is raised by `delay()`, and in the worker,
where it comes back as the task's error: messages also arrive from other languages.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from breakwater.calls.messages import parse_prompt, prompt_as_json
from breakwater.calls.options import check_options
from breakwater.calls.value_types import NAME
from breakwater.content import Media, Message, Tool
from breakwater.errors import InvalidOption, InvalidPrompt, UnknownRole
from breakwater.result import earlier_text

MAX_BYTES = 8 * 1024 * 1024
"""Of prompt and options as JSON; as a message it is a third larger, and less than is taken."""


@dataclass(frozen=True, slots=True)
class CompletionCall:
    """One checked call of `complete`."""

    role: str
    messages: tuple[Message, ...] = field(repr=False)
    system: str | None = field(default=None, repr=False)
    params: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    deadline_s: float | None = None
    """Seconds from the moment of enqueueing; None means the role's own."""
    schema: Mapping[str, Any] | None = field(default=None, repr=False)
    """What the answer must satisfy, as JSON Schema; None: it is plain text."""
    tools: tuple[Tool, ...] = field(default=(), repr=False)
    tool_choice: str = "auto"
    """`auto`, `none`, `required`, or the name of a tool."""
    stream: bool = False

    @classmethod
    def of(cls, role: object, prompt: object, options: Mapping[str, Any]) -> "CompletionCall":
        """
        Check the arguments of `complete` and return them as one value.

        Args:
            role: The role's name; whether it exists is the roles file's to say.
            prompt: A string, a list of messages, or the results of an earlier stage of a chain.
            options: Those of `breakwater.calls.options`.

        Raises:
            UnknownRole: The role is not a name at all.
            InvalidPrompt: The prompt is empty, of the wrong shape, or not JSON.
            InvalidOption: An option does not exist, or its value does not fit.
        """
        if not isinstance(role, str) or not NAME.fullmatch(role):
            size = f" of {len(role)} characters" if isinstance(role, str) else ""
            # Not shown: where prompt and role were confused, it is the prompt.
            raise UnknownRole(
                f"a {type(role).__name__}{size} cannot be a role; a role is a name of up to 64 "
                f"letters, digits, '_', '.' and '-'"
            )
        checked = check_options(options)
        earlier = earlier_text(prompt)
        messages = parse_prompt(prompt if earlier is None else earlier)
        _check_size(messages, checked)
        return cls(role=role, messages=messages, **checked)

    @property
    def media(self) -> frozenset[str]:
        """The kinds of media among the messages: `image`, `document`."""
        parts = (part for message in self.messages for part in message.parts)
        return frozenset(part.kind for part in parts if isinstance(part, Media))


def bind_arguments(
    args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Any, Any, dict[str, Any]]:
    """
    Sort the arguments of `complete` into role, prompt and options.

    Behind another task in a Celery chain, the earlier result arrives first: both
    `complete.s("planner")` and `complete.s(role="planner")` then take its text as their prompt.
    Behind a group, as the body of a chord, there is a list of them: their texts, in order.

    Raises:
        InvalidOption: There are too many arguments, or one is given twice.
        InvalidPrompt: There is no prompt.
        UnknownRole: There is no role.
    """
    options = dict(kwargs)
    named = {name: options.pop(name) for name in ("role", "prompt") if name in options}
    rest = list(args)
    if rest and (len(rest) > 1 or "role" in named):
        earlier = earlier_text(rest[0])
        if earlier is not None:
            named.setdefault("prompt", earlier)
            rest.pop(0)
    for name in ("role", "prompt"):
        if rest and name not in named:
            named[name] = rest.pop(0)
    if rest:
        raise InvalidOption(
            f"complete takes a role and a prompt, then options by name; "
            f"{len(rest)} positional argument(s) too many"
        )
    if "role" not in named:
        raise UnknownRole("no role given; call complete(role, prompt)")
    if "prompt" not in named:
        raise InvalidPrompt("no prompt given; call complete(role, prompt)")
    return named["role"], named["prompt"], options


def _check_size(messages: Sequence[Message], options: Mapping[str, Any]) -> None:
    plain = not options and all(isinstance(m.content, str) and not m.tool_calls for m in messages)
    if plain and sum(len(message.text) + 1 for message in messages) < MAX_BYTES // 12:
        return  # a character is at most twelve bytes of JSON
    tools = [asdict(tool) for tool in options.get("tools", ())]
    size = len(json.dumps([prompt_as_json(messages), {**options, "tools": tools}]))
    if size > MAX_BYTES:
        raise InvalidPrompt(
            f"the prompt and its options have {size} bytes as JSON; at most {MAX_BYTES} are taken"
        )
