"""A vendor's prompt caches: prefixes of earlier prompts, and Google's cached contents."""

import hashlib
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from simulator.wires.base import Rejected

CHARACTERS_A_TOKEN = 4
LOOK_BACK = 20
"""The number of blocks before a marked one that may end an already cached prefix."""
USUAL_TTL_S = 3600.0
NOT_FOUND = "CachedContent not found (or permission denied)"
HELD = ("systemInstruction", "tools", "toolConfig")
"""Fields of a cached content, which no request may set beside it."""


class PrefixCache:
    """The prefixes of the prompts that one label has received."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def read(self, blocks: Sequence[tuple[object, bool]], least_tokens: int = 0) -> tuple[int, int]:
        """
        Look up a prompt, and cache its marked prefixes.

        Args:
            blocks: The blocks of the prompt, each with whether a cached prefix may end there.
            least_tokens: Shorter prefixes are not cached.

        Returns:
            The number of tokens read from the cache, and of tokens written to it.
        """
        digests, tokens = _running(blocks)
        marks = [
            at for at, (_, marked) in enumerate(blocks) if marked and tokens[at] >= least_tokens
        ]
        if not marks:
            return 0, 0
        near = {at for mark in marks for at in range(max(0, mark - LOOK_BACK), mark + 1)}
        cached = max((tokens[at] for at in near if digests[at] in self._known), default=0)
        self._known.update(digests[mark] for mark in marks)
        return cached, max(0, tokens[marks[-1]] - cached)


@dataclass(frozen=True, slots=True)
class _Content:
    name: str
    body: dict[str, Any]
    tokens: int
    created_s: float
    expires_s: float

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "model": self.body.get("model"),
            "displayName": self.body.get("displayName", ""),
            "createTime": _rfc3339(self.created_s),
            "updateTime": _rfc3339(self.created_s),
            "expireTime": _rfc3339(self.expires_s),
            "usageMetadata": {"totalTokenCount": self.tokens},
        }


class CachedContents:
    """Google's explicit cache: `cachedContents` by name, until each expires."""

    def __init__(self) -> None:
        self._contents: dict[str, _Content] = {}
        self._made = 0

    def ask(
        self, method: str, name: str, body: dict[str, Any], least_tokens: int
    ) -> dict[str, Any]:
        """
        Create (`POST`), read (`GET`) or delete (`DELETE`) one, and return the answer.

        Raises:
            Rejected: If it is unknown or expired, or too small to be created.
        """
        if method == "POST":
            return self._create(body, least_tokens).as_dict()
        content = self._find(name)
        if method == "DELETE":
            del self._contents[name]
            return {}
        return content.as_dict()

    def opened(self, body: dict[str, Any]) -> tuple[dict[str, Any], int]:
        """
        Return a request with the fields of its cached content, and the number of their tokens.

        Raises:
            Rejected: There is none of that name, or the request sets one of its fields.
        """
        content = self._find(str(body["cachedContent"]))
        if any(body.get(name) for name in HELD):
            raise Rejected(
                "invalid", "CachedContent can not be used with GenerateContent request setting "
                "system_instruction, tools or tool_config. Proposed fix: move those values to "
                "CachedContent from GenerateContent request.",
            )  # fmt: skip
        held = {name: content.body[name] for name in HELD if name in content.body}
        both = [*content.body.get("contents", []), *body.get("contents", [])]
        return {**body, **held, "contents": both}, content.tokens

    def _find(self, name: str) -> _Content:
        content = self._contents.get(name)
        if content is None or content.expires_s <= time.time():
            raise Rejected("permission", NOT_FOUND)
        return content

    def _create(self, body: dict[str, Any], least_tokens: int) -> _Content:
        held = {name: body[name] for name in (*HELD, "contents") if name in body}
        tokens = _tokens(held)
        if not held or tokens < least_tokens:
            raise Rejected(
                "invalid", f"Cached content is too small. total_token_count={tokens}, "
                f"min_total_token_count={max(1, least_tokens)}",
            )  # fmt: skip
        self._made += 1
        now_s = time.time()
        name = f"cachedContents/simulated{self._made:06d}"
        content = _Content(name, body, tokens, now_s, now_s + _ttl_s(body))
        self._contents[name] = content
        return content


def _running(blocks: Sequence[tuple[object, bool]]) -> tuple[list[str], list[int]]:
    """Return the digest and the number of tokens of the prompt up to each block."""
    read, size = hashlib.sha256(), 0
    digests, tokens = [], []
    for block, _ in blocks:
        text = json.dumps(block, sort_keys=True)
        read.update(text.encode())
        size += len(text)
        digests.append(read.hexdigest())
        tokens.append(size // CHARACTERS_A_TOKEN)
    return digests, tokens


def _tokens(value: object) -> int:
    return len(json.dumps(value)) // CHARACTERS_A_TOKEN


def _ttl_s(body: dict[str, Any]) -> float:
    """
    Read how long a content lives: `ttl` such as `300s`.

    Raises:
        Rejected: It is not a duration.
    """
    ttl = body.get("ttl")
    if ttl is None:
        return USUAL_TTL_S
    found = re.fullmatch(r"(\d+(?:\.\d+)?)s", str(ttl))
    if not found:
        raise Rejected("invalid", f"Invalid value at 'cached_content.ttl' (Duration), {ttl!r}")
    return float(found[1])


def _rfc3339(epoch_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch_s))
