"""
The door: what a caller hands to `complete`, checked before anything is queued or paid for.

The same check runs at the producer, where a fault is raised by `delay()`, and in the worker,
where it comes back as the task's error: messages also arrive from other languages.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.config import check_params
from tasks.errors import InvalidOption, InvalidPrompt, UnknownRole, nearest
from tasks.providers.base import Message

OPTIONS = ("system", "params", "metadata", "deadline_s", "schema", "tools", "stream")
MAX_BYTES = 8 * 1024 * 1024
"""Of prompt and options as JSON; as a message it is a third larger, and less than is taken."""
LONGEST_S = 10 * 365 * 86400
LATER = {"schema", "tools"}  # names kept; refused until they work, never ignored
SPEAKERS = ("user", "assistant", "system")
ROLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Call:
    """One checked call of `complete`."""

    role: str
    messages: tuple[Message, ...] = field(repr=False)
    system: str | None = field(default=None, repr=False)
    params: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    deadline_s: float | None = None
    """Seconds from the moment of enqueueing; None means the role's own."""
    stream: bool = False

    @classmethod
    def of(cls, role: object, prompt: object, options: Mapping[str, Any]) -> "Call":
        """
        Check the arguments of `complete` and return them as one value.

        Args:
            role: The role's name; whether it exists is the roles file's to say.
            prompt: A string, a list of messages, or the results of an earlier stage of a chain.
            options: `system`, `params`, `metadata`, `deadline_s`.

        Raises:
            UnknownRole: The role is not a name at all.
            InvalidPrompt: The prompt is empty, of the wrong shape, or not JSON.
            InvalidOption: An option does not exist, or its value does not fit.
        """
        if not isinstance(role, str) or not ROLE_NAME.fullmatch(role):
            size = f" of {len(role)} characters" if isinstance(role, str) else ""
            # Not shown: where prompt and role were confused, it is the prompt.
            raise UnknownRole(
                f"a {type(role).__name__}{size} cannot be a role; a role is a name of up to 64 "
                f"letters, digits, '_', '.' and '-'"
            )
        _check_options(options)
        messages = _messages(prompt)
        _check_size(messages, options)
        return cls(
            role=role,
            messages=messages,
            system=options.get("system"),
            params=options.get("params") or {},
            metadata=options.get("metadata") or {},
            deadline_s=options.get("deadline_s"),
            stream=options.get("stream") or False,
        )


def bind(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
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
    if rest and (len(rest) > 1 or "role" in named) and (told := _told(rest[0])) is not None:
        named.setdefault("prompt", told)
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


def _told(value: object) -> str | None:
    """Return the texts of the earlier results that this is; None if it is something else."""
    results = value if isinstance(value, list | tuple) else [value]
    texts = [
        each["text"]
        for each in results
        if isinstance(each, Mapping) and {"task_id", "role", "text", "attempts"} <= each.keys()
    ]
    if not texts or len(texts) < len(results) or not all(isinstance(t, str) for t in texts):
        return None
    return "\n\n".join(texts)


def _messages(prompt: object) -> tuple[Message, ...]:
    prompt = prompt if (told := _told(prompt)) is None else told
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    if not isinstance(prompt, (list, tuple)):
        raise InvalidPrompt(
            f"the prompt is a {type(prompt).__name__}; it must be a string or a list of messages"
        )
    messages = tuple(_message(at, item) for at, item in enumerate(prompt))
    if not any(m.text.strip() for m in messages if m.role == "user"):
        raise InvalidPrompt("the prompt is empty; at least one user message must say something")
    return messages


def _message(at: int, item: object) -> Message:
    where = f"message {at} of the prompt"
    if not isinstance(item, Mapping):
        raise InvalidPrompt(f"{where} is a {type(item).__name__}; it must be an object")
    if unknown := sorted(str(key)[:40] for key in item.keys() - {"role", "content"}):
        raise InvalidPrompt(f"{where} has unknown keys {unknown}; it has role and content")
    if item.get("role") not in SPEAKERS:
        raise InvalidPrompt(f"{where} has no valid role; it must be one of {', '.join(SPEAKERS)}")
    return Message(item["role"], _text(where, item.get("content")))


def _text(where: str, content: object) -> str:
    if isinstance(content, (list, tuple)):
        return "".join(_part(where, part) for part in content)
    if not isinstance(content, str):
        raise InvalidPrompt(
            f"{where} has content of type {type(content).__name__}; "
            f"it must be a string or a list of parts"
        )
    try:
        content.encode()
    except UnicodeEncodeError as error:
        raise InvalidPrompt(
            f"{where} cannot be written as UTF-8: lone surrogate at character {error.start}"
        ) from None
    return content


def _part(where: str, part: object) -> str:
    if not isinstance(part, Mapping) or part.get("type") != "text":
        raise InvalidPrompt(
            f"{where} has a part that is not text; parts are {{'type': 'text', 'text': …}}"
        )
    return _text(where, part.get("text"))


def _check_size(messages: Sequence[Message], options: Mapping[str, Any]) -> None:
    texts = [message.text for message in messages]
    if not options and sum(len(text) + 1 for text in texts) < MAX_BYTES // 12:
        return  # a character is at most twelve bytes of JSON
    size = len(json.dumps([texts, dict(options)]))
    if size > MAX_BYTES:
        raise InvalidPrompt(
            f"the prompt and its options have {size} bytes as JSON; at most {MAX_BYTES} are taken"
        )


def _check_options(options: Mapping[str, Any]) -> None:
    """List every fault of the options at once."""
    faults = [
        f"unknown option {str(name)[:40]!r}{nearest(str(name), OPTIONS)}"
        for name in options
        if name not in OPTIONS
    ]
    faults += [
        f"option {name!r} does not work yet; leave it out"
        for name in sorted(LATER & options.keys())
        if options[name]
    ]
    faults += _check_system(options.get("system"))
    faults += _check_deadline(options.get("deadline_s"))
    faults += _check_json_object("params", options.get("params"))
    faults += _check_json_object("metadata", options.get("metadata"))
    if isinstance(options.get("params"), Mapping):
        faults += check_params(options["params"])
    if faults:
        raise InvalidOption("; ".join(faults), {"faults": faults})


def _check_system(system: object) -> list[str]:
    if not isinstance(system, str | None):
        return [f"system is a {type(system).__name__}; it must be a string"]
    try:
        _text("system", system or "")
    except InvalidPrompt as fault:
        return [str(fault)]
    return []


def _check_deadline(deadline_s: object) -> list[str]:
    if deadline_s is None:
        return []
    if isinstance(deadline_s, bool) or not isinstance(deadline_s, int | float):
        return [f"deadline_s is a {type(deadline_s).__name__}; it must be a number of seconds"]
    if not 0 < deadline_s <= LONGEST_S:
        return [
            f"deadline_s is {str(deadline_s)[:20]}; it must be more than 0 seconds, "
            f"and ten years at most"
        ]
    return []


def _check_json_object(name: str, value: object) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, Mapping):
        return [f"{name} is a {type(value).__name__}; it must be an object"]
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        return [f"{name} cannot be written as JSON: {error}"]
    return []
