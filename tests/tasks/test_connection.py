"""What threads share to Redis: a few connections, whoever names the server, and an end to waiting."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from breaker import Breakers
from breakwater.redis.connection import SHARED_CONNECTIONS, client, is_transient
from tasks.answering import runtime
from tasks.answering.settings_loader import load_settings
from tests.support.fleet import wait_for
from tests.support.servers import Process, sentinels

ROLES = """
providers: {local: {adapter: openai-chat, model: m, api_key: k, base_url: "http://127.0.0.1:9/v1"}}
roles: {coder: {chain: [local]}}
"""
THREADS = 4 * SHARED_CONNECTIONS


@contextmanager
def directly() -> Iterator[tuple[Process, str]]:
    with Process("--save", "") as server:
        yield server, f"redis://127.0.0.1:{server.port}/0?client_name=shared"


@contextmanager
def by_sentinels() -> Iterator[tuple[Process, str]]:
    with sentinels() as those:
        yield those.master, f"{those.url}&client_name=shared"


def opened(server: Process) -> int:
    return sum(each["name"] == "shared" for each in server.client.client_list())


@pytest.mark.parametrize("named", [directly, by_sentinels])
def test_threads_share_a_few_connections(named: type) -> None:
    """While all are in use, who finds none waits for one."""
    with (
        named() as (server, url),
        client(url, connect_s=180, answer_s=180) as shared,
        ThreadPoolExecutor(THREADS) as threads,
    ):
        answers = [threads.submit(shared.blpop, f"queue:{n}", 180) for n in range(THREADS)]
        wait_for(lambda: opened(server) == SHARED_CONNECTIONS)
        for number in range(THREADS):
            server.client.rpush(f"queue:{number}", number)

        assert [int(each.result()[1]) for each in answers] == list(range(THREADS))
        assert opened(server) == SHARED_CONNECTIONS


def test_all_hear_in_time_that_redis_is_frozen_and_are_served_when_it_is_not() -> None:
    """Also those who had no connection yet; none is lost to the others meanwhile."""

    def ask(number: int) -> object:
        try:
            return shared.set(f"key:{number}", number)
        except redis.RedisError as error:
            return is_transient(error)

    with directly() as (server, url), ThreadPoolExecutor(THREADS) as threads:
        shared = client(url, connect_s=2, answer_s=2)
        server.signal(signal.SIGSTOP)
        frozen = list(threads.map(ask, range(THREADS)))
        server.signal(signal.SIGCONT)
        answers = list(threads.map(lambda n: shared.get(f"key:{n}") or shared.ping(), range(200)))

        assert frozen == [True] * THREADS
        assert all(answers)
        assert opened(server) <= SHARED_CONNECTIONS


def test_what_is_held_is_renewed_while_tasks_wait_for_a_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or else it would be taken for lost, and paid for again."""
    roles = tmp_path / "roles.yaml"
    roles.write_text(ROLES)
    with directly() as (server, url), ThreadPoolExecutor(THREADS) as threads:
        monkeypatch.setenv("REDIS_URL", url)
        now = runtime.Runtime.over(
            load_settings({"ROLES_FILE": str(roles)}), Breakers.from_url(url)
        )
        all_in_use = [
            threads.submit(now.store.client.blpop, "queue", 180) for _ in range(SHARED_CONNECTIONS)
        ]
        wait_for(lambda: opened(server) == SHARED_CONNECTIONS)

        renewed = now.keeper.store.tend(["w.0.1"])
        still_in_use = not any(each.done() for each in all_in_use)
        server.client.rpush("queue", *range(SHARED_CONNECTIONS))
        wait(all_in_use)
        now.close()

    assert (renewed.lost, renewed.parked) == (["w.0.1"], [])
    assert still_in_use
