"""docs/providers.md says what the code does."""

import re
from pathlib import Path

from breakwater import errors
from breakwater.calls.params import PARAMS
from tasks.providers.adapter import Adapter
from tests.providers.conftest import Build

PAGE = (Path(__file__).parents[2] / "docs" / "providers.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """Return the cells of a section's first table."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_of_parameters_is_the_adapters_own(build: Build) -> None:
    """Each cell is where the adapter puts it, or `dropped`."""
    head, _, *table = rows("Parameters")
    adapters = {name: build(name, "http://127.0.0.1:9") for name in head[1:]}

    expected = [
        [param, *(_takes(adapter).get(param, "dropped") for adapter in adapters.values())]
        for param in PARAMS
    ]

    assert table == expected


def test_the_table_of_errors_has_every_class_and_its_verdict() -> None:
    """But for those of answers with status 200, which have a table of their own."""
    trips = {(False, False): "no", (True, False): "yes", (True, True): "at once"}
    _, _, *table = rows("Errors")
    documented = {row[1]: (row[2].partition(":")[0], row[3]) for row in table}

    expected = {
        kind.__name__: (
            trips[kind.verdict.trips, kind.verdict.trips_at_once],
            "yes" if kind.verdict.next_target else "no",
        )
        for kind in errors.ProviderError.__subclasses__()
    }

    in_answers = set(re.findall(r"`(\w+)`", PAGE.partition("\n## Answers")[2]))
    assert documented.items() <= expected.items()
    assert expected.keys() <= documented.keys() | in_answers


def _takes(adapter: object) -> dict[str, str]:
    assert isinstance(adapter, Adapter)
    return dict(adapter.PARAM_PATHS)
