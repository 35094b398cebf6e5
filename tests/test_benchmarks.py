"""The pages that show results say what was measured, and the measuring hangs together."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import outage, processes, report, results
from benchmarks.rivals.catalogue import BASE, BY_NAME, RIVALS
from benchmarks.rivals.environments import PINNED
from tests.support.waiting import wait_until

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


def test_the_picture_has_a_bar_for_everybody_who_was_measured() -> None:
    """It is drawn by hand, so it is read by another's parser."""
    picture = ElementTree.fromstring(report.PICTURE.read_text())
    texts = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    bars = len(list(picture.iter("{http://www.w3.org/2000/svg}rect")))

    runs = results.read("outage")["runs"]
    measured = {run["rival"] for run in runs if run["way"] == "503"}

    assert all(BY_NAME[name].title in texts for name in measured)
    assert bars >= len(measured)
    assert len(texts) == 3 + 2 * bars


@pytest.mark.parametrize("name", sorted({r.requirements for r in RIVALS if r.requirements}))
def test_every_rival_is_pinned(name: str) -> None:
    """Another day's packages would be another rival."""
    lines = (PINNED / f"{name}.txt").read_text().splitlines()

    assert lines
    assert all("==" in line for line in lines)


def _hit(started_ms: float, ended_ms: float | None, status: int = 503) -> dict[str, object]:
    return {"started_at_ms": started_ms, "ended_at_ms": ended_ms, "status": status}


def test_a_trip_is_the_fifth_failure_and_what_was_in_flight_then_is_told() -> None:
    """Calls that began before are nobody's fault; the last one that began after is what counts."""
    ended = [_hit(at, at + 10) for at in (0, 1, 2, 3, 4)]
    in_flight = [_hit(12, 40), _hit(13, None)]

    told = outage.trip([*ended, *in_flight, _hit(30, 35)])

    assert told == {"in_flight_at_trip": 2, "last_call_ms": 16}


def test_one_429_says_enough() -> None:
    """A fleet that is told when to come back need not be told five times."""
    told = outage.trip([_hit(0, 10, 429), _hit(5, 12, 429)])

    assert told == {"in_flight_at_trip": 1, "last_call_ms": -5}


def test_the_cpu_of_a_process_counts_its_children() -> None:
    """A worker may be a parent that does nothing and a child that does everything."""
    spin = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {spin!r}]); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as parent:
        try:
            wait_until(lambda: processes.cpu_s(parent.pid) >= 0.3, 20)

            assert len(processes.family(parent.pid)) == 2
            assert processes.memory_mb(parent.pid)[0] > processes.memory_mb(parent.pid)[1] > 0
        finally:
            parent.kill()
