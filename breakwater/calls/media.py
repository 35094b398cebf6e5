"""The parts of a message: text, and images and documents, by URL or in base64."""

import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Literal
from urllib.parse import urlsplit

from breakwater.content import JsonObject, Media
from breakwater.errors import InvalidPrompt

KINDS: tuple[Literal["image", "document"], ...] = ("image", "document")
MEDIA_TYPES = {
    "image": re.compile(r"image/(png|jpeg|gif|webp)"),
    "document": re.compile(r"application/pdf|text/[a-z0-9.+-]+"),
}
ALLOWED = {
    "image": "image/png, image/jpeg, image/gif or image/webp",
    "document": "application/pdf or text/…",
}
MAX_URL = 8192
"""Characters; few servers accept more."""
MAX_NAME = 255
SHAPES = (
    "parts are {'type': 'text', 'text': …}, {'type': 'image' or 'document', 'url': 'https://…'} "
    "or {'type': 'image' or 'document', 'data': base64, 'media_type': …}"
)
_KEYS = {"type", "url", "data", "media_type", "name"}


def parse_parts(
    where: str, content: Sequence[object], *, text_only: bool
) -> str | tuple[str | Media, ...]:
    """
    Check a message's parts.

    Args:
        text_only: Messages of this role cannot hold media.

    Returns:
        One text if all parts are texts; else texts and media in order.

    Raises:
        InvalidPrompt: A part does not fit; the message names it and what is allowed.
    """
    parts = tuple(_part(f"part {at} of {where}", part) for at, part in enumerate(content))
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) == len(parts):
        return "".join(texts)
    if text_only:
        raise InvalidPrompt(f"{where} has an image or a document; only user messages may")
    return tuple(part for part in parts if part != "")


def check_text(where: str, content: object) -> str:
    """Return a text; raise InvalidPrompt if it is not a string, or has no form in UTF-8."""
    if not isinstance(content, str):
        raise InvalidPrompt(f"{where} has a text of type {type(content).__name__}, not a string")
    try:
        content.encode()
    except UnicodeEncodeError as error:
        raise InvalidPrompt(
            f"{where} cannot be written as UTF-8: lone surrogate at character {error.start}"
        ) from None
    return content


def part_as_json(part: str | Media) -> JsonObject:
    """Return a part as its message holds it."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    fields = {"url": part.url, "data": part.data, "media_type": part.media_type, "name": part.name}
    return {"type": part.kind, **{key: value for key, value in fields.items() if value is not None}}


def _part(where: str, part: object) -> str | Media:
    if not isinstance(part, Mapping):
        raise InvalidPrompt(f"{where} is a {type(part).__name__}; {SHAPES}")
    if part.get("type") == "text":
        _check_keys(where, part, {"type", "text"})
        return check_text(where, part.get("text"))
    for kind in KINDS:
        if part.get("type") == kind:
            return _media(where, kind, part)
    raise InvalidPrompt(f"{where} has no valid type; {SHAPES}")


def _media(where: str, kind: Literal["image", "document"], part: Mapping[str, object]) -> Media:
    _check_keys(where, part, _KEYS)
    has_url, has_data = part.get("url") is not None, part.get("data") is not None
    if has_url == has_data:
        raise InvalidPrompt(f"{where} must have either url or data; {SHAPES}")
    url = data = media_type = None
    if has_url:
        url = _check_url(where, part["url"])
    else:
        data = _check_base64(where, part["data"])
    if has_data or part.get("media_type") is not None:
        media_type = _check_media_type(where, kind, part.get("media_type"))
    return Media(kind, url, data, media_type, _name(where, part.get("name")))


def _check_media_type(where: str, kind: Literal["image", "document"], value: object) -> str:
    if not isinstance(value, str) or not MEDIA_TYPES[kind].fullmatch(value):
        raise InvalidPrompt(f"{where} has no valid media_type; allowed is {ALLOWED[kind]}")
    return value


def _check_keys(where: str, part: Mapping[str, object], known: set[str]) -> None:
    if unknown := len(part.keys() - known):
        raise InvalidPrompt(f"{where} has {unknown} unknown key(s); {SHAPES}")


def _check_url(where: str, url: object) -> str:
    if not isinstance(url, str) or len(url) > MAX_URL:
        raise InvalidPrompt(f"{where} has no valid url; a string of up to {MAX_URL} characters")
    try:
        parsed = urlsplit(check_text(where, url))
        fits = parsed.scheme in {"http", "https"} and parsed.hostname
    except ValueError:
        fits = None
    if not fits or any(character.isspace() for character in url):
        raise InvalidPrompt(f"{where} has a url that is not http:// or https://")
    return url


def _check_base64(where: str, data: object) -> str:
    try:
        # Strict: no line breaks, because no vendor accepts them.
        if isinstance(data, str) and binascii.a2b_base64(data, strict_mode=True):
            return data
    except ValueError:
        pass
    raise InvalidPrompt(f"{where} has data that is not base64, a string without line breaks")


def _name(where: str, name: object) -> str | None:
    if name is None:
        return None
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= MAX_NAME:
        raise InvalidPrompt(
            f"{where} has a name that is not a string of 1 to {MAX_NAME} printable characters"
        )
    return name
