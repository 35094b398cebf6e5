"""docs/monitoring.md says what there is."""

from pathlib import Path

from tests.support.queries import of_rules
from workers.metrics import definitions

PAGE = (Path(__file__).parents[1] / "docs" / "monitoring.md").read_text()


def test_the_table_of_metrics_is_the_list_of_metrics() -> None:
    """Line by line, in the same order: what a worker exports is what the page tells."""
    lines = [line for line in PAGE.splitlines() if line.startswith("| `breakwater_")]

    assert lines == [
        f"| `{m.name}` | {m.kind} | {', '.join(f'`{label}`' for label in m.labels)} | {m.help} |"
        for m in (*definitions.BY_PROCESS, *definitions.OF_FLEET)
    ]


def test_every_alert_is_told() -> None:
    """With a line of its own."""
    told = [line.split()[1] for line in PAGE.splitlines() if line.startswith("| Breakwater")]

    assert told == list(of_rules())
