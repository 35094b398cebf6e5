"""
Old and new versions in one fleet: what one has written, the other reads.

The old side is a recording of what version 0.1 left in Redis before its modules moved. Where the
history of the repository reaches that commit, its real code runs beside today's, too.
"""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from breakwater import errors
from simulator.client import Simulator
from tests.support.fleet import Fleet, fleet
from tests.support.mixed import DATA, OLD, recorded, restore, roles_over
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]
SEEN = recorded("seen")
"""What the old client returned for each task."""
IDS = [name for name, entry in SEEN.items() if name not in {"run", "stream"}]
LIVE = [name for name in IDS if name != "cancelled"]
"""Of these none depends on whether a worker is quicker than its producer."""
KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
"""As `record.py` has it."""
READ = """
import json
from {package} import {app}, stream, workflow
seen = {{}}
for task_id in {ids!r}:
    result = {app}.AsyncResult(task_id).get(timeout=60, propagate=False)
    if isinstance(result, Exception):
        seen[task_id] = {{"error": type(result).__name__, "args": list(result.args)}}
    else:
        seen[task_id] = {{"result": result}}
if "streamed" in seen:
    seen["stream"] = [[e.type, e.text] for e in stream({app}.AsyncResult("streamed"))]
    seen["run"] = workflow.run("run").state()
print(json.dumps(seen))
"""
MADE = ("task_id", "role", "text", "data", "provider", "model", "finish_reason")
"""The part of a result that does not depend on when and by which version it was made."""

SAME = ("task", "shadow", "retries", "timelimit", "parent_id", "argsrepr", "kwargsrepr")
"""Headers that no time and no process is part of."""


@pytest.fixture
def echo(simulator: Simulator) -> Simulator:
    """Answers with the prompt, as when the recording was made."""
    for label in ("claude", "gpt", "slow", "down", "failing"):
        simulator.settings(label, answer="echo")
    simulator.fault("refusing", status=400)
    return simulator


@pytest.fixture
def mixed(redis_url: str, echo: Simulator, tmp_path: Path) -> Iterator[Fleet]:
    environ = {"SPOOL_DIR": str(tmp_path / "spool"), "LEDGER_URL": f"sqlite:///{tmp_path}/l.db"}
    with fleet(redis_url, roles_over(echo), environ) as workers:
        yield workers


def read(workers: Fleet, *ids: str, package: str = "breakwater", app: str = "app") -> Any:
    return json.loads(workers.run(READ.format(ids=ids, package=package, app=app)))


def made(entry: dict[str, Any]) -> object:
    """Return what must be equal, whichever version made it."""
    if "error" in entry:
        return entry["error"]
    result = entry["result"]
    calls = [(call["name"], call["arguments"]) for call in result["tool_calls"]]
    # Of two equal calls either may be the one that is made, and is paid for.
    usage = None if result["role"] == "cached" else result["usage"]
    return [result[name] for name in MADE], usage, calls


def holds(new: Any, old: Any) -> bool:
    """Return whether a JSON value has all that an older one had; more keys are allowed."""
    if isinstance(old, dict):
        return all(key in new and holds(new[key], value) for key, value in old.items())
    if isinstance(old, list):
        return len(new) == len(old) and all(map(holds, new, old))
    return bool(new == old)


def test_what_an_older_worker_has_settled_reads_as_it_did(redis_url: str, mixed: Fleet) -> None:
    """Results, errors with their details, a stream and a workflow run, by the client of today."""
    restore("settled", redis_url, age_s=None)

    seen = read(mixed, *IDS)

    assert {name: entry for name, entry in seen.items() if not holds(entry, SEEN[name])} == {}


def test_letters_and_operations_of_an_older_worker_are_listed(redis_url: str, mixed: Fleet) -> None:
    """And a letter is queued again with its old message."""
    client = restore("settled", redis_url)

    listed = json.loads(mixed.command("breakwater", "dead", "--json").stdout)
    letters = {letter["task_id"]: letter["error"] for letter in listed}
    shown = json.loads(mixed.command("breakwater", "dead", "show", "refused", "--json").stdout)
    retried = mixed.command("breakwater", "dead", "retry", "refused", "--yes")
    operations = mixed.command("breakwater", "operations", "--json").stdout

    assert letters == {
        name: SEEN[name]["error"] for name in ("late", "refused", "schema", "unknown")
    }
    assert [call["error"] for call in shown["attempts"]] == ["InvalidRequest"]
    assert retried.returncode == 0, retried.stderr
    assert client.llen("role.refused") == 1
    assert "cancel" in operations


