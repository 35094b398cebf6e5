"""`breakwater workflow`: a run from its beginning to its end, by somebody at a terminal."""

import json
from subprocess import CompletedProcess
from typing import Any

import pytest

from simulator.client import Simulator
from tests.support.fleet import KEYS, Fleet, wait_for

WORKFLOWS = """
workflows:
  pair:
    - {name: plan, role: planner, prompt: "Plan: {input}"}
    - {name: code, role: coder, prompt: "{plan}!"}
"""


@pytest.fixture
def pair(workers: Fleet, simulator: Simulator) -> Fleet:
    """No worker yet; the workflow `pair`, whose providers answer with the prompt."""
    for label in KEYS:
        simulator.settings(label, answer="echo")
    workers.roles_file.write_text(workers.roles_file.read_text() + WORKFLOWS)
    return workers


def command(fleet: Fleet, *words: str, **how: Any) -> CompletedProcess[str]:
    return fleet.command("breakwater", "workflow", *words, **how)


def shown(fleet: Fleet, run: str) -> dict[str, Any]:
    done = command(fleet, "show", run, "--json")
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.slow
def test_a_run_is_begun_waited_for_and_shown(pair: Fleet) -> None:
    """The answer on standard output, the way to it on the other; as JSON for programs."""
    pair.start()

    done = command(pair, "run", "pair", "--input", "-", "--wait", typed="a login page")
    as_json = json.loads(command(pair, "run", "pair", "--input", "x", "--wait", "--json").stdout)

    assert (done.returncode, done.stdout) == (0, "Plan: a login page!\n")
    assert "succeeded" in done.stderr
    assert [each["stage"] for each in as_json["stages"]] == ["plan", "code"]
    table = command(pair, "show", as_json["run"]).stdout
    assert [line.split()[:7] for line in table.splitlines()[2:]] == [
        ["plan", "1", "1", "succeeded", "planner", "gpt", "gpt-6-luna"],
        ["code", "1", "1", "succeeded", "coder", "local", "qwen3"],
    ]
    state = shown(pair, as_json["run"])
    assert (state["workflow"], state["state"], state["error"]) == ("pair", "succeeded", None)
    assert {"what", "from", "to", "who", "at_ms"} == state["events"][0].keys()


@pytest.mark.slow
def test_the_runs_are_listed_the_newest_first(pair: Fleet) -> None:
    """By either word."""
    assert "no run" in command(pair).stdout
    runs = [command(pair, "run", "pair", "--input", "x").stdout.strip() for _ in range(3)]

    listed = json.loads(pair.command("breakwater", "workflows", "--count", "2", "--json").stdout)
    table = command(pair).stdout

    assert [each["run"] for each in listed] == runs[:0:-1]
    assert {each["state"] for each in listed} == {"pending"}
    assert all(run in table for run in runs)


@pytest.mark.slow
def test_a_run_is_cancelled_and_goes_on(pair: Fleet, simulator: Simulator) -> None:
    """Each says what it did; what is over cannot be cancelled, what succeeded cannot go on."""
    run = command(pair, "run", "pair", "--input", "x").stdout.strip()

    cancelled = command(pair, "cancel", run)
    state = shown(pair, run)["state"]
    resumed = command(pair, "resume", run)
    pair.start()
    wait_for(lambda: shown(pair, run)["state"] == "succeeded", 30, pair.logs)
    late, done = command(pair, "cancel", run), command(pair, "resume", run)

    assert (cancelled.returncode, cancelled.stdout) == (0, f"{run} cancelled\n")
    assert state == "cancelled"
    assert (resumed.returncode, resumed.stdout) == (0, f"{run} resumed\n")
    assert (late.returncode, late.stderr) == (1, f"{run} has ended already: succeeded\n")
    assert (done.returncode, done.stderr) == (
        1, f"{run} has succeeded; there is nothing to resume\n",
    )  # fmt: skip
    assert len(simulator.hits("gpt")) == 1


def test_a_run_that_fails_is_exit_code_1_with_its_error(pair: Fleet, simulator: Simulator) -> None:
    """And the way it came on standard error."""
    simulator.fault("gpt", "invalid")
    pair.start()

    done = command(pair, "run", "pair", "--input", "x", "--wait")

    assert done.returncode == 1
    assert "InvalidRequest" in done.stderr.splitlines()[-1]
    assert "plan" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (
            ["run", "pear", "--input", "x"], 2,
            "unknown workflow 'pear'; there are pair (did you mean 'pair'?)\n",
        ),
        (["run", "pair"], 2, "Missing option '--input'"),
        (["run", "pair", "--input", " "], 1, "InvalidPrompt: the input of a workflow must be"),
        (["show", "no:such"], 1, "UnknownRun: no run 'no:such'; `breakwater workflows` lists"),
        (["cancel", "nobody"], 1, "UnknownRun"),
        (["resume", "nobody"], 1, "UnknownRun"),
        (["show", "nobody", "--watch"], 2, "needs a terminal"),
    ],
)  # fmt: skip
def test_wrong_words_are_told_with_the_right_ones(
    pair: Fleet, words: list[str], code: int, told: str
) -> None:
    """2 where the words are wrong, 1 where what they name is not so."""
    done = command(pair, *words)

    assert (done.returncode, done.stdout) == (code, "")
    assert told in done.stderr
