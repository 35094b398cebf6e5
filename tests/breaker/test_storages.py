"""The storages take the steps of one interface."""

import inspect
from typing import Any

import pytest

from breaker.failover import FailoverStorage
from breaker.local_storage import LocalStorage
from breaker.redis_storage import RedisStorage
from breaker.storage import FleetStorage, Storage

STEPS = ("admit", "record", "renew", "peek")


@pytest.mark.parametrize("storage", [RedisStorage, LocalStorage, FailoverStorage])
@pytest.mark.parametrize("step", STEPS)
def test_each_storage_takes_the_same_steps(storage: type[Any], step: str) -> None:
    """With the same arguments, so that one can stand in for another."""
    wanted = inspect.signature(getattr(Storage, step)).parameters

    assert inspect.signature(getattr(storage, step)).parameters == wanted


@pytest.mark.parametrize("storage", [RedisStorage, FailoverStorage])
def test_the_fleets_storages_take_an_operators_override(storage: type[Any]) -> None:
    """Memory has none: an override is for the whole fleet."""
    wanted = inspect.signature(FleetStorage.force).parameters

    assert inspect.signature(storage.force).parameters == wanted
    assert not hasattr(LocalStorage, "force")
