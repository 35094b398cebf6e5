"""The process: its log, its ports, its command line, its load, and its end."""

import asyncio
import http.client
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from simulator.client import Simulator
from simulator.control import Control
from simulator.hits import HitLog
from simulator.labels import Labels
from simulator.ports import Ports
from tests.support.vendor_sdks import KEY, MODEL, Caller
from tests.support.waiting import wait_until

Build = Callable[..., Caller]
ROOT = Path(__file__).parents[2]
BODY = json.dumps(
    {"model": MODEL, "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
).encode()
HEADERS = {"authorization": f"Bearer {KEY}", "anthropic-version": "2026-10-21"}


def test_every_call_is_logged_with_what_proves_it(sim: Simulator, call: Build, wire: str) -> None:
    """Time, wire, model, the key's last four, tokens, status: nothing of prompt or key besides."""
    before_ms = time.time() * 1000

    call().said("a canary prompt")

    (hit,) = sim.hits("it")
    assert before_ms - 1 <= hit["started_at_ms"] <= hit["ended_at_ms"] <= time.time() * 1000 + 1
    assert (hit["wire"], hit["model"], hit["call"]) == (wire, MODEL, "generate")
    assert (hit["status"], hit["fault"], hit["client_gone"]) == (200, None, False)
    assert hit["key_last4"] == KEY[-4:]
    assert hit["input_tokens"] > 0 < hit["output_tokens"]
    assert KEY not in json.dumps(hit)
    assert "canary" not in json.dumps(hit)


def test_held_calls_end_when_the_test_says_so(sim: Simulator) -> None:
    """So many, the oldest first; or all, and later ones are not held."""
    sim.settings("it", latency="held")
    url = f"{sim.url('it')}/v1/messages"
    with ThreadPoolExecutor(4) as threads:

        def ask() -> Any:
            return threads.submit(httpx2.post, url, content=BODY, headers=HEADERS, timeout=180)

        first = ask()
        wait_until(lambda: sim.in_flight("it") == 1)
        others = [ask(), ask()]
        wait_until(lambda: sim.in_flight("it") == 3)

        assert sim.release("it", 1) == 1
        assert first.result(180).status_code == 200
        assert sim.in_flight("it") == 2
        assert sim.release("it") == 2
        assert [each.result(180).status_code for each in [*others, ask()]] == [200] * 3
        sim.settings("it", latency="held")
        again = ask()
        wait_until(lambda: sim.in_flight("it") == 1)
        sim.reset()
        assert again.result(180).status_code == 200


def test_a_call_that_is_held_after_a_reset_is_answered() -> None:
    """A call may have its label before a reset and come to its latency after it."""

    async def wait_after_reset() -> None:
        labels = Labels()
        control = Control(labels, HitLog(9), Ports("127.0.0.1", _never_called))
        label = labels["it"]
        label.set({"latency": "held"})
        await control.obey("POST", "reset", {}, {})
        await asyncio.wait_for(label.wait("held"), 60)

    asyncio.run(wait_after_reset())


async def _never_called(*_: Any) -> Any:
    raise AssertionError("no request is sent")


def test_a_hit_names_its_body_by_hash(sim: Simulator) -> None:
    """Two calls can be told to be the same request."""
    httpx2.post(f"{sim.url('claude')}/v1/messages", content=BODY, headers=HEADERS)

    assert sim.hits("claude")[0]["body_sha256"] == sha256(BODY).hexdigest()


def test_the_log_is_read_from_where_one_left_off(sim: Simulator) -> None:
    """`since` gives what came later; a label gives its own only; reset forgets, numbers go on."""
    for label in ("one", "two", "one"):
        httpx2.post(f"{sim.url(label)}/v1/messages", content=BODY, headers=HEADERS)

    first, last = sim.hits("one")
    later = sim.hits(since=first["seq"])
    sim.reset()

    assert [hit["label"] for hit in later] == ["two", "one"]
    assert last["seq"] == first["seq"] + 2
    assert sim.hits() == []


def test_keys_are_shown_by_their_last_four(sim: Simulator) -> None:
    """What was set can be read back, keys excepted."""
    sim.settings("it", keys=[KEY])

    assert sim.state()["it"]["settings"]["keys"] == [f"…{KEY[-4:]}"]


def test_an_order_that_makes_no_sense_is_refused_and_changes_nothing(sim: Simulator) -> None:
    """The client raises the simulator's words; the fault before stays."""
    sim.fault("it", "hang")

    with pytest.raises(ValueError, match="unknown kind 'hnag'"):
        sim.fault("it", "hnag")
    with pytest.raises(ValueError, match="no port of its own"):
        sim.refuse("it")

    assert sim.state()["it"]["faults"][0]["kind"] == "hang"


def test_an_order_that_does_not_exist_is_a_404(sim: Simulator) -> None:
    """The answer names what was asked."""
    answer = httpx2.get(f"{sim.base_url}/_control/nonsense")

    assert (answer.status_code, answer.json()) == (404, {"error": "no such order: GET nonsense"})


def test_a_label_with_its_own_port_can_refuse_connections(sim: Simulator) -> None:
    """Refused and reset like a dead host, the same port afterwards; other labels go on."""
    url = sim.url("dying", own_port=True)

    with httpx2.Client() as client:
        alive = client.get(f"{url}/v1/models", headers=HEADERS).status_code
        sim.refuse("dying")
        with pytest.raises(httpx2.TransportError):
            client.get(f"{url}/v1/models", headers=HEADERS)
        with pytest.raises(httpx2.ConnectError):
            client.get(f"{url}/v1/models", headers=HEADERS)
        elsewhere = client.get(f"{sim.url('other')}/v1/models", headers=HEADERS).status_code
        sim.heal("dying")
        healed = client.get(f"{url}/v1/models", headers=HEADERS).status_code

    assert (alive, elsewhere, healed) == (200, 200, 200)
    assert sim.url("dying", own_port=True) == url


def test_requests_in_chunks_and_one_after_the_other_are_read(sim: Simulator) -> None:
    """A chunked body, keep-alive, and two requests in one packet."""
    place = urlsplit(sim.base_url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=180)
    try:
        for _ in range(2):
            connection.request(
                "POST", "/claude/v1/messages", iter([BODY[:10], BODY[10:]]), HEADERS,
                encode_chunked=True,
            )  # fmt: skip
            assert connection.getresponse().read().startswith(b'{"id":"msg_')
        get = b"GET /claude/v1/models HTTP/1.1\r\nauthorization: Bearer k\r\n\r\n"
        connection.sock.sendall(get + get.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        received = b"".join(iter(lambda: connection.sock.recv(65536), b""))
    finally:
        connection.close()

    assert received.count(b"HTTP/1.1 200") == 2
    assert len({hit["body_sha256"] for hit in sim.hits("claude")[:2]}) == 1


def test_what_is_not_http_is_refused(sim: Simulator) -> None:
    """A 400, and the connection is closed."""
    place = urlsplit(sim.base_url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=180)
    connection.connect()
    try:
        connection.sock.sendall(b"nonsense\r\n\r\n")
        received = b"".join(iter(lambda: connection.sock.recv(65536), b""))
    finally:
        connection.close()

    assert received.startswith(b"HTTP/1.1 400")


def test_a_missing_key_is_refused(sim: Simulator) -> None:
    """401, or 403 at Google; and an empty key among the accepted ones needs none."""
    body = {"contents": [{"parts": [{"text": "x"}]}]}
    google = f"{sim.url('gemini')}/v1/models/{MODEL}:generateContent"
    version = {"anthropic-version": "2026-10-21"}

    claude = httpx2.post(f"{sim.url('claude')}/v1/messages", content=BODY, headers=version)
    gemini = httpx2.post(google, json=body)
    sim.settings("local", keys=[""])
    local = httpx2.post(f"{sim.url('local')}/v1/chat/completions", content=BODY)

    assert (claude.status_code, gemini.status_code, local.status_code) == (401, 403, 200)


def test_a_thousand_calls_are_held_at_once(sim: Simulator) -> None:
    """All hang together; healed, a thousand others get their answers."""
    hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
    place = urlsplit(sim.base_url)
    head = f"POST /claude/v1/messages HTTP/1.1\r\ncontent-length: {len(BODY)}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())

    async def call() -> bytes:
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        writer.write(head.encode() + b"connection: close\r\n\r\n" + BODY)
        try:
            return await reader.read()
        finally:
            writer.close()

    async def load() -> list[bytes]:
        sim.fault("claude", "hang")
        hanging = [asyncio.create_task(call()) for _ in range(1000)]
        await asyncio.to_thread(wait_until, lambda: sim.in_flight("claude") == 1000)
        sim.heal("claude")
        answers = await asyncio.gather(*[call() for _ in range(1000)])
        for task in hanging:
            task.cancel()
        await asyncio.wait(hanging)
        return answers

    answers = asyncio.run(load())

    assert sum(answer.startswith(b"HTTP/1.1 200 OK") for answer in answers) == 1000
    assert max(hit["in_flight"] for hit in sim.hits("claude")) > 1000
    wait_until(lambda: sim.in_flight("claude") == 0)


def test_the_command_line_orders_and_shows(sim: Simulator) -> None:
    """fault, set, state, log, heal and reset do over a shell what the client does."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "simulator", *arguments, "--at", sim.base_url]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    ordered = run("fault", "claude", "--status", "503", "--retry-after", "20", "--for", "30")
    refused = httpx2.post(f"{sim.url('claude')}/v1/messages", content=BODY, headers=HEADERS)
    shown = json.loads(run("state").stdout)["claude"]["faults"][0]
    run("heal", "claude")
    run("set", "claude", "--answer", "echo", "--usage", '{"reasoning_tokens": 5}')
    healed = httpx2.post(f"{sim.url('claude')}/v1/messages", content=BODY, headers=HEADERS)
    log = [json.loads(line) for line in run("log", "claude").stdout.splitlines()]
    run("reset")
    wrong = run("fault", "claude", "--kind", "hnag")

    assert (ordered.returncode, ordered.stderr) == (0, "")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "20")
    assert (shown["for_s"], shown["struck"]) == (30, 1)
    assert [block["type"] for block in healed.json()["content"]] == ["thinking", "text"]
    assert healed.json()["content"][1]["text"] == "hello"
    assert [hit["status"] for hit in log] == [503, 200]
    assert sim.hits() == []
    assert (wrong.returncode, "unknown kind 'hnag'" in wrong.stderr) == (1, True)


def test_eight_simulators_start_at_once() -> None:
    """Each takes a free port of its own and answers there."""
    with ThreadPoolExecutor(8) as pool:
        simulators = list(pool.map(lambda _: Simulator.start(), range(8)))
    try:
        assert len({simulator.base_url for simulator in simulators}) == 8
        assert all(simulator.state() == {} for simulator in simulators)
    finally:
        for simulator in simulators:
            simulator.stop()


@pytest.mark.parametrize("how", ["killed", "ended"])
def test_a_simulator_ends_with_its_parent(how: str) -> None:
    """Killed or ended without a word, a parent leaves no simulator behind."""
    script = (
        "import sys; from simulator.client import Simulator; sim = Simulator.start();"
        "print(sim._process.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    pid = int(parent.stdout.readline())

    if how == "killed":
        os.kill(parent.pid, signal.SIGKILL)
    parent.communicate(timeout=180)

    wait_until(lambda: not _runs(pid))


def _runs(pid: int) -> bool:
    """Tell whether a process runs; one that ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
