"""docs/completions.md: every example runs as it stands, and the tables name what there is."""

import json
import re
from pathlib import Path

import pytest

from breakwater import errors
from breakwater.calls.options import OPTIONS
from breakwater.result import Result
from simulator.client import Simulator
from tests.support.fleet import Fleet

PAGE = (Path(__file__).parents[2] / "docs" / "completions.md").read_text()
EXAMPLES = dict(re.findall(r"\n## ([^\n]+)\n\n```python\n(.*?)\n```\n", PAGE, re.DOTALL))


def rows(heading: str) -> list[str]:
    """Return the first cells of a section's table."""
    section = f"\n{PAGE}".partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| (`[^|]*?) \|", section, re.MULTILINE)


@pytest.mark.four_adapters
def test_every_example_runs(workers: Fleet, simulator: Simulator) -> None:
    """Through a real worker and the official SDKs; what the simulator was asked is what is told."""
    workers.start()
    begin = "import json\nfrom pathlib import Path\nPath('report.pdf').write_bytes(b'%PDF-1.7')\n"
    ends = {
        "Many at once": "print(json.dumps([result.get() for result in results]))",
        "Structured answers": "print(json.dumps([result['data'], city.model_dump()]))",
        "Tools": "print(json.dumps([messages, result]))",
        "Images and documents": "print(json.dumps(result))",
        "Parameters": "print(json.dumps(result))",
    }
    assert ends.keys() == EXAMPLES.keys()

    printed = {
        name: json.loads(workers.run(begin + code + "\n" + ends[name]).splitlines()[-1])
        for name, code in EXAMPLES.items()
    }

    assert [each["role"] for each in printed["Many at once"]] == ["coder", "planner"]
    data, city = printed["Structured answers"]
    assert data == city
    assert data.keys() == {"name", "people"}
    messages, last = printed["Tools"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool"]
    assert messages[2]["content"].startswith("rain in ")
    assert (last["finish_reason"], last["tool_calls"]) == ("stop", [])
    assert printed["Images and documents"]["provider"] == "gpt"


def test_every_option_is_told() -> None:
    """And none that does not exist."""
    assert set(re.findall(r"`(\w+)`", " ".join(rows("# Completions")))) == set(OPTIONS)


def test_every_key_of_a_result_is_told(workers: Fleet) -> None:
    """The type, the page and a real result have the same keys."""
    workers.start()

    result = json.loads(
        workers.run(
            "import json\nfrom tasks import complete\n"
            "print(json.dumps(complete.delay('coder', 'hi').get(timeout=180)))"
        )
    )

    told = set(re.findall(r"`(\w+)`", " ".join(rows("## Results"))))
    assert told == Result.__annotations__.keys()
    assert told - {"duplicates"} == result.keys()


def test_every_error_on_the_page_exists() -> None:
    """Under its name."""
    named = re.findall(r"`(\w+)`", " ".join(rows("## Errors")))

    assert named
    assert all(issubclass(getattr(errors, name), errors.BreakwaterError) for name in named)
