"""docs/breaker.md names tests, rules and fields; all of them exist."""

import re
from dataclasses import fields
from pathlib import Path

from breaker.state import Rules
from tests.breaker.conftest import Bench

HERE = Path(__file__).parent
DOCS = (HERE.parents[1] / "docs" / "breaker.md").read_text()


def test_every_invariant_names_a_test_that_exists() -> None:
    """I1 to I18, each with its proof."""
    defined = {
        name
        for path in HERE.glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    rows = dict(re.findall(r"^\| (I\d+) \| .* \| (.*) \|$", DOCS, re.MULTILINE))

    named = {number: set(re.findall(r"`(test_\w+)`", cell)) for number, cell in rows.items()}

    assert list(named) == [f"I{number}" for number in range(1, 19)]
    assert all(names and names <= defined for names in named.values()), named


def test_every_field_of_the_hash_is_explained(shared: Bench) -> None:
    """Nothing stands in Redis that the docs do not tell."""
    shared.half_open("a")

    unexplained = [field for field in shared.hash() if f"`{field.split(':')[0]}" not in DOCS]

    assert not unexplained


def test_every_optional_rule_is_told() -> None:
    """Under the name `Breakers.get` takes."""
    names = {field.name for field in fields(Rules)} - {"reset_timeout_s"}

    assert not [name for name in names if f"`{name}`" not in DOCS]
