"""The parameters of a call as a producer's are checked, and what the tables must agree with."""

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from breaker.state import Rules
from breakwater.calls.params import PARAMS, check_params
from tasks.catalogue import ADAPTERS, load_class
from tasks.config import BreakerSettings

GOOD = [
    {},
    {"max_output_tokens": 1, "temperature": 2, "top_p": 0.5, "seed": -(2**31)},
    {"stop": ["a", "b"], "reasoning_effort": "high"},
]
BAD = [
    ({"max_output_tokens": 0}, "params.max_output_tokens: 0 is not a whole number from 1 to"),
    ({"max_output_tokens": True}, "params.max_output_tokens: True is not"),
    ({"temperature": float("nan")}, "params.temperature: nan is not a number from 0 to 2"),
    ({"temperature": 10**400}, "params.temperature: a int is not a number from 0 to 2"),
    ({"temperature": None}, "params.temperature: None is not a number from 0 to 2"),
    ({"stop": []}, "params.stop: a list is not a list of 1 to 4 non-empty strings"),
    ({"stop": ["a", ""]}, "params.stop: a list is not"),
    ({"reasoning_effort": "hihg"}, "(did you mean 'high'?)"),
    ({"reasoning_effort": "CANARY " * 9}, "params.reasoning_effort: a str is not one of none,"),
    ({"temprature": 1}, "params: unknown key 'temprature'; allowed are max_output_tokens, "),
    ({"budget": 1}, "params: 'budget' is kept for pacing"),
]


@pytest.mark.parametrize("params", GOOD)
def test_good_parameters_have_no_faults(params: dict[str, Any]):
    """The bounds themselves are allowed."""
    assert check_params(params) == []


@pytest.mark.parametrize(("params", "words"), BAD)
def test_a_bad_parameter_is_told_with_what_is_allowed(params: dict[str, Any], words: str):
    """One line each; a long value is not shown, it may be half a prompt."""
    (fault,) = check_params(params)

    assert words in fault
    assert "CANARY" not in fault


def test_all_bad_parameters_are_told():
    """One fault does not hide another."""
    assert len(check_params({"a": 1, "top_p": 2, "seed": "x"})) == 3


def test_a_producer_does_not_pay_for_pydantic():
    """`tasks.config` alone imports neither pydantic nor YAML; they cost 60 ms."""
    script = "import tasks.config, sys; print({'pydantic', 'yaml'} & set(sys.modules))"
    before = "import sys, types; sys.modules['tasks'] = t = types.ModuleType('tasks'); "
    before += "t.__path__ = ['tasks']; "  # without what tasks/__init__.py brings in (Celery)

    got = subprocess.run(
        [sys.executable, "-c", before + script],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip

    assert got.stdout.strip() == "set()"


@pytest.mark.parametrize("adapter", sorted(ADAPTERS))
def test_every_parameter_is_taken_by_an_adapter_or_known_not_to_be(adapter: str):
    """What the roles file refuses at a provider is what its adapter would drop, no more or less."""
    takes = load_class(adapter).PARAM_PATHS
    not_taken = ADAPTERS[adapter].params_not_taken

    assert takes.keys() | not_taken.keys() == PARAMS.keys()
    assert not takes.keys() & not_taken.keys()


def test_a_breakers_settings_are_its_rules():
    """Same names and defaults; the lease's length is no setting."""
    rules = asdict(Rules())
    del rules["lease_s"]

    settings = asdict(BreakerSettings())
    settings["max_probes"] = settings["max_probes"] or settings["success_threshold"]

    assert settings == rules
