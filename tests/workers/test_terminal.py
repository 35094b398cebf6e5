"""What the commands print: nothing of others' text steers the terminal, and no stream ends one."""

import ast
import json
import os
import pty
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import redis
import structlog
from typer.testing import CliRunner

from breakwater.attempt import Attempt
from tasks.ledger.database import Database
from tests.support.fleet import BIN
from workers.cli import cli
from workers.log import set_up_logging
from workers.terminal import console

WORKERS = Path(__file__).parents[2] / "workers"
HOSTILE = "\x1b]52;c;cm0=\x07\x1b[2J\u202egnp\r\n[/][bold]x\x9b31m"
FORBIDDEN = ("\x1b]", "\x1b[2J", "\x07", "\u202e", "\x9b", "\r")
TASK = {
    "role": HOSTILE,
    "queued_ms": 1,
    "worker": HOSTILE,
    "roles_version": "v",
    "metadata": {"k": HOSTILE},
}
RUN = "run-1"


@pytest.fixture
def hostile(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> redis.Redis:
    """A Redis and a ledger in which every name and text is hostile."""
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    for name, value in {"REDIS_URL": redis_url, "LEDGER_URL": ledger}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    attempt = Attempt(HOSTILE, HOSTILE, "succeeded", number=1, started_ms=1_763_700_000_000)
    failed = replace(attempt, outcome="failed", error=HOSTILE, number=2, why=HOSTILE)
    with Database(ledger) as database:
        database.add([each.row({**TASK, "task_id": "t"}) for each in (attempt, failed)])
    server = redis.Redis.from_url(redis_url)
    hold = json.dumps({"who": HOSTILE, "at_ms": 1, "why": HOSTILE})
    server.sadd("breakers", HOSTILE)
    server.hset(
        f"breaker:{{{HOSTILE}}}",
        mapping={"state": "open", "reason": HOSTILE, "who": HOSTILE, "forced": "open"},
    )
    told = {
        "from": "closed",
        "to": "open",
        "reason": HOSTILE,
        "failures": 1,
        "trips": 1,
        "who": HOSTILE,
        "at_ms": 1,
    }
    server.xadd(f"breaker:{{{HOSTILE}}}:events", told)
    server.sadd("queues", f"role.{HOSTILE}")
    server.lpush(f"role.{HOSTILE}", "{}")
    server.hset("paused", f"role.{HOSTILE}", hold)
    server.hset(
        "parked",
        f"role.{HOSTILE}",
        json.dumps({"until_ms": 1, "since_ms": 1, "reason": HOSTILE, "for_ms": 1}),
    )
    about = {
        "name": HOSTILE,
        "pool": HOSTILE,
        "concurrency": 1,
        "version": HOSTILE,
        "queues": [HOSTILE],
        "running": {},
    }
    server.hset("workers", HOSTILE, json.dumps(about))
    server.zadd("workers:until", {HOSTILE: 9e15})
    server.hset("draining", HOSTILE, hold)
    entry = {
        "at_ms": 1,
        "who": HOSTILE,
        "what": HOSTILE,
        "targets": HOSTILE,
        "number": 1,
        "details": json.dumps({"why": HOSTILE}),
    }
    server.xadd("operations", entry)
    letter = {"task_id": f"t{HOSTILE}", "at_ms": "1", "role": HOSTILE, "error": HOSTILE, "message": HOSTILE,
              "attempts": json.dumps([{"provider": HOSTILE, "model": HOSTILE, "outcome": HOSTILE, "error": HOSTILE, "why": HOSTILE}])}  # fmt: skip
    server.xadd("dead", letter, id="1-1")
    return server


COMMANDS = [
    "breakers", "breakers events HOSTILE", "breakers force-open HOSTILE", "breakers force-open x", "queues",
    "pause HOSTILE", "resume HOSTILE", "pause x", "workers", "operations", "dead", "dead show 1-1",
    "dead retry 1-1", "why t", "ledger summary", "ledger summary --by model,role",
    "ledger summary --format csv", "ledger export", "ledger export --format json", "workflows", "doctor",
]  # fmt: skip


@pytest.mark.parametrize("form", ["table", "json"])
@pytest.mark.parametrize("words", COMMANDS)
def test_no_command_lets_it_through(hostile: redis.Redis, words: str, form: str) -> None:
    """Neither to standard output nor to standard error; nothing is read as markup; no crash."""
    argv = [HOSTILE if word == "HOSTILE" else word for word in words.split()]
    if form == "json" and argv[0] in {"pause", "resume"}:
        pytest.skip("it has no --json")
    done = CliRunner().invoke(cli, [*argv, *(["--json"] if form == "json" else [])])

    shown = done.stdout + done.stderr
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert not [each for each in FORBIDDEN if each in shown.replace("\r\n", "\n")]


def test_a_table_shows_it_escaped(hostile: redis.Redis) -> None:
    """So that an operator sees what is there."""
    shown = CliRunner().invoke(cli, ["breakers"]).stdout

    assert r"\x1b]52;c;cm0=\x07\x1b[2J\u202egnp\r\n[/][bold]x\x9b31m" in shown


@pytest.mark.parametrize(
    "path", sorted(WORKERS.rglob("*.py")), ids=lambda path: str(path.relative_to(WORKERS))
)
def test_everything_is_printed_by_the_one_way(path: Path) -> None:
    """No module makes a console or a table of rich's own, or writes to a stream itself."""
    allowed = {
        "__init__.py": {"stderr", "print"},  # where the packages of a worker are missing
        "terminal/console.py": {"Console", "stdout", "stderr"},
        "terminal/table.py": {"RichTable"},
        "commands/top_view.py": {"Table"},  # its cells are `plain`, drawn by `console.out`
        "demo/view.py": {"Table", "from_markup"},  # our own words, drawn by a `Terminal`
        "log.py": {"stderr"},  # a log, whose lines are cleaned there
        "lifecycle.py": {"stderr", "print"},
        "otel.py": {"stderr", "print"},
    }.get(str(path.relative_to(WORKERS)), set())
    tree = ast.parse(path.read_text())
    rich = {
        alias.asname or alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rich")
        for alias in node.names
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            made_by_rich = node.func.id in {"Console", "Table", "RichTable"} & set(rich)
            found |= {node.func.id} if made_by_rich or node.func.id == "print" else set()
        elif isinstance(node, ast.Attribute):
            if (
                node.attr in {"stdout", "stderr"}
                and isinstance(node.value, ast.Name)
                and node.value.id == "sys"
            ) or (node.attr in {"from_markup", "print_json"} and path.name != "console.py"):
                found.add(node.attr)

    assert found <= allowed


def test_a_log_on_a_terminal_is_clean(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names, errors and tracebacks; a traceback shows no value of a variable."""
    import logging

    class Person:
        """A terminal."""

        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

        def flush(self) -> None: ...

    written: list[str] = []
    root, level = logging.getLogger().handlers, logging.getLogger().level
    before = structlog.get_config()
    try:
        set_up_logging(logging.INFO, Person())  # type: ignore[arg-type]
        structlog.get_logger("breakwater").info("attempt", model=HOSTILE, spaced=f"a {HOSTILE}")
        prompt = "CANARY-PROMPT"
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            logging.getLogger("tasks").exception(HOSTILE)
    finally:
        logging.getLogger().handlers = root
        logging.getLogger().setLevel(level)
        structlog.configure(**before)

    shown = "".join(written)
    assert "attempt" in shown
    assert "ValueError" in shown
    assert not [each for each in FORBIDDEN if each in shown]
    assert prompt not in shown


def breakwater(*words: str, **how: object) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run([BIN / "breakwater", *words], timeout=120, check=False, **how)  # type: ignore[call-overload,no-any-return]


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full"])
def test_a_closed_or_full_stream_is_no_traceback(hostile: redis.Redis, closed: str) -> None:
    """Cron and daemons close what they do not want; a disk may be full, which is a fault."""
    done = subprocess.run(
        ["/bin/sh", "-c", f'"{BIN}/breakwater" ledger export {closed}'],
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip

    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    assert done.returncode == (1 if "full" in closed else 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", ["ledger export", "ledger export --format json", "dead --json", "breakers", "--help"]
)
def test_a_reader_that_leaves_is_no_fault(hostile: redis.Redis, words: str) -> None:
    """`| head`: no traceback, exit code 0."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = breakwater(*words.split(), stdout=write, stderr=subprocess.PIPE)
    finally:
        os.close(write)

    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    assert done.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "environ",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
    ids=lambda environ: next(iter(environ)),
)
def test_any_encoding_will_do(hostile: redis.Redis, environ: dict[str, str]) -> None:
    """What it lacks is shown escaped; JSON stays JSON."""
    hostile.xadd("dead", {"task_id": "t2", "at_ms": "2", "message": "日本 naïve"}, id="2-1")

    table = breakwater("dead", env={**os.environ, **environ}, capture_output=True)
    as_json = breakwater("dead", "--json", env={**os.environ, **environ}, capture_output=True)

    assert (table.returncode, as_json.returncode) == (0, 0), table.stderr
    assert rb"\u65e5\u672c" in table.stdout
    assert json.loads(as_json.stdout)[0]["message"] == "日本 naïve"


@pytest.mark.slow
def test_an_answer_is_cleaned_on_a_terminal_and_exact_in_a_pipe() -> None:
    """A pipe wants the bytes; a person's terminal must not obey them."""
    code = "from workers.terminal.console import print_answer; print_answer('a\\x1b[2Jb\\n\\tc')"
    main, other = pty.openpty()

    piped = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    subprocess.run([sys.executable, "-c", code], stdout=other, check=True)
    shown = os.read(main, 1000)
    os.close(main)
    os.close(other)

    assert piped.stdout == b"a\x1b[2Jb\n\tc\n"
    assert shown.replace(b"\r\n", b"\n") == b"a\\x1b[2Jb\n        c\n"


def test_a_question_needs_somebody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard input may be closed, which Python shows as None."""
    monkeypatch.setattr(sys, "stdin", None)

    assert not console.is_terminal(sys.stdin)
