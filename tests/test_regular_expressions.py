"""Every regular expression of the product takes time that grows with its text, and no faster."""

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.growth import grows_no_faster_than_its_input

ROOT = Path(__file__).parent.parent
METHODS = ("fullmatch", "match", "search", "sub", "findall", "finditer", "split")
SOURCES = {
    path: path.read_text()
    for package in ("breaker", "breakwater", "tasks", "workers")
    for path in sorted((ROOT / package).rglob("*.py"))
}


class Expression(NamedTuple):
    """A regular expression, and what it is used for."""

    where: str
    pattern: re.Pattern[str]
    methods: frozenset[str]


def expressions() -> Iterator[Expression]:
    """Find them all: those that have a name, those in tables, and those that stand in a call."""
    for path, source in SOURCES.items():
        for node in ast.walk(ast.parse(source)):
            if _is_of_re(node, ("compile", *METHODS)):
                yield _expression(path, node)


def _is_of_re(node: ast.AST, names: tuple[str, ...]) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "re"
        and node.func.attr in names
    )


def _expression(path: Path, call: Any) -> Expression:
    module = import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    flags = [
        *call.args[1:2] * (call.func.attr == "compile"),
        *(keyword.value for keyword in call.keywords if keyword.arg == "flags"),
    ]
    text, *given = (
        eval(compile(ast.Expression(each), str(path), "eval"), vars(module))
        for each in (call.args[0], *flags)
    )
    where = f"{path.relative_to(ROOT)}:{call.lineno}"
    methods = {call.func.attr} if call.func.attr != "compile" else set(_uses(path, text))
    return Expression(where, re.compile(text, *given), frozenset(methods))


def _uses(path: Path, text: str) -> Iterator[str]:
    """Name the methods that a compiled expression is used with; all of its file's in a table."""
    names = [
        target.id
        for node in ast.walk(ast.parse(SOURCES[path]))
        if isinstance(node, ast.Assign) and _is_of_re(node.value, ("compile",))
        for target in node.targets
        if isinstance(target, ast.Name)
        and getattr(vars(_module(path)).get(target.id), "pattern", None) == text
    ]
    for source in SOURCES.values():
        for name in names:
            yield from re.findall(rf"\b{name}\.({'|'.join(METHODS)})\(", source)
    if not names:
        yield from re.findall(rf"\.({'|'.join(METHODS)})\(", SOURCES[path])


def _module(path: Path) -> Any:
    return import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))


def texts(pattern: str) -> Iterator[tuple[str, str, str]]:
    """Yield beginnings, pieces to repeat, and ends that nearly fit."""
    letters = sorted({*"a0 _-.{}()\"'\n,:é", *(each for each in pattern if each.isprintable())})
    pieces = [*letters, *map("".join, product(letters[:12], "a0 -("))]
    words = [word for word in re.findall(r"[A-Za-z# ]{2,}", pattern) if len(word) < 40]
    begins = ["", *words[:1], "".join(words)]
    for begin in dict.fromkeys(begins):
        for piece in pieces:
            yield begin, piece, "!"
    for word in words:
        yield "", word, "\x00"


EXPRESSIONS = list(expressions())


def test_all_expressions_are_found() -> None:
    """As many as a plain search finds."""
    found = sum(
        len(re.findall(rf"\bre\.(?:compile|{'|'.join(METHODS)})\(", source))
        for source in SOURCES.values()
    )

    assert len(EXPRESSIONS) == found > 15
    assert all(each.methods for each in EXPRESSIONS)


@pytest.mark.parametrize("each", EXPRESSIONS, ids=[each.where for each in EXPRESSIONS])
def test_no_expression_backtracks_without_bound(each: Expression) -> None:
    """Whatever the text: it may come from a provider, a caller, or Redis."""
    for method in sorted(each.methods):
        for begin, piece, end in texts(each.pattern.pattern):

            def run(
                size: int, method: str = method, begin: str = begin, piece: str = piece,
                end: str = end,
            ) -> object:  # fmt: skip
                text = begin + piece * (size // len(piece)) + end
                if method == "sub":
                    return each.pattern.sub("", text)
                found = getattr(each.pattern, method)(text)
                return list(found) if method == "finditer" else found

            assert grows_no_faster_than_its_input(run), (method, begin, piece)
