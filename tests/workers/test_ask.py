"""`breakwater ask` and `why` while a task waits or runs: what holds it, and Ctrl-C."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis

from simulator.client import Simulator
from tests.support.fleet import BIN, Fleet, wait_for
from tests.support.loopback import Loopback


@contextmanager
def asking(workers: Fleet, *words: str) -> "Iterator[subprocess.Popen[str]]":
    """Ask `coder` without a worker, until the command has said that it waits."""
    process = subprocess.Popen(
        [BIN / "breakwater", "ask", "coder", "hi", *words],
        cwd=workers.folder, env=workers.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def said(process: "subprocess.Popen[str]", words: str) -> str:
    """Read standard error up to the line with these words."""
    assert process.stderr
    for line in process.stderr:
        if words in line:
            return line
    raise AssertionError(f"it ended without {words!r}")


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("--stream",), ("--json",)])
def test_it_says_that_its_role_is_paused_and_why(
    workers: Fleet, redis_url: str, words: tuple[str, ...]
) -> None:
    """By whom, and how it goes on; also when the time is over."""
    redis.Redis.from_url(redis_url).hset(
        "paused", "role.coder", json.dumps({"who": "ann", "at_ms": 1, "why": "the bill"})
    )

    done = workers.command(
        "breakwater", "ask", "coder", "hi", "--timeout", "1", *words, timeout_s=120
    )

    assert done.returncode == 1
    assert "coder is paused by ann: the bill; `breakwater resume coder`" in done.stderr
    assert "no worker consumes the queue role.coder" in done.stderr
    assert "it waits in role.coder, the next" in done.stderr


@pytest.mark.slow
def test_it_says_until_when_its_role_is_parked(workers: Fleet, redis_url: str) -> None:
    """In Redis' time."""
    client = redis.Redis.from_url(redis_url)
    now_ms, hour_ms = client.time()[0] * 1000, 3_600_000
    parked = {
        "until_ms": now_ms + hour_ms,
        "since_ms": now_ms,
        "reason": "claude open",
        "for_ms": hour_ms,
    }
    client.hset("parked", "role.coder", json.dumps(parked))

    done = workers.command("breakwater", "ask", "coder", "hi", "--timeout", "1", timeout_s=120)

    assert re.search(
        r"coder is parked until \d\d:\d\d:\d\d UTC \(\d+ m\): claude open", done.stderr
    ), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("--stream",)])
def test_ctrl_c_cancels_and_names_the_task(
    workers: Fleet, redis_url: str, words: tuple[str, ...]
) -> None:
    """Nobody pays for an answer that nobody waits for; no traceback."""
    with asking(workers, *words) as process:
        said(process, "no worker consumes")
        process.send_signal(signal.SIGINT)
        ended = said(process, "cancelled task ")
        assert process.wait(180) == 130

    task_id = ended.split()[-1]
    meta = redis.Redis.from_url(redis_url).get(f"celery-task-meta-{task_id}")
    assert json.loads(meta or b"{}")["status"] == "REVOKED"


@pytest.mark.slow
def test_ctrl_c_may_leave_it_running(workers: Fleet, redis_url: str) -> None:
    """`--keep`; the line says how to look at it."""
    with asking(workers, "--keep") as process:
        said(process, "no worker consumes")
        process.send_signal(signal.SIGINT)
        ended = said(process, "goes on; `breakwater why ")
        assert process.wait(180) == 130

    task_id = ended.split()[1]
    shown = workers.command("breakwater", "why", task_id)
    told = json.loads(workers.command("breakwater", "why", task_id, "--json").stdout)
    assert redis.Redis.from_url(redis_url).get(f"celery-task-meta-{task_id}") is None
    assert "now WAITING" in shown.stdout
    assert "it waits in role.coder, the next" in shown.stdout
    assert (told["state"], told["queue"], told["ahead"]) == ("WAITING", "role.coder", 0)


@pytest.mark.slow
def test_why_knows_a_task_that_runs_and_an_id_nobody_knows(workers: Fleet, held: Loopback) -> None:
    """STARTED, as the result's own state is."""
    workers.start()
    task_id = workers.run(
        "from tasks import complete; print(complete.delay('slow', 'hi').id)"
    ).strip()
    wait_for(lambda: held.asked, 60)

    shown = workers.command("breakwater", "why", task_id)
    nobody = workers.command("breakwater", "why", "no-such-task")
    state = workers.run(f"from tasks import app; print(app.AsyncResult({task_id!r}).state)").strip()
    held.gate.set()

    assert "now STARTED" in shown.stdout
    assert state == "STARTED"
    assert nobody.returncode == 1
    assert "task 'no-such-task' is unknown" in nobody.stderr


@pytest.mark.slow
def test_standard_input_that_is_closed_is_named(workers: Fleet) -> None:
    """`-` reads it; cron has none."""
    done = subprocess.run(
        ["/bin/sh", "-c", f'"{BIN}/breakwater" ask coder - <&-'],
        cwd=workers.folder, env={**os.environ, **workers.environ}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    assert done.returncode == 2
    assert "`-` reads standard input, which is closed" in done.stderr


@pytest.mark.slow
def test_a_paid_answer_is_shown_whatever_the_encoding(workers: Fleet, simulator: Simulator) -> None:
    """What standard output lacks is escaped; it was a traceback, and the answer was gone."""
    simulator.settings("local", answer="naïve 日本 \x1b[2J")
    workers.start()
    workers.environ |= {"PYTHONIOENCODING": "ascii"}

    done = workers.command("breakwater", "ask", "coder", "hi")
    streamed = workers.command("breakwater", "ask", "coder", "hi", "--stream")
    as_json = workers.command("breakwater", "ask", "coder", "hi", "--json")

    assert done.stdout == streamed.stdout == "na\\xefve \\u65e5\\u672c \x1b[2J\n"
    assert json.loads(as_json.stdout)["text"] == "naïve 日本 \x1b[2J"
    assert [each.returncode for each in (done, streamed, as_json)] == [0, 0, 0]
    assert len(simulator.hits("local")) == 3
