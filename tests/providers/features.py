"""
What each adapter does with each feature: the table that the suite asserts and the docs show.

`python -m tests.providers.features` writes it into docs/providers.md.
"""

from collections.abc import Mapping
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "providers.md"
BEGIN, END = "<!-- features: begin -->\n", "<!-- features: end -->\n"
ADAPTERS = ("anthropic", "openai", "openai-chat", "google")

WORKS = "works"
DROPPED = "dropped with a warning"
REFUSED = "refused"

FEATURES: Mapping[str, Mapping[str, str]] = {
    "plain text": {},
    "system prompt": {},
    "conversation": {},
    "stream": {},
    "stream with tool calls": {},
    "stream that is cut": {},
    "stream that stalls": {},
    "stream that fails": {},
    "reasoning kept apart": {},
    "tools, auto": {},
    "tools, none": {},
    "tools, required": {},
    "tools, by name": {},
    "tools in parallel": {},
    "tool results": {},
    "schema": {},
    "schema, nested": {},
    "schema with references": {},
    "schema with optional properties": {},
    "schema that holds itself": {"anthropic": REFUSED},
    "schema with a map": {"anthropic": REFUSED},
    "schema in a stream": {},
    "image by URL": {},
    "image as bytes": {},
    "document by URL": {"openai-chat": REFUSED},
    "document as bytes": {},
    "max_output_tokens": {},
    "temperature": {"anthropic": DROPPED},
    "stop": {"openai": DROPPED},
    "seed": {"anthropic": DROPPED, "openai": DROPPED},
    "reasoning_effort": {},
    "prompt cache": {},
}
"""By feature: the adapters that do not simply do it."""


def verdict(feature: str, adapter: str) -> str:
    """Tell what an adapter does with a feature."""
    return FEATURES[feature].get(adapter, WORKS)


def table() -> str:
    """Return the table in Markdown."""
    head = ["feature", *(f"`{adapter}`" for adapter in ADAPTERS)]
    rows = [[feature, *(verdict(feature, adapter) for adapter in ADAPTERS)] for feature in FEATURES]
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def write() -> None:
    """Put the table between its marks in the page."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}{table()}{END}{after}")


if __name__ == "__main__":
    write()
