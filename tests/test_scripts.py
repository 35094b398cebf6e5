"""How Lua scripts take their arguments, and what is written once for all of them."""

import ast
import re
from pathlib import Path

import pytest

from breakwater.redis.batches import batches
from breakwater.redis.process_name import process_name
from breakwater.redis.script_arguments import named
from breakwater.redis.text import to_text

ROOT = Path(__file__).parent.parent
FLOORS = ("breaker", "breakwater", "tasks", "workers")
SCRIPTS = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.lua"))
FIFTH = re.compile(r"ARGV\[(?:[5-9]|\d{2,})\]")
COPIES = {
    "decodes replies": (
        re.compile(r"isinstance\(\w+, bytes\).*\bstr\("),
        "breakwater/redis/text.py",
    ),
    "spells host:pid": (re.compile(r"gethostname\(\)\}:"), "breakwater/redis/process_name.py"),
}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_names_its_arguments_if_it_has_more_than_four(path: Path) -> None:
    """A position tells nobody what it is; `named` writes one JSON object."""
    code = "\n".join(line.split("--")[0] for line in path.read_text().splitlines())

    assert not FIFTH.search(code)


@pytest.mark.parametrize("what", COPIES)
def test_a_helper_is_written_once(what: str) -> None:
    """Eleven modules had a decoder of their own, and four a name of the process."""
    pattern, owner = COPIES[what]

    files = [
        str(path.relative_to(ROOT))
        for floor in FLOORS
        for path in (ROOT / floor).rglob("*.py")
        if pattern.search(path.read_text())
    ]

    assert set(files) <= {owner, "breakwater/redis/prefix.py"}  # which decodes commands, strictly


def test_named_arguments_are_one_json_object() -> None:
    """Without spaces, and with all characters as they are."""
    assert named(tag="w.1:1", held=2, name="ä", letter=["a", "b"]) == (
        '{"tag":"w.1:1","held":2,"name":"ä","letter":["a","b"]}'
    )


def test_no_caller_hands_a_script_none() -> None:
    """cjson decodes null to an object that is true, and no script looks for it."""
    for floor in FLOORS:
        for path in (ROOT / floor).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "named":
                    values = [keyword.value for keyword in node.keywords]
                    assert not any(isinstance(v, ast.Constant) and v.value is None for v in values)


@pytest.mark.parametrize(
    ("size", "lists"),
    [(1, [["a"], ["b"], ["c"]]), (2, [["a", "b"], ["c"]]), (9, [["a", "b", "c"]])],
)
def test_batches_are_full_but_the_last(size: int, lists: list[list[str]]) -> None:
    """Nothing is lost or repeated, and of nothing there is no batch."""
    assert list(batches(iter("abc"), size)) == lists
    assert list(batches([], size)) == []


def test_text_is_text_whatever_redis_returns() -> None:
    """A client may decode replies itself; bytes that are not UTF-8 end no worker."""
    assert [to_text(each) for each in (b"a", "a", 1, b"\xff")] == ["a", "a", "1", "\ufffd"]


def test_a_process_has_its_own_name() -> None:
    """`host:pid`, as results and transitions show it."""
    assert re.fullmatch(r".+:\d+", process_name())
