"""The documentation's LangGraph program, run as it stands while a provider dies under it."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk

from simulator.client import Simulator

pytestmark = pytest.mark.usefixtures("simulator")

PAGE = Path(__file__).parents[2] / "docs" / "langchain.md"


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The compiled graph of the page's program."""
    (code,) = re.findall(r"<!-- team -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    path = tmp_path / "docs_team.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location("docs_team", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "docs_team", module)
    spec.loader.exec_module(module)
    return module.team


def _verdict(approved: bool, remarks: str) -> str:
    return json.dumps({"approved": approved, "remarks": remarks})


def _served(simulator: Simulator, label: str) -> int:
    return sum(hit["status"] == 200 for hit in simulator.hits(label))


async def test_a_team_of_agents_finishes_while_a_provider_dies(
    team: Any, simulator: Simulator
) -> None:
    """
    clarifier → planner → coder ⇄ tools, coder ⇄ reviewer, to an approval in the second round.

    `local`, the first of three chains, is down from the coder's first tool on. Who served is told
    by the simulator's log; in the messages nothing shows but the name of another provider.
    """
    simulator.settings(
        "gpt", answers=["draft 1", _verdict(False, "call it add"), "draft 2", _verdict(True, "")]
    )
    steps: list[str] = []
    served_by: list[str] = []
    review: Any = None
    before = 0

    async for update in team.astream({"request": "Add two numbers"}, stream_mode="updates"):
        ((step, change),) = update.items()
        steps.append(step)
        if step == "tools" and not before:
            before = _served(simulator, "local")
            simulator.fault("local", status=503)
        for message in change.get("work", ()) if step == "coder" else ():
            served_by.append(message.response_metadata["provider"])
        review = change.get("review", review)

    assert steps == [
        "clarifier", "planner", "coder", "tools", "coder", "reviewer",
        "coder", "tools", "coder", "reviewer",
    ]  # fmt: skip
    assert review.approved
    assert served_by == ["local", "gpt", "gpt", "gpt"]
    assert before == _served(simulator, "local") == 3  # clarifier, planner, coder
    assert any(hit["status"] == 503 for hit in simulator.hits("local"))
    assert _served(simulator, "gpt") == 5  # three drafts of the coder's, two reviews


async def test_a_graphs_tokens_are_streamed_as_they_come(team: Any, simulator: Simulator) -> None:
    """`stream_mode="messages"` makes every `ainvoke` in a node a stream; the answers are the same."""
    simulator.settings("local", answer="a plan of many words indeed", interval_s=0.02)
    told: dict[str, list[str]] = {}

    async for chunk, about in team.astream({"request": "Add"}, stream_mode="messages"):
        if isinstance(chunk, AIMessageChunk):  # the others are what nodes put into the state
            told.setdefault(about["langgraph_node"], []).append(chunk.text)

    assert "".join(told["planner"]) == "a plan of many words indeed"
    assert len([text for text in told["planner"] if text]) > 1
    assert all(hit["stream"] for hit in simulator.hits("local"))