def test_an_older_ledger_is_read(redis_url: str, mixed: Fleet, tmp_path: Path) -> None:
    """Its tables are brought up to date when they are opened."""
    restore("settled", redis_url)
    ledger = sqlite3.connect(tmp_path / "l.db")
    ledger.executescript((DATA / "ledger.sql").read_text())
    ledger.close()

    why = json.loads(mixed.command("breakwater", "why", "plain", "--json").stdout)

    assert [row["outcome"] for row in why["attempts"]] == ["succeeded"]
    assert why["attempts"][0]["cost_usd"] == SEEN["plain"]["result"]["cost_usd"]


def test_every_error_of_an_older_client_keeps_its_name() -> None:
    """Results name an error's class and the module `tasks.errors`, where both versions have it."""
    old = {SEEN[name]["error"] for name in IDS if "error" in SEEN[name]}

    assert old > {"InvalidRequest", "SchemaViolated", "DeadlineExceeded", "UnknownRole"}
    for name in old - {"TaskRevokedError"}:
        assert hasattr(errors, name)
        assert hasattr(__import__("tasks.errors").errors, name)


def enqueue(producer: Fleet, package: str) -> None:
    """Enqueue what was recorded, as a version would write it, without and with a roles file."""
    text = (DATA / "record.py").read_text()
    for name in ("QUEUED", "COMMON"):
        code = text.partition(f'\n{name} = """')[2].partition('"""')[0]
        code = code.replace("from tasks import", f"from {package} import")
        producer.run(code, roles_known=name == "QUEUED")


def messages(client: Any) -> dict[str, Any]:
    """Return what the older worker reads of each waiting message, by task id."""
    read: dict[str, Any] = {}
    for key in client.scan_iter(_type="list"):
        for text in [] if key.startswith("bell:") else client.lrange(key, 0, -1):
            message = json.loads(text)
            headers, properties = message["headers"], message["properties"]
            body = message["body"]
            if properties["body_encoding"] == "base64":
                body = b64decode(body)
            args, kwargs, embed = json.loads(body)
            # The first step of a run has an id of chance.
            name = headers["id"] if headers["task"] == "complete" else headers["task"]
            read[name] = {
                "list": key, "args": args, "kwargs": kwargs, "headers": headers,
                "embed": sorted(embed),
                "routing": properties["delivery_info"],
                "type": message["content-type"],
            }  # fmt: skip
    return read


def test_a_producer_of_today_writes_what_an_older_worker_reads(
    redis_url: str, mixed: Fleet
) -> None:
    """The same lists, tasks, arguments and headers, and the same fields of a workflow's run."""
    client = restore("queued", redis_url)
    old, run = messages(client), {*client.hgetall("workflow:run")}
    client.flushall()

    enqueue(mixed, "breakwater")
    new = messages(client)

    assert new.keys() == old.keys()
    for task_id, before in old.items():
        after = new[task_id]
        headers, theirs = after.pop("headers"), before.pop("headers")
        assert after == before
        assert headers.keys() >= {name for name, value in theirs.items() if value is not None}
        assert headers["breakwater"].keys() >= theirs.get("breakwater", {}).keys()
        assert [headers.get(name) for name in SAME] == [theirs[name] for name in SAME]
    assert {*client.hgetall("workflow:run")} == run
    assert client.exists("celery-task-meta-cancelled")


@pytest.mark.promise
def test_what_an_older_producer_has_queued_is_answered(
    redis_url: str, mixed: Fleet, echo: Simulator
) -> None:
    """Every option, the canvas, a stream, a workflow, and what is to fail, fails as it did."""
    restore("queued", redis_url)

    mixed.start()
    seen = read(mixed, *IDS)

    assert {name: made(seen[name]) for name in IDS} == {name: made(SEEN[name]) for name in IDS}
    assert "".join(text for _, text in seen["stream"]) == "".join(t for _, t in SEEN["stream"])
    wait_for(lambda: read(mixed, "streamed")["run"]["state"] == "succeeded")
    assert len(echo.hits("slow")) == 1


def test_an_older_worker_is_listed(redis_url: str, mixed: Fleet) -> None:
    """By what it says of itself, which has other fields than a worker of today sends."""
    restore("in_hand", redis_url, age_s=-120)

    shown = {
        words: mixed.command("breakwater", words, "--json")
        for words in ("workers", "queues", "breakers", "workflows")
    }

    assert {words: done.stderr for words, done in shown.items() if done.returncode} == {}
    (worker,) = json.loads(shown["workers"].stdout)
    assert worker["name"] == "w0@test"
    assert worker["running"] == 3


