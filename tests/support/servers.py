"""Redis as it is run: with users, through TLS, on a socket, and as a master with Sentinels."""

import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import redis

from tests.support.fleet import wait_for
from tests.support.ports import free_port
from tests.support.spawner import spawn
from tests.support.valkey import BINARY


class Process:
    """One server, of data or of Sentinel's."""

    def __init__(self, *words: str, config: str = "", password: str | None = None) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="valkey-"))
        self._config = self.folder / "server.conf"
        self._config.write_text(config + "\n")
        self._words = words
        self.client: Any = redis.Redis(
            port=self.port, password=password, decode_responses=True, socket_timeout=60
        )

    def start(self) -> "Process":
        """Start it, again with what it knew."""
        with (self.folder / "log").open("ab") as log:
            words = ("--port", str(self.port), "--dir", self.folder, *self._words)
            self.process = spawn([BINARY, self._config, *words], stdout=log)
        wait_for(self._answers)
        return self

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def __enter__(self) -> "Process":
        """Be running."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """Be gone."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except (redis.AuthenticationError, redis.NoPermissionError):
            return True
        except redis.RedisError:
            return False


NO_FAILOVER_MS = 3_600_000


class Sentinels:
    """A master, a replica, and three Sentinels."""

    NAME = "fleet"
    PASSWORD, ASKING = "data%pw/", "watch@pw"

    def __init__(self, stack: ExitStack, *words: str, fails_over_after_ms: int) -> None:
        common = ("--save", "", "--appendonly", "yes", "--masterauth", self.PASSWORD)
        self.data = [
            stack.enter_context(
                Process(*common, "--requirepass", self.PASSWORD, *words, password=self.PASSWORD)
            )
            for _ in range(2)
        ]
        self.data[1].client.replicaof("127.0.0.1", self.data[0].port)
        wait_for(lambda: self.data[1].client.info()["master_link_status"] == "up")
        self.sentinels = [
            stack.enter_context(
                Process(
                    "--sentinel",
                    config=f"""
                        requirepass {self.ASKING}
                        sentinel sentinel-pass {self.ASKING}
                        sentinel monitor {self.NAME} 127.0.0.1 {self.data[0].port} 2
                        sentinel auth-pass {self.NAME} {self.PASSWORD}
                        sentinel down-after-milliseconds {self.NAME} {fails_over_after_ms}
                        sentinel failover-timeout {self.NAME} 3000
                    """,
                    password=self.ASKING,
                )
            )
            for _ in range(3)
        ]
        wait_for(lambda: all(self._agreed(each) for each in self.sentinels))
        hosts = ";".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        self.url = (
            f"sentinel://:data%25pw%2F@{hosts}/0?master={self.NAME}&sentinel_password=watch%40pw"
        )

    @property
    def master(self) -> Process:
        """The server that most Sentinels call the master."""
        named = [each.client.sentinel_masters()[self.NAME]["port"] for each in self.sentinels]
        (master,) = [each for each in self.data if named.count(each.port) >= 2]
        return master

    def promoted(self, port: int) -> bool:
        """Tell whether this one is the master, for the Sentinels and for itself."""
        with suppress(ValueError, redis.RedisError):
            return self.master.port == port and self.master.client.info()["role"] == "master"
        return False

    def _agreed(self, sentinel: Process) -> bool:
        state = sentinel.client.sentinel_masters().get(self.NAME, {})
        return state.get("num-other-sentinels") == 2 and state.get("num-slaves") == 1


@contextmanager
def sentinels(*words: str, fails_over_after_ms: int = NO_FAILOVER_MS) -> Iterator[Sentinels]:
    """
    Start all five; words for the two that hold data.

    A master that gets no time on a busy machine is down for its Sentinels, and a failover loses
    what the replica has not got yet: only a test of a failover has a short limit.
    """
    with ExitStack() as stack:
        yield Sentinels(stack, *words, fails_over_after_ms=fails_over_after_ms)


class Tls:
    """
    Ends TLS in front of a server, whose binary here has none.

    Attributes:
        ca: The certificate, signed by itself.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._folder = Path(tempfile.mkdtemp(prefix="tls-"))
        self.ca, key = self._folder / "cert.pem", self._folder / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-keyout", key, "-out", self.ca, "-days", "2", "-subj", "/CN=localhost",
             "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
            check=True, capture_output=True,
        )  # fmt: skip
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(self.ca, key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept nobody any more."""
        self._listener.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), self._context.wrap_socket(client, server_side=True) as secure:
            secure.settimeout(0.005)  # one thread for both ways: an SSL object is for one alone
            with socket.create_connection(("127.0.0.1", self._port)) as server:
                server.settimeout(0.005)
                while True:
                    for source, sink in ((secure, server), (server, secure)):
                        with suppress(TimeoutError):
                            if not (data := source.recv(65536)):
                                return
                            sink.settimeout(None)
                            sink.sendall(data)
                            sink.settimeout(0.005)
