"""
Start and control a simulator from tests, benchmarks and the demo; uses the standard library only.

    with Simulator.start() as sim:
        base_url = sim.url("claude")
        sim.fault("claude", status=503, retry_after=20)
        assert sim.hits("claude") == []
"""

import http.client
import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode, urlsplit

TIMEOUT_S = 30.0


class Simulator:
    """
    A running simulator.

    Args:
        base_url: The URL of the simulator, such as `http://127.0.0.1:8900`.
    """

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url.rstrip("/")
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(cls, log_size: int = 100_000) -> Self:
        """Start a simulator in a child process that ends with this one; wait until it listens."""
        command = ["-m", "simulator", "serve", "--port", "0", "--with-parent"]
        process = subprocess.Popen(
            [sys.executable, *command, "--log-size", str(log_size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent.parent,
            process_group=0,  # Ctrl-C reaches the parent only, which ends this child last
        )
        assert process.stdout is not None  # noqa: S101 - tells mypy what PIPE gives
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the simulator ended with exit code {process.wait()}")
        ready = json.loads(line)
        simulator = cls(f"http://{ready['host']}:{ready['port']}")
        simulator._process = process
        return simulator

    @property
    def pid(self) -> int:
        """The id of the process that `start` began; 0 if there is none."""
        return self._process.pid if self._process else 0

    def url(self, label: str, *, own_port: bool = False) -> str:
        """
        Return the base URL of a label; OpenAI's SDK needs `/v1` after it.

        Args:
            label: Any name.
            own_port: Open a separate port for the label, which `refuse` can close.
        """
        base = self.base_url
        if own_port:
            base = f"http://{urlsplit(base).hostname}:{self.port(label)}"
        return f"{base}/{quote(label)}"

    def fault(self, label: str, kind: str | None = None, **fields: Any) -> None:
        """Set the only fault of a label; the fields are those of `simulator.faults.Fault`."""
        self.script(label, [{"kind": kind, **fields}])

    def script(self, label: str, faults: list[dict[str, Any]]) -> None:
        """Set several faults; each call meets the first one that is due."""
        self._ask("PUT", f"faults/{quote(label)}", faults)

    def heal(self, label: str) -> None:
        """End the faults of a label; a refusing port listens again."""
        self._ask("DELETE", f"faults/{quote(label)}")

    def settings(self, label: str, **fields: Any) -> None:
        """
        Set how a healthy label answers; the fields are those of `simulator.labels.Settings`.

        Fields that are left out stay as they are; None restores a field's default.
        """
        self._ask("PUT", f"settings/{quote(label)}", fields)

    def release(self, label: str, count: int | None = None) -> int:
        """
        Answer calls of a label whose latency is `held`, the oldest first.

        Args:
            label: The label of the calls.
            count: The number of calls to answer; None answers all, and later ones at once.

        Returns:
            The number of held calls that are answered now.
        """
        order = {} if count is None else {"count": count}
        return int(self._ask("POST", f"release/{quote(label)}", order))

    def hits(self, label: str | None = None, since: int = 0) -> list[dict[str, Any]]:
        """Return the calls after a sequence number, in order of arrival."""
        hits: list[dict[str, Any]] = []
        more = True
        while more:
            query = {"since": since, **({} if label is None else {"label": label})}
            page = self._ask("GET", f"hits?{urlencode(query)}")
            hits += page["hits"]
            since, more = page["next"], page["more"]
        return hits

    def state(self) -> dict[str, Any]:
        """Return settings, faults and counts by label."""
        state: dict[str, Any] = self._ask("GET", "state")
        return state

    def in_flight(self, label: str) -> int:
        """Return the number of a label's calls that are not answered yet."""
        return int(self.state().get(label, {}).get("in_flight", 0))

    def reset(self) -> None:
        """Remove faults, settings and hits; ports stay."""
        self._ask("POST", "reset")

    def port(self, label: str) -> int:
        """Return the label's own port; open it if it is new or refuses connections."""
        return int(self._ask("POST", f"ports/{quote(label)}"))

    def refuse(self, label: str) -> None:
        """Refuse connections on the label's own port, and reset the open ones."""
        self._ask("DELETE", f"ports/{quote(label)}")

    def stop(self) -> None:
        """End the process if `start` began it."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.terminate()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()
        process.wait(TIMEOUT_S)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()

    def _ask(self, method: str, path: str, order: Any = None) -> Any:
        """
        Send one order.

        Raises:
            ValueError: The simulator refused; the message is the simulator's.
        """
        place = urlsplit(self.base_url)
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=TIMEOUT_S)
        try:
            body = None if order is None else json.dumps(order)
            connection.request(method, f"/_control/{path}", body)
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise ValueError(answer["error"])
        return answer
