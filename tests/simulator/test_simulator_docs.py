"""The page on the simulator names all there is."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from simulator.faults import DELIVERIES
from simulator.labels import Settings
from simulator.wires.asked import Summary

PAGE = (Path(__file__).parents[2] / "docs/simulator.md").read_text()


@pytest.mark.parametrize(
    ("heading", "names"),
    [
        ("How a healthy label answers", {field.name for field in fields(Settings)}),
        ("Faults", set(DELIVERIES)),
        ("What was asked", {field.name for field in fields(Summary)}),
    ],
)
def test_each_section_has_every_name(heading: str, names: set[str]) -> None:
    """A setting, a delivery or a field of the log that is new gets its word."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]

    assert names <= set(re.findall(r"`(\w+)`", section))
