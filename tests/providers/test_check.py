"""`check`: what `breakwater doctor` asks a provider."""

import pytest

from breakwater.errors import AuthenticationFailed, ConnectionFailed
from simulator.client import Simulator
from tests.providers.conftest import Build
from tests.support.vendors import KEY


def test_an_accepted_key_is_told_with_its_model(
    adapter: str, simulator: Simulator, label: str, build: Build
) -> None:
    """Listing the models costs nothing and proves the key."""
    simulator.settings(label, keys=[KEY], models=["m-1", "m-2"])

    found = build(adapter, simulator.url(label)).check()

    assert found.endswith("accepts the key; m-1 is listed")


def test_a_model_that_is_not_listed_is_told(
    adapter: str, simulator: Simulator, label: str, build: Build
) -> None:
    """It may work nevertheless: aliases are not always listed."""
    simulator.settings(label, models=["m-2"])

    found = build(adapter, simulator.url(label)).check()

    assert found.endswith("m-1 is not in the list of models")


def test_a_wrong_key_is_an_error(
    adapter: str, simulator: Simulator, label: str, build: Build
) -> None:
    """The same class as a call would raise."""
    simulator.settings(label, keys=["another"])

    with pytest.raises(AuthenticationFailed, match="does not accept the key"):
        build(adapter, simulator.url(label)).check()


def test_a_server_that_is_not_there_is_an_error(adapter: str, build: Build) -> None:
    """Port 9 of loopback is closed."""
    with pytest.raises(ConnectionFailed):
        build(adapter, "http://127.0.0.1:9").check()
