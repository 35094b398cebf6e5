"""
Read an error's body in every shape that servers send.

Servers nest an error (`{"error": {…}}`), put it at the top, wrap it in a list, send FastAPI's
`detail`, or hide one JSON document in a string of another (OpenRouter's `metadata.raw`, LiteLLM's
`message`). All of it becomes codes and words, which `rules` matches. Parts of the request that a
server echoes are not read: a prompt must not be able to choose its own verdict.

Every step is bounded, because the body is not ours.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_JSON = 1024 * 1024
"""Bytes; a longer body is not parsed."""
MAX_WORDS = 4 * 1024
"""Characters kept of the first and of the last words of a body."""
MAX_NODES = 400
"""Objects, lists and strings that are read."""
MAX_DEPTH = 12

_CODES = frozenset({
    "type", "code", "status", "reason", "quotaid", "__type", "error_code", "errorcode", "err_code",
    "error_type", "errortype", "status_code", "statuscode", "http_code", "httpstatuscode",
    "error_name",
})  # fmt: skip
_WORDS = frozenset({
    "message", "msg", "detail", "details", "error", "errors", "reason", "title", "description",
    "error_description", "error_message", "errormessage", "error_msg", "errmsg", "err_msg",
    "status_msg", "faultstring", "raw", "cause", "body", "text",
})  # fmt: skip
_ECHOES = frozenset({
    "input", "ctx", "request", "prompt", "messages", "contents", "failed_generation", "headers",
    "flagged_input", "schema", "tools", "output", "instructions", "usage",
})  # fmt: skip
"""Keys under which a server repeats the request, or the model's answer."""


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """The content of one error."""

    codes: tuple[str, ...] = ()
    """The vendor's codes and types, unchanged."""
    words: str = ""
    """Its sentences: lower case, single spaces, no quotes; cut to a few kB."""
    lead: str = ""
    """The server's own words: each text up to its first quotation, without identifiers."""
    unquoted: str = ""
    """The words without quotations of several words, and without the text after an echo."""
    param: str | None = None
    """The parameter at fault; None if no parameter is named."""
    is_page: bool = False
    """Text that is not JSON: it may be from a gateway, a proxy or a firewall."""
    delays: tuple[str, ...] = ()
    """Google's `retryDelay`, unchanged, such as `36s`."""


def read_error(body: object) -> ErrorBody:
    """
    Read an error's body; never raises.

    Args:
        body: Decoded JSON, or the bytes or text as received.
    """
    try:
        if isinstance(body, bytes | str):
            return _read_text(body)
        return _collected(body)
    except (ValueError, TypeError, RecursionError, MemoryError):
        return ErrorBody(is_page=True)


def is_error(value: object) -> bool:
    """Return whether a value is an error; some servers put an empty one beside a good answer."""
    if isinstance(value, dict):
        return any(value.values())
    return bool(value)


def _read_text(body: bytes | str) -> ErrorBody:
    if 0 < len(body) <= MAX_JSON:
        try:
            decoded = json.loads(body)
        except (ValueError, RecursionError):
            decoded = next(_embedded(_text(body)), None)  # an event of a stream, a gateway's prefix
        if isinstance(decoded, dict | list | str) and decoded:
            return _collected(decoded)
    text = _ends(_text(body))
    if _is_markup(text):
        return ErrorBody(is_page=True)
    return ErrorBody(words=plain(text), is_page=True)


def _text(body: bytes | str) -> str:
    if isinstance(body, str):
        return body
    if len(body) > MAX_JSON:
        body = b" ".join((body[:MAX_WORDS], body[MAX_WORDS:][-MAX_WORDS:]))
    return body.decode(errors="replace")


def _collected(body: object) -> ErrorBody:
    codes: list[str] = []
    words: list[str] = []
    delays: list[str] = []
    params: list[str] = []
    for key, value in _walk(body):
        name = key.lower()
        if name in _CODES and (code := _code(value)):
            codes.append(code)
        if name in _WORDS and isinstance(value, str) and not _is_markup(value):
            words.append(_ends(value))
        if name == "param" and isinstance(value, str):
            params.append(value)
        if name == "loc" and isinstance(value, list):
            params.append(".".join(str(part) for part in value[:6] if part != "body"))
        if name == "retrydelay" and isinstance(value, str):
            delays.append(value[:32])
    return ErrorBody(
        codes=tuple(dict.fromkeys(codes)),
        words=plain(" | ".join(words)),
        lead=plain(" | ".join(map(_own_words, words))),
        unquoted=plain(" | ".join(map(_without_echo, words))),
        param=next(iter(params), None),
        delays=tuple(delays),
    )


