"""
A call of `complete`, checked before anything is queued or paid for.

The producer and the worker run the same check. At the producer `delay()` raises the fault. In the
worker it becomes the task's error, because messages also arrive from producers in other languages.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from breakwater.calls.messages import parse_prompt, prompt_as_json
from breakwater.calls.options import CheckedOptions, check_options
from breakwater.calls.value_types import NAME
from breakwater.content import Media, Message, Tool
from breakwater.errors import InvalidOption, InvalidPrompt, UnknownRole
from breakwater.result import earlier_text

MAX_BYTES = 8 * 1024 * 1024
"""
Limit for prompt and options as JSON.

Their message is a third larger, and still smaller than the largest one that a worker reads.
"""


@dataclass(frozen=True, slots=True)
class CompletionCall:
    """One checked call of `complete`."""

    role: str
    messages: tuple[Message, ...] = field(repr=False)
    system: str | None = field(default=None, repr=False)
    params: Mapping[str, object] = field(default_factory=dict)
    metadata: Mapping[str, object] = field(default_factory=dict)
    deadline_s: float | None = None
    """Seconds from enqueueing; None: the role's own deadline."""
    schema: Mapping[str, object] | None = field(default=None, repr=False)
    """The JSON Schema that the answer must satisfy; None: the answer is plain text."""
    tools: tuple[Tool, ...] = field(default=(), repr=False)
    tool_choice: str = "auto"
    """`auto`, `none`, `required`, or the name of a tool."""
    stream: bool = False

    @classmethod
    def of(cls, role: object, prompt: object, options: Mapping[str, object]) -> "CompletionCall":
        """
        Check the arguments of `complete` and return them as one value.

        Args:
            role: The role's name; the roles file decides whether the role exists.
            prompt: A string, a list of messages, or the results of an earlier stage of a chain.
            options: Those of `breakwater.calls.options`.

        Raises:
            UnknownRole: The role cannot be the name of a role.
            InvalidPrompt: The prompt is empty, of the wrong shape, or not JSON.
            InvalidOption: An option does not exist, or its value does not fit.
        """
        name = _check_role(role)
        checked = check_options(options)
        earlier = earlier_text(prompt)
        messages = parse_prompt(prompt if earlier is None else earlier)
        _check_size(messages, checked)
        return cls(role=name, messages=messages, **checked)

    @property
    def media(self) -> frozenset[str]:
        """The kinds of media in the messages: `image`, `document`."""
        parts = (part for message in self.messages for part in message.parts)
        return frozenset(part.kind for part in parts if isinstance(part, Media))


def bind_arguments(
    args: Sequence[object], kwargs: Mapping[str, object]
) -> tuple[object, object, dict[str, object]]:
    """
    Sort the arguments of `complete` into role, prompt and options.

    In a Celery chain the earlier task's result is the first argument. Both
    `complete.s("planner")` and `complete.s(role="planner")` then use its text as the prompt. The
    body of a chord receives the list of its group's results, and uses their texts in order.

    Raises:
        InvalidOption: There are too many arguments, or an argument occurs twice.
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


def _check_role(role: object) -> str:
    if isinstance(role, str) and NAME.fullmatch(role):
        return role
    size = ""
    if isinstance(role, str):
        size = f" of {len(role)} characters"
    # The message does not quote the value: a caller who swaps the arguments passes the prompt here.
    raise UnknownRole(
        f"a {type(role).__name__}{size} cannot be a role; a role is a name of up to 64 "
        f"letters, digits, '_', '.' and '-'"
    )


def _check_size(messages: Sequence[Message], options: CheckedOptions) -> None:
    plain = not options and all(isinstance(m.content, str) and not m.tool_calls for m in messages)
    if plain and sum(len(message.text) + 1 for message in messages) < MAX_BYTES // 12:
        return  # a character is at most twelve bytes of JSON
    tools = [asdict(tool) for tool in options.get("tools", ())]
    size = len(json.dumps([prompt_as_json(messages), {**options, "tools": tools}]))
    if size > MAX_BYTES:
        raise InvalidPrompt(
            f"the prompt and its options have {size} bytes as JSON; at most {MAX_BYTES} are allowed"
        )
