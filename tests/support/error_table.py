"""`python -m tests.support.error_table` writes the table of servers into docs/providers.md."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "providers" / "data" / "error_bodies.jsonl"
PAGE = ROOT / "docs" / "providers.md"
BEGIN, END = "<!-- servers: begin -->\n", "\n<!-- servers: end -->"


def bodies() -> list[dict[str, Any]]:
    """Return the lines of the data."""
    return [json.loads(line) for line in DATA.read_text().splitlines()]


def table() -> str:
    """Return, by server, how many bodies there are, and what they become."""
    every = bodies()
    rows = ["| server | bodies | read as |", "|---|---|---|"]
    for server in dict.fromkeys(row["server"] for row in every):
        own = [row["expect"] for row in every if row["server"] == server]
        rows.append(f"| {server} | {len(own)} | {', '.join(sorted(set(own)))} |")
    return "\n".join([*rows, f"| all | {len(every)} | |"])


def written() -> str:
    """Return the table that stands in the page."""
    return PAGE.read_text().partition(BEGIN)[2].partition(END)[0]


if __name__ == "__main__":
    page = PAGE.read_text()
    PAGE.write_text(page.replace(f"{BEGIN}{written()}{END}", f"{BEGIN}{table()}{END}"))
