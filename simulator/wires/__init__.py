"""The wire formats, and the paths of each."""

import re

from simulator.connection import Request
from simulator.wires.anthropic import Anthropic
from simulator.wires.base import Wire
from simulator.wires.chat import Chat
from simulator.wires.google import Google
from simulator.wires.responses import Responses

ANTHROPIC, CHAT, RESPONSES, GOOGLE = Anthropic(), Chat(), Responses(), Google()
WIRES: tuple[Wire, ...] = (ANTHROPIC, RESPONSES, CHAT, GOOGLE)

_GENERATE: tuple[tuple[re.Pattern[str], Wire], ...] = (
    (re.compile(r"(.+/)?messages"), ANTHROPIC),
    (re.compile(r"(.+/)?responses"), RESPONSES),
    (re.compile(r"(.+/)?chat/completions"), CHAT),
    (re.compile(r"(.+/)?models/[^/:]+:(generate|streamGenerate)Content"), GOOGLE),
)
_CACHES = re.compile(r"(.+/)?cachedContents(/[^/:]+)?")
_MODELS = re.compile(r"(.+/)?models")


def find_wire(request: Request, path: str) -> tuple[Wire, str]:
    """Return the wire format of a path and the call, as `hits.Hit.call` names it."""
    if request.method == "POST":
        for pattern, wire in _GENERATE:
            if pattern.fullmatch(path):
                return wire, "generate"
    if request.method in ("POST", "GET", "DELETE") and _CACHES.fullmatch(path):
        return GOOGLE, "caches"
    is_models = request.method == "GET" and _MODELS.fullmatch(path)
    return _wire_of_headers(request), "models" if is_models else "unknown"


def _wire_of_headers(request: Request) -> Wire:
    """Return the vendor where several have the same path."""
    if "x-goog-api-key" in request.headers or "key" in request.query:
        return GOOGLE
    return ANTHROPIC if "anthropic-version" in request.headers else CHAT
