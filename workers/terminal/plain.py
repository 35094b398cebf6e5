"""
Escape unsafe characters of other programs' text before a terminal or a log shows them.

Answers, errors, names and ids come from providers, producers and Redis. A control character in them
could move the cursor, change the window's title or write to the clipboard (OSC 52). A bidirectional
one could make a text look like another one (CVE-2021-42574, "Trojan Source"). Such characters are
shown escaped, as Python writes them: `\\x1b`, `\\u202e`. Characters that are only unusual stay.
"""

import codecs
import re

_UNSAFE = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 except tab and line feed, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # bidirectional marks, overrides and isolates
    "\u2028\u2029"  # line and paragraph separators
    "\ufff9-\ufffb\U000e0000-\U000e007f"  # annotations and tags, which are invisible
    "\ud800-\udfff"  # half a surrogate pair, which cannot be encoded
)
_IN_LINES = re.compile(f"[{_UNSAFE}]")
_IN_A_LINE = re.compile(f"[{_UNSAFE}\t\n]")
_REPLACEMENTS = {"→": "->", "…": "...", "●": "*", "○": "o", "━": "=", "─": "-", "·": "."}
"""Replacements for the signs of our own messages, if the stream's encoding lacks them."""


def plain(value: object) -> str:
    """Return text that is safe to show on one line; line breaks and tabs are escaped too."""
    return _IN_A_LINE.sub(_escaped, str(value))


def plain_lines(value: object) -> str:
    """Return text that is safe to show; line breaks and tabs stay."""
    return _IN_LINES.sub(_escaped, str(value).replace("\r\n", "\n"))


def plain_json(text: str) -> str:
    """Return a JSON document that is safe to show and means the same."""
    return _IN_LINES.sub(lambda match: _json_escaped(match[0]), text)


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def _json_escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace characters that an encoding lacks: our own signs by others, all else escaped."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    replaced = "".join(
        _REPLACEMENTS.get(character) or character.encode("unicode_escape").decode()
        for character in missing
    )
    return replaced, error.end


codecs.register_error("breakwater", _replace)
ENCODING_ERRORS = "breakwater"
"""The error handler of a stream whose encoding may lack characters."""
