"""
What a terminal and a log may be sent of text that is not ours.

Answers, errors, names and ids come from providers, producers and Redis. A control character in them
could move the cursor, retitle the window or write to the clipboard (OSC 52); a bidirectional one
could show another text than there is (CVE-2021-42574, "Trojan Source"). Such characters are shown
escaped, as Python writes them: `\\x1b`, `\\u202e`. What is merely unusual stays as it is.
"""

import codecs
import re

_UNSAFE = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and line feed, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # bidirectional marks, overrides and isolates
    "\u2028\u2029"  # line and paragraph separators
    "\ufff9-\ufffb\U000e0000-\U000e007f"  # annotations and tags, which nobody sees
    "\ud800-\udfff"  # half a surrogate pair, which no encoding has
)
_IN_LINES = re.compile(f"[{_UNSAFE}]")
_IN_A_LINE = re.compile(f"[{_UNSAFE}\t\n]")
_SPELT = {"→": "->", "…": "...", "●": "*", "○": "o", "━": "=", "─": "-", "·": "."}
"""For standard output that has none of these: what our own messages use."""


def plain(value: object) -> str:
    """Return text that is safe to show on one line; line breaks and tabs are escaped too."""
    return _IN_A_LINE.sub(_escaped, str(value))


def plain_lines(value: object) -> str:
    """Return text that is safe to show; line breaks and tabs stay."""
    return _IN_LINES.sub(_escaped, str(value).replace("\r\n", "\n"))


def plain_json(text: str) -> str:
    """Return a JSON document that is safe to show and means the same."""
    return _IN_LINES.sub(lambda found: _json_escaped(found[0]), text)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _json_escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def _spell(error: UnicodeError) -> tuple[str | bytes, int]:
    """Write what an encoding does not have: our own signs by others, all else escaped."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    spelt = "".join(_SPELT.get(c) or c.encode("unicode_escape").decode() for c in lost)
    return spelt, error.end


codecs.register_error("breakwater", _spell)
ERRORS = "breakwater"
"""The error handler of a stream that may not have every character."""
