"""The pages that show results say what was measured, and the measuring hangs together."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import report
from benchmarks.rivals.catalogue import BASE, BY_NAME, RIVALS
from benchmarks.rivals.environments import PINNED

HERE = Path(__file__).parent.parent


@pytest.mark.parametrize("path", [report.PAGE, report.README, report.PICTURE], ids=lambda p: p.name)
def test_the_pages_say_what_was_measured(path: Path) -> None:
    """A figure is never written by hand; `python -m benchmarks.report` writes them."""
    assert path.read_text() == report.pages()[path]


@pytest.mark.parametrize("name", ["load", "outage"])
def test_the_results_are_of_the_rivals_that_are_there(name: str) -> None:
    """Nobody is shown who can not be measured again."""
    kept = json.loads((HERE / "benchmarks" / "results" / f"{name}.json").read_text())

    assert {run["rival"] for run in kept["runs"]} <= set(BY_NAME)
    assert {"date", "cpu", "cores", "versions", "breakwater"} <= set(kept["about"])


def test_a_ratio_is_of_the_same_turn() -> None:
    """What another hour's machine did to bare Celery tells nothing."""
    runs = [
        {"turn": 1, "rival": BASE, "cpu_ms": 2.0},
        {"turn": 1, "rival": "sdk", "cpu_ms": 1.0},
        {"turn": 2, "rival": BASE, "cpu_ms": 8.0},
        {"turn": 2, "rival": "sdk", "cpu_ms": 2.0},
        {"turn": 3, "rival": "sdk", "cpu_ms": 9.0},
    ]

    assert report.against(runs, "cpu_ms", "sdk") == [0.5, 0.25]


def test_the_picture_has_a_bar_for_every_rival() -> None:
    """It is drawn by hand, so it is read by another's parser."""
    picture = ElementTree.fromstring(report.PICTURE.read_text())
    names = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]

    assert all(rival.title in names for rival in RIVALS)
    assert len(list(picture.iter("{http://www.w3.org/2000/svg}rect"))) >= 2 * len(RIVALS)


@pytest.mark.parametrize("name", sorted({r.requirements for r in RIVALS if r.requirements}))
def test_every_rival_is_pinned(name: str) -> None:
    """Another day's packages would be another rival."""
    lines = (PINNED / f"{name}.txt").read_text().splitlines()

    assert lines
    assert all("==" in line for line in lines)
