"""
Explicit caches at Google: one per stable prefix, kept by name until shortly before it expires.

Short prefixes are left to Gemini's implicit caching, which is free and needs no requests. A cache
only saves money, so if anything fails with a cache, the call is sent without it.
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from billiard.exceptions import SoftTimeLimitExceeded
from google import genai
from google.genai import types

from breakwater.errors import Cancelled

MIN_CHARS = 16_384
"""4,096 tokens of four characters: the largest minimum of a cache at any Gemini model."""
TTL_S = 600
"""How long Google keeps it; storage is billed by the hour."""
RENEW_BEFORE_S = 30
"""How long before its end a cache is replaced by a new one."""
RETRY_S = 300.0
"""How long a prefix that could not be cached is not tried again."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """The shared beginning of many requests; a request with a cache must not repeat it."""

    model: str
    system_instruction: str | None
    tools: list[types.Tool] | None
    tool_config: types.ToolConfig | None

    def text(self) -> str:
        """Return the whole prefix as text; equal for equal prefixes."""
        tools = [tool.model_dump_json(exclude_none=True) for tool in self.tools or ()]
        config = None
        if self.tool_config:
            config = self.tool_config.model_dump_json(exclude_none=True)
        return json.dumps([self.model, self.system_instruction, tools, config])


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str | None
    """None: the cache is being made, or could not be made."""
    until: float


class Caches:
    """
    The caches of one process.

    Args:
        client: Makes the caches, in its account.
        now: The clock, in seconds.
    """

    def __init__(self, client: genai.Client, now: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._now = now
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}

    def name_for(self, prefix: Prefix, options: types.HttpOptions) -> str | None:
        """
        Return the name of the prefix's cache, made now if there is none; None: call without one.

        Only one thread makes it; meanwhile the others call without one.
        """
        text = prefix.text()
        if len(text) < MIN_CHARS:
            return None
        key = sha256(text.encode()).hexdigest()
        with self._lock:
            now = self._now()
            self._entries = {k: entry for k, entry in self._entries.items() if entry.until > now}
            if key in self._entries:
                return self._entries[key].name
            self._entries[key] = _Entry(None, now + RETRY_S)
        name = self._make(prefix, options)
        if name:
            with self._lock:
                self._entries[key] = _Entry(name, now + TTL_S - RENEW_BEFORE_S)
        return name

    def forget(self, name: str) -> None:
        """Remove a cache that Google no longer has; the next call makes a new one."""
        with self._lock:
            self._entries = {k: entry for k, entry in self._entries.items() if entry.name != name}

    def _make(self, prefix: Prefix, options: types.HttpOptions) -> str | None:
        config = types.CreateCachedContentConfig(
            system_instruction=prefix.system_instruction,
            tools=prefix.tools,
            tool_config=prefix.tool_config,
            ttl=f"{TTL_S}s",
            http_options=options,
        )
        try:
            return self._client.caches.create(model=prefix.model, config=config).name
        except (Cancelled, SoftTimeLimitExceeded):
            raise
        except Exception:  # noqa: BLE001 - a cache must not fail a call
            return None
