"""What workers publish of their roles, and what a producer without a roles file makes of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import redis

from breakwater import roles
from breakwater.errors import BadCalls, InvalidOption, UnknownRole
from tasks import complete
from tasks.answering.settings_loader import check_roles_file
from tasks.config.published_roles import to_publish
from tasks.delivery.delivery_store import DeliveryStore
from tests.tasks.conftest import Use

FILE = """
providers:
  claude: {adapter: anthropic, model: m, api_key: k}
roles:
  coder: {chain: [claude], params: {max_output_tokens: 5}}
  strict: {chain: [claude], drop_params: false}
"""


def present(
    shared: redis.Redis, text: str = FILE, *, worker: str = "w1", version: str = "v1"
) -> DeliveryStore:
    """Publish as a worker with this file does."""
    settings = check_roles_file(text.encode(), Path("roles.yaml"), {})
    store = DeliveryStore(shared)
    store.heartbeat(worker, "{}", [], version=version, roles=to_publish(settings))
    return store


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    roles.forget()


@pytest.fixture
def bare(shared: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A server to which a producer without a roles file enqueues."""
    monkeypatch.delenv("ROLES_FILE")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return shared


def test_a_role_that_workers_publish_is_taken(bare: Any) -> None:
    """Into the common queue, which all workers consume."""
    present(bare)

    complete.delay("coder", "hi")

    assert bare.llen("celery") == 1


def test_a_misspelt_role_is_an_error_of_delay(bare: Any) -> None:
    """Naming the nearest; nothing is queued."""
    present(bare)

    with pytest.raises(
        UnknownRole, match=r"unknown role 'codr'; the workers' roles file has coder"
    ):
        complete.delay("codr", "hi")
    with pytest.raises(BadCalls, match="did you mean 'coder'"):
        complete.delay_many([("codr", "hi")])

    assert not bare.exists("celery")


def test_what_a_role_refuses_is_an_error_of_delay(bare: Any) -> None:
    """In the words of a worker."""
    present(bare)
    complete.delay("coder", "hi", params={"temperature": 0})

    with pytest.raises(InvalidOption) as refused:
        complete.delay("strict", "hi", params={"temperature": 0})

    settings = check_roles_file(FILE.encode(), Path("roles.yaml"), {})
    with pytest.raises(InvalidOption) as of_a_worker:
        settings.check_params(settings.roles["strict"], {"temperature": 0})
    assert str(refused.value) == str(of_a_worker.value)


def test_where_nothing_is_published_nothing_is_refused(bare: Any) -> None:
    """Such as by workers of an older version."""
    complete.delay("anything", "hi", params={"temperature": 0})

    assert bare.llen("celery") == 1


@pytest.mark.parametrize("foreign", [("SET", "roles", "x"), ("RPUSH", "roles", "x")])
def test_a_foreign_key_of_the_name_refuses_nothing(bare: Any, foreign: tuple[str, ...]) -> None:
    """It says nothing of roles."""
    bare.execute_command(*foreign)

    complete.delay("anything", "hi")

    assert bare.llen("celery") == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"roles": 7}', '{"roles": {"a": 7}}', "\x00"])
def test_what_another_version_publishes_is_passed_over(bare: Any, text: str) -> None:
    """Those that can be read count."""
    present(bare)
    bare.hset("roles", "v9", text)

    with pytest.raises(UnknownRole):
        complete.delay("codr", "hi")


def test_a_file_with_one_provider_for_all_serves_every_role(bare: Any) -> None:
    """So none is misspelt."""
    present(bare, "{provider: anthropic, model: m, api_key: k}")

    complete.delay("anything", "hi")

    assert bare.llen("celery") == 1


def test_it_is_asked_for_once_in_half_a_minute(bare: Any) -> None:
    """A call costs no round trip of its own."""
    present(bare)
    complete.delay("coder", "hi")
    bare.config_resetstat()

    for _ in range(10):
        complete.delay("coder", "hi")

    assert "cmdstat_hvals" not in bare.info("commandstats")


def test_a_role_that_is_new_is_known_within_a_second(
    bare: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older view refuses nothing that a new one would take."""
    present(bare)
    complete.delay("coder", "hi")
    monkeypatch.setattr(roles, "FRESH_S", -1.0)

    present(bare, FILE + "  reviewer: {chain: [claude]}\n", version="v2")
    complete.delay("reviewer", "hi")

    assert bare.llen("celery") == 2


def test_without_redis_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is not asked again at once."""
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")

    assert roles.published() is None
    monkeypatch.setattr(roles, "_read", lambda: pytest.fail("asked again"))
    assert roles.published(-1.0) is None


def test_a_role_of_the_workers_alone_goes_to_its_own_queue(shared: Any) -> None:
    """A producer's file may be the older one of two."""
    present(shared, FILE + "  reviewer: {chain: [claude]}\n")

    complete.delay("reviewer", "hi")
    with pytest.raises(UnknownRole, match=r"has coder, planner, reviewer, strict"):
        complete.delay("revewer", "hi")

    assert shared.llen("role.reviewer") == 1


def test_a_role_of_the_producers_file_alone_waits_in_its_queue(shared: Any, use: Use) -> None:
    """Workers may be updated later."""
    present(shared)

    complete.delay("planner", "hi")

    assert shared.llen("role.planner") == 1


def test_versions_go_with_their_last_worker(shared: Any) -> None:
    """The roles of all living workers count: an update may be under way."""
    present(shared, version="old")
    present(shared, FILE + "  reviewer: {chain: [claude]}\n", worker="w2", version="new")
    assert set(shared.hkeys("roles")) == {"old", "new"}

    shared.zadd("roles:until", {"old": 1})
    present(shared, FILE, worker="w2", version="new")

    assert set(shared.hkeys("roles")) == {"new"}
    assert set(json.loads(shared.hget("roles", "new"))["roles"]) == {"coder", "strict"}


def test_the_last_version_stays_while_no_worker_lives(shared: Any) -> None:
    """Producers go on knowing the roles over a restart of all workers."""
    present(shared)

    shared.zadd("roles:until", {"v1": 1})

    assert roles.published() is not None


def test_a_clock_that_was_set_back_keeps_no_version_for_ever(shared: Any) -> None:
    """A version that is believed for longer than a worker says it is gone, or said again."""
    present(shared, version="old")
    shared.zadd("roles:until", {"old": 10**15})

    present(shared, version="new")

    assert set(shared.hkeys("roles")) == {"new"}