@pytest.mark.slow
def test_what_waits_from_an_older_worker_goes_on(redis_url: str, mixed: Fleet) -> None:
    """Parked, put aside after a failure with its attempts, delayed, and paused until resumed."""
    client = restore("waiting", redis_url, age_s=3590)

    mixed.start()
    seen = read(mixed, "parked-0", "parked-1", "parked-2", "parked-3", "failing", "later")

    assert {name: entry["result"]["text"] for name, entry in seen.items()} == {
        **{f"parked-{n}": f"parked {n}" for n in range(4)},
        "failing": "failing prompt", "later": "much later",
    }  # fmt: skip
    assert seen["failing"]["result"]["attempts"][0]["error"] == "ServerError"
    assert client.llen("role.reviewer") == 1
    mixed.command("breakwater", "resume", "reviewer")
    assert read(mixed, "paused")["paused"]["result"]["text"] == "paused prompt"


@pytest.mark.slow
def test_what_a_killed_older_worker_had_in_hand_is_called_again(
    redis_url: str, mixed: Fleet
) -> None:
    """It may have been paid, so it is counted: once, in the result and for the fleet."""
    client = restore("in_hand", redis_url)

    mixed.start()
    seen = read(mixed, "killed", "killed-stream")
    wait_for(lambda: client.hget("workflow:killed-run", "state") == "succeeded")
    wait_for(lambda: not client.xlen("ledger"))
    why = json.loads(mixed.command("breakwater", "why", "killed", "--json").stdout)

    assert [row["outcome"] for row in why["attempts"]] == ["abandoned", "succeeded"]
    for task_id, prompt in (("killed", "slow prompt"), ("killed-stream", "slow stream")):
        result = seen[task_id]["result"]
        assert result["text"] == prompt
        assert result["duplicates"] == 1
        assert result["attempts"][0]["error"] == "WorkerLost"
    assert client.hget("delivery", "duplicates") == "3"


@pytest.mark.slow
def test_an_answer_in_an_older_spool_is_settled(
    redis_url: str, mixed: Fleet, echo: Simulator, tmp_path: Path
) -> None:
    """It was paid for, so nobody is called."""
    client = restore("spool", redis_url)
    (tmp_path / "spool").mkdir(mode=0o700)
    for number, content in enumerate(recorded("spool_file")):
        (tmp_path / "spool" / f"{number}.json").write_text(json.dumps(content))

    mixed.start()
    seen = read(mixed, "spooled")
    wait_for(lambda: not client.exists("taken"))

    assert seen["spooled"]["result"]["text"] == "paid prompt"
    assert echo.hits("slow") == []
    assert list((tmp_path / "spool").glob("*.json")) == []


@pytest.mark.slow
def test_what_an_older_version_has_encrypted_is_read(redis_url: str, mixed: Fleet) -> None:
    """A waiting prompt and a result."""
    restore("encrypted", redis_url)
    mixed.environ["BREAKWATER_ENCRYPTION_KEYS"] = KEY

    mixed.start()
    seen = read(mixed, "sealed-result", "sealed-prompt")

    assert {entry["result"]["text"] for entry in seen.values()} == {"secret prompt"}


