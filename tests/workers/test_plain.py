"""What is shown of text that is not ours: every unsafe character escaped, nothing else changed."""

import json

import pytest

from workers.terminal.plain import ENCODING_ERRORS, plain, plain_json, plain_lines

UNSAFE = {
    "cursor": ("\x1b[2J", r"\x1b[2J"),
    "clipboard": ("\x1b]52;c;cm0=\x07", r"\x1b]52;c;cm0=\x07"),
    "title": ("\x1b]0;root\x1b\\", r"\x1b]0;root\x1b" + "\\"),
    "C1 introducer": ("\x9b31m", r"\x9b31m"),
    "C1 string": ("\x90x\x9c", r"\x90x\x9c"),
    "null": ("a\x00b", r"a\x00b"),
    "backspace": ("ok\b\bno", r"ok\x08\x08no"),
    "carriage return": ("safe\rgone", r"safe\rgone"),
    "delete": ("\x7f", r"\x7f"),
    "next line": ("\x85", r"\x85"),
    "override": ("\u202egnp", r"\u202egnp"),
    "embedding": ("\u202a\u202b\u202c", r"\u202a\u202b\u202c"),
    "isolates": ("\u2066\u2067\u2068\u2069", r"\u2066\u2067\u2068\u2069"),
    "marks": ("\u200e\u200f\u061c", r"\u200e\u200f\u061c"),
    "separators": ("\u2028\u2029", r"\u2028\u2029"),
    "tags": ("\U000e0041", r"\U000e0041"),
    "annotation": ("\ufff9", r"\ufff9"),
    "half a pair": ("\ud800", r"\ud800"),
    "other half": ("\udfff", r"\udfff"),
}


@pytest.mark.parametrize(("text", "shown"), UNSAFE.values(), ids=UNSAFE)
def test_what_could_steer_a_terminal_is_escaped(text: str, shown: str) -> None:
    """On one line, in several, and in JSON, which means the same as before."""
    assert plain(text) == shown
    assert plain_lines(text) == shown
    as_json = plain_json(json.dumps({"text": text}, ensure_ascii=False))
    assert json.loads(as_json) == {"text": text}
    assert plain_lines(as_json) == as_json


@pytest.mark.parametrize(
    "text",
    [
        "naïve 日本 שלום مرحبا",
        "👩‍👩‍👧 🏳️‍🌈 e\u0301",
        "می‌خواهم",
        "100\u00a0%",
        "[bold]x[/] :smile:",
        "\U0001fae8",
    ],
)
def test_what_is_merely_unusual_stays(text: str) -> None:
    """Joiners, combining marks, new emoji, spaces that do not break, and rich's markup."""
    assert plain(text) == plain_lines(text) == text


def test_lines_stay_where_there_may_be_several() -> None:
    """An answer keeps its lines and tabs; a cell of a table is one line."""
    assert plain_lines("a\r\n\tb\n") == "a\n\tb\n"
    assert plain("a\n\tb") == r"a\n\tb"


def test_an_encoding_that_lacks_characters_gets_them_escaped() -> None:
    """Our own signs are written by others, all else as Python writes it."""
    assert "→ 日 naïve".encode("ascii", ENCODING_ERRORS) == rb"-> \u65e5 na\xefve"
