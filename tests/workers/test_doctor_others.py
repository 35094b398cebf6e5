"""What the doctor says of other programs and other fleets on the same database and prefix."""

import json
from typing import Any

import pytest
import redis

from tasks.config import Settings
from workers.doctor.other_programs import other_fleets, other_programs


def publish(server: Any, **versions: list[str]) -> None:
    """Publish roles, by the versions of their files."""
    for version, names in versions.items():
        roles = {name: {} for name in names}
        server.hset("roles", version, json.dumps({"roles": roles, "any": False}))


@pytest.fixture
def server(redis_url: str) -> Any:
    """A server with nothing in it."""
    return redis.Redis.from_url(redis_url)


def mine(*names: str) -> Settings:
    """The roles file here."""
    return Settings({}, dict.fromkeys(names), version="mine")  # type: ignore[arg-type]


def test_fleets_without_a_role_in_common_are_named(server: Any) -> None:
    """They take each other's prompts from the common queue, and mix their ledgers."""
    publish(server, a1=["coder", "planner"], b2=["seller"])

    (found,) = other_fleets(server, None)

    assert found.level == "warning"
    assert "roles files a1 (coder, planner) and b2 (seller) have no role in common" in found.what
    assert "BREAKWATER_PREFIX" in found.next_step


def test_a_fleet_without_a_role_of_this_file_is_named(server: Any) -> None:
    """Its workers are there, this one's are not yet."""
    publish(server, b2=["seller"])

    (found,) = other_fleets(server, mine("coder"))

    assert "b2 (seller) and mine (coder)" in found.what


@pytest.mark.parametrize(
    "versions", [{}, {"a1": ["coder"]}, {"a1": ["coder"], "b2": ["coder", "new"]}, {"a1": []}]
)
def test_an_update_is_no_other_fleet(server: Any, versions: dict[str, list[str]]) -> None:
    """Nor is one file for every role."""
    publish(server, **versions)
    server.hset("roles", "odd", "no JSON")

    assert list(other_fleets(server, mine("coder"))) == []


def test_other_programs_are_named(server: Any) -> None:
    """By their tasks, their workers and their queues."""
    assert list(other_programs(server)) == []
    server.hset("foreign", "shop.add", "celery")
    server.zadd("unacked_index", {"tag": 1})
    for exchange in (
        "celery",
        "role.coder",
        "celeryev",
        "reply.celery.pidbox",
        "celery.pidbox",
        "shop",
    ):
        server.sadd(f"_kombu.binding.{exchange}", "member")
        server.sadd(f"_kombu.binding_permanent.{exchange}", "member")

    found = {each.about: each.what for each in other_programs(server)}

    assert list(found) == ["task shop.add", "other workers", "other queues"]
    assert found["other queues"].endswith(": shop")
