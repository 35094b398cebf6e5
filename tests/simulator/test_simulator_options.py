"""The simulator's options: of every type, on the command line and over HTTP; wrong ones are named."""

import socket
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from simulator.__main__ import main
from simulator.client import Simulator
from simulator.faults import Fault
from simulator.labels import Settings

ROOT = Path(__file__).parents[2]
SET = {
    "answer": (["--answer", "hi"], "hi"),
    "answers": (["--answers", "a", "b"], ["a", "b"]),
    "tool_calls": (["--tool-calls", '[{"name": "f"}]'], [{"name": "f"}]),
    "finish": (["--finish", "length"], "length"),
    "latency": (["--latency", "uniform:0:0"], "uniform:0:0"),
    "interval_s": (["--interval-s", "0.25"], 0.25),
    "first_token_s": (["--first-token-s", "1"], 1),
    "media": (["--no-media"], False),
    "prompt_cache": (["--prompt-cache"], True),
    "prompt_cache_min_tokens": (["--prompt-cache-min-tokens", "7"], 7),
    "usage": (["--usage", '{"output_tokens": 3}'], {"output_tokens": 3}),
    "keys": (["--keys", "sk-abcd"], ["…abcd"]),
    "models": (["--models", "m", "n"], ["m", "n"]),
}
FAULT = {
    "kind": (["--kind", "hang"], "hang"), "status": (["--status", "503"], 503),
    "retry_after": (["--retry-after", "1.5"], 1.5), "retry_after_form": (["--retry-after-form", "ms"], "ms"),
    "latency": (["--latency", "0.5"], "0.5"), "interval_s": (["--interval-s", "0.5"], 0.5),
    "rate": (["--rate", "0.5"], 0.5), "seed": (["--seed", "3"], 3), "first": (["--first", "2"], 2),
    "for_s": (["--for", "2.5"], 2.5), "down_s": (["--down-s", "0.5"], 0.5), "up_s": (["--up-s", "0.5"], 0.5),
    "per_minute": (["--per-minute", "9"], 9),
}  # fmt: skip


def state(sim: Simulator, what: str) -> Any:
    return sim.state()["it"][what]


def test_every_setting_is_tried_here() -> None:
    """One that is added later is, too."""
    assert set(SET) == {field.name for field in fields(Settings)}
    assert set(FAULT) == {field.name for field in fields(Fault)}


@pytest.mark.parametrize("name", SET)
def test_a_setting_arrives_with_its_type(sim: Simulator, name: str) -> None:
    """From the command line; the others stay."""
    words, value = SET[name]

    assert main(["set", "it", *words, "--at", sim.base_url]) == 0

    assert state(sim, "settings")[name] == value


@pytest.mark.parametrize("name", FAULT)
def test_a_faults_option_arrives_with_its_type(sim: Simulator, name: str) -> None:
    """From the command line."""
    words, value = FAULT[name]
    needed = [] if name in {"kind", "status"} else ["--kind", "overloaded"]

    assert main(["fault", "it", *needed, *words, "--at", sim.base_url]) == 0

    assert state(sim, "faults")[0][name] == value


@pytest.mark.parametrize(
    ("words", "media"),
    [(["--media"], True), (["--no-media"], False), (["--media", "false"], False), (["--media", "true"], True),
     (["--media=off"], False)],
)  # fmt: skip
def test_true_and_false_in_every_spelling(sim: Simulator, words: list[str], media: bool) -> None:
    """As the control API has them, and as argparse does."""
    main(["set", "it", *words, "--at", sim.base_url])

    assert state(sim, "settings")["media"] is media


def test_what_is_not_given_stays(sim: Simulator) -> None:
    """Null is a field's default, DELETE every field's; what is refused changes nothing."""
    sim.settings("it", answer="hi", media=False, interval_s=0.5)
    sim.settings("it", latency=0.25)
    with pytest.raises(ValueError, match="finish"):
        sim.settings("it", answer="no", finish="nonsense")
    merged = state(sim, "settings")

    sim.settings("it", media=None)
    back = state(sim, "settings")
    sim._ask("DELETE", "settings/it")

    assert (merged["answer"], merged["media"], merged["interval_s"], merged["latency"]) == (
        "hi",
        False,
        0.5,
        0.25,
    )
    assert (back["media"], back["answer"]) == (True, "hi")
    assert state(sim, "settings")["answer"] is None


WRONG = {
    ("set", "it", "--latncy", "1"): "unknown argument --latncy; allowed are",
    ("set", "it", "--media", "maybe"): "'maybe' is not true or false",
    ("set", "it", "--interval-s", "soon"): "invalid float value: 'soon'",
    ("set", "it", "--usage", "{"): "'{' is not JSON",
    ("fault", "it", "--statsu", "1"): "did you mean --status?",
    ("fault", "it", "--seed", "1.5"): "invalid int value: '1.5'",
}


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_wrong_words_name_the_right_ones(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2."""
    with pytest.raises(SystemExit) as ended:
        main(list(words))

    assert ended.value.code == 2
    assert WRONG[words] in capsys.readouterr().err


REFUSED = {
    "media": ({"media": "no"}, "media must be true or false, not 'no'"),
    "number": ({"interval_s": "0.5"}, "interval_s must be a number from 0 up, not '0.5'"),
    "bool as number": (
        {"first_token_s": True},
        "first_token_s must be a number from 0 up, not True",
    ),
    "list": ({"keys": "sk"}, "keys must be a list, not 'sk'"),
    "answer": ({"answer": 3}, "answer must be a text, or null, not 3"),
    "usage": ({"usage": [1]}, "usage must be an object of counts, not [1]"),
    "finish": ({"finish": "stopp"}, "finish 'stopp' is not of stop"),
    "name": ({"latncy": 1}, "did you mean 'latency'?"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_over_http_wrong_values_name_what_is_allowed(sim: Simulator, name: str) -> None:
    """And nothing changes."""
    order, told = REFUSED[name]

    with pytest.raises(ValueError, match=r"must|is not|did you") as refused:
        sim.settings("it", **order)

    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("order", "told"),
    [
        ({}, "a fault needs a kind, a status, a latency or per_minute; kinds: auth"),
        ({"status": 503.5}, "status must be a whole number"),
        ({"status": 42}, "100 to 599"),
        ({"kind": "hang", "rate": 50}, "rate is a share, from 0 to 1"),
        ({"kind": "hangs"}, "unknown kind 'hangs'; known: "),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(
    sim: Simulator, order: dict[str, Any], told: str
) -> None:
    """With what would."""
    with pytest.raises(ValueError, match=r".") as refused:
        sim.fault("it", **order)

    assert told in str(refused.value)


def test_a_second_one_on_a_port_is_refused(sim: Simulator) -> None:
    """They would share its connections; one line says so, exit code 1."""
    port = urlsplit(sim.base_url).port

    done = subprocess.run(
        [sys.executable, "-m", "simulator", "--port", str(port)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert done.stderr == (
        f"127.0.0.1:{port} is taken; is another simulator running? Choose another --port; 0 takes a free one\n"
    )
    assert sim.state() is not None


def test_no_simulator_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """What to type, or what to name."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    assert main(["state", "--at", f"http://127.0.0.1:{port}"]) == 1

    assert "start one: python -m simulator" in capsys.readouterr().err