def _walk(body: object) -> Iterator[tuple[str, object]]:
    """Yield each key with its value, breadth first; decode JSON inside strings."""
    level: list[tuple[str, object, int]] = [("error", body, 0)]
    seen = 0
    for key, value, depth in level:  # the list grows while it is walked
        seen += 1
        if seen > MAX_NODES:
            return
        yield key, value
        if depth >= MAX_DEPTH:
            continue
        if isinstance(value, dict):
            level += [
                (str(name), inner, depth + 1)
                for name, inner in list(value.items())[:MAX_NODES]
                if str(name).lower() not in _ECHOES
            ]
        elif isinstance(value, list):
            name = ""
            if key.lower() in _WORDS:
                name = key
            level += [(name, inner, depth + 1) for inner in value[:MAX_NODES]]
        elif isinstance(value, str) and key.lower() in _WORDS:
            level += [(key, inner, depth + 2) for inner in _embedded(value)]


def _embedded(text: str) -> Iterator[object]:
    """Decode the JSON object or list inside a sentence, if one is near its beginning."""
    start = min((at for at in (text.find("{"), text.find("[{")) if at >= 0), default=-1)
    if not 0 <= start <= MAX_WORDS or len(text) > MAX_JSON or _is_markup(text):
        return
    try:
        decoded, _ = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return
    if isinstance(decoded, dict | list):
        yield decoded


def _own_words(text: str) -> str:
    """Return a text up to its first quotation, without names and paths."""
    lead = _QUOTE.split(text, maxsplit=1)[0]
    return _TOKEN.sub(_unless_identifier, lead)


def _unless_identifier(token: re.Match[str]) -> str:
    if _IDENTIFIER.search(token[0]):
        return ""
    return token[0]


def _without_echo(text: str) -> str:
    server_words = re.split(_ECHO, text, maxsplit=1)[0]
    if server_words.lstrip().startswith("{"):  # data, and all of it in quotation marks
        return server_words
    return _QUOTATION.sub(_unless_sentence, server_words)


def _unless_sentence(quotation: re.Match[str]) -> str:
    if " " in quotation[0]:
        return ""
    return quotation[0]


def _code(value: object) -> str | None:
    if isinstance(value, str) and 0 < len(value) <= 100:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9:
        return str(value)
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return str(int(value))
    return None


def _ends(text: str) -> str:
    if len(text) <= 2 * MAX_WORDS:
        return text
    return f"{text[:MAX_WORDS]} … {text[-MAX_WORDS:]}"


def _is_markup(text: str) -> bool:
    """Return whether a text is a page, as gateways and firewalls send, and not an API's answer."""
    start = text[:64].lstrip()[:2]
    return start[:1] == "<" and (start[1:].isalpha() or start[1:] in {"!", "?"})


_ECHO = r"(?i:\b(?:got|received|given|found|near|saw|value|input|content|text|pos \d{1,9})\s?[:=])"
_QUOTE = re.compile(r"[\"`{\u201c\u00ab]|(?<![A-Za-z0-9])['\u2018]|" + _ECHO)
"""Where a quotation begins; an apostrophe inside a word does not begin one."""
_QUOTATION = re.compile(r"\"[^\"]*\"|\u201c[^\u201c\u201d]*\u201d|(?<![A-Za-z0-9])'[^']*'")
_TOKEN = re.compile(r"[!-~]+")
_IDENTIFIER = re.compile(r"[\w\]][_./\[]+\w")
"""Inside a path or a name of several parts: a tool or a property may be called `api_key`."""
_QUOTES = str.maketrans("", "", "'\"`\u2018\u2019\u201c\u201d\u00ab\u00bb*\\")


def plain(text: str) -> str:
    """Return a text in the form that the rules compare."""
    return " ".join(_ends(text).translate(_QUOTES).lower().split())
