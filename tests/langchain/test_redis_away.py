"""Who waits while Redis is gone, and comes back."""

import sys

import pytest

from simulator.client import Simulator
from tests.langchain.conftest import ADAPTERS, roles_over
from tests.support.fleet import fleet, wait_for
from tests.support.servers import Process
from tests.support.spawner import spawn

WAIT = """
import asyncio
from breakwater.langchain import ChatBreakwater

async def all_of_them():
    model = ChatBreakwater(role="local", timeout_s=600)
    answers = await asyncio.gather(*(model.ainvoke(f"hi {n}") for n in range(10)))
    print(len({answer.text for answer in answers}))

asyncio.run(all_of_them())
"""


@pytest.mark.slow
def test_answers_are_heard_though_redis_was_killed_while_they_were_waited_for() -> None:
    """The connection that hears is lost with it; what was missed is found by looking."""
    with (
        Simulator.start() as simulator,
        Process("--appendonly", "yes", "--appendfsync", "always", "--save", "") as redis,
        fleet(
            f"redis://127.0.0.1:{redis.port}/0",
            roles_over(simulator, dict.fromkeys(ADAPTERS, "openai-chat")),
        ) as workers,
    ):
        workers.start(1, "threads", 10)
        simulator.settings("local", latency="held")
        printed = workers.folder / "printed"
        with printed.open("wb") as out:
            waits = spawn(
                [sys.executable, "-c", WAIT], env=workers.environ, cwd=workers.folder, stdout=out
            )
        wait_for(lambda: simulator.in_flight("local") == 10)

        redis.kill()
        simulator.release("local")
        wait_for(lambda: not simulator.in_flight("local"))  # all are answered meanwhile
        redis.start()

        assert (waits.wait(500), printed.read_text()) == (0, "10\n")