def git(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def old_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The code of the recording, in a folder of its own."""
    if not shutil.which("git") or git("cat-file", "-e", f"{OLD}^{{commit}}").returncode:
        pytest.skip(f"the history here does not reach commit {OLD}")
    folder = tmp_path_factory.mktemp("old") / "code"
    done = git("worktree", "add", "--detach", str(folder), OLD)
    assert done.returncode == 0, done.stderr
    yield folder
    git("worktree", "remove", "--force", str(folder))


@pytest.fixture
def old(redis_url: str, echo: Simulator, old_code: Path, tmp_path: Path) -> Iterator[Fleet]:
    """A fleet whose workers and producers are the old code; it has today's libraries."""
    environ = {"PYTHONPATH": str(old_code), "LEDGER_URL": f"sqlite:///{tmp_path}/l.db"}
    with fleet(redis_url, roles_over(echo), environ) as workers:
        where = workers.run("import tasks; print(tasks.__file__)").strip()
        assert where == str(old_code / "tasks" / "__init__.py")
        yield workers


@pytest.mark.slow
def test_a_worker_of_the_old_code_serves_a_producer_of_today(mixed: Fleet, old: Fleet) -> None:
    """All that the old version can do, enqueued and read by the new one."""
    old.start()

    enqueue(mixed, "breakwater")
    seen = read(mixed, *LIVE)
    by_old = read(old, *LIVE, package="tasks")
    mixed.run(
        "from breakwater import app\n"
        "app.send_task('complete', ('coder', 'hi'), {'of_tomorrow': 1}, task_id='newer')"
    )
    refused = read(mixed, "newer")["newer"]

    assert {name: made(seen[name]) for name in LIVE} == {name: made(SEEN[name]) for name in LIVE}
    assert {name: made(by_old[name]) for name in LIVE} == {name: made(SEEN[name]) for name in LIVE}
    assert refused["error"] == "InvalidOption"


@pytest.mark.slow
def test_a_worker_of_the_old_code_obeys_the_commands_of_today(mixed: Fleet, old: Fleet) -> None:
    """It is listed, reads its roles file again, passes a paused role by, cancels, and drains."""
    old.start()

    (worker,) = json.loads(mixed.command("breakwater", "workers", "--json").stdout)
    reload = mixed.command("breakwater", "reload")
    mixed.command("breakwater", "pause", "coder")
    mixed.run(
        "from breakwater import complete\n"
        "complete.apply_async(('reviewer', 'runs'), task_id='runs')\n"
        "waits = complete.apply_async(('coder', 'waits'), task_id='waits')\n"
        "complete.apply_async(('coder', 'never'), task_id='cancelled').cancel()"
    )
    runs = read(mixed, "runs", "cancelled")
    queues = json.loads(mixed.command("breakwater", "queues", "--json").stdout)
    drained = mixed.command("breakwater", "drain", "--all", "--yes", "--wait")

    assert worker["name"] == "w0@test"
    assert (reload.returncode, drained.returncode) == (0, 0), reload.stderr + drained.stderr
    assert runs["runs"]["result"]["text"] == "runs"
    assert runs["cancelled"]["error"] == "TaskRevokedError"
    waiting = {queue["name"]: queue["depth"] for queue in queues}
    assert waiting["role.coder"] >= 1
    assert old.workers[0].wait(60) == 0


@pytest.mark.slow
def test_a_worker_of_today_obeys_the_commands_of_the_old_code(mixed: Fleet, old: Fleet) -> None:
    """An operator's machine may be upgraded last."""
    mixed.start()
    mixed.run(
        "from breakwater import complete\n"
        "complete.delay('coder', 'hi').get(timeout=60)\n"
        "complete.apply_async(('refused', 'hi'), task_id='refused').get(timeout=60, propagate=False)"
    )

    shown = {
        words: old.command("breakwater", words, "--json")
        for words in ("workers", "queues", "breakers", "dead", "operations")
    }
    changed = {
        words: old.command("breakwater", *words.split())
        for words in ("pause coder", "resume coder", "reload", "drain --all --wait")
    }

    failed = {words: done.stderr for words, done in {**shown, **changed}.items() if done.returncode}
    assert failed == {}
    (worker,) = json.loads(shown["workers"].stdout)
    (letter,) = json.loads(shown["dead"].stdout)
    assert (worker["name"], letter["error"]) == ("w0@test", "InvalidRequest")
    assert mixed.workers[0].wait(60) == 0


@pytest.mark.slow
def test_a_worker_of_today_serves_a_producer_of_the_old_code(mixed: Fleet, old: Fleet) -> None:
    """And the old client reads it, errors by their class with the attempts among the details."""
    mixed.start()

    enqueue(old, "tasks")
    seen = read(old, *LIVE, package="tasks")

    assert {name: made(seen[name]) for name in LIVE} == {name: made(SEEN[name]) for name in LIVE}
    assert seen["refused"]["args"][1]["attempts"][0]["error"] == "InvalidRequest"
    wait_for(lambda: read(old, "streamed", package="tasks")["run"]["state"] == "succeeded")


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["old", "new"])
def test_each_version_takes_over_from_the_other(
    mixed: Fleet, old: Fleet, echo: Simulator, killed: str
) -> None:
    """Both work on one queue; one is killed with its calls out, and each task ends once."""
    echo.settings("slow", answer="echo", latency=2)
    old.start(1, "threads", 4)
    mixed.start(1, "threads", 4)
    ids = [f"task-{n}" for n in range(24)]
    mixed.run(
        "from breakwater import complete\n"
        f"for task_id in {ids!r}: complete.apply_async(('slow', task_id), task_id=task_id)"
    )
    wait_for(lambda: echo.in_flight("slow") == 8)

    victim = (old if killed == "old" else mixed).workers[0]
    os.killpg(victim.pid, signal.SIGKILL)
    victim.wait()
    seen = read(mixed, *ids)

    assert {name: entry["result"]["text"] for name, entry in seen.items()} == {n: n for n in ids}
    duplicates = sum(entry["result"].get("duplicates", 0) for entry in seen.values())
    assert 1 <= duplicates <= 4
    assert len(echo.hits("slow")) <= len(ids) + duplicates
