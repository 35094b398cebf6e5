"""The operator's levers over real workers: pause, resume, drain, and what is written down of them."""

import json
import signal
import threading
from typing import Any

import pytest
import redis

from simulator.client import Simulator
from tests.support.fleet import Fleet, wait_for
from tests.support.loopback import Loopback

POOLS = ["threads", "prefork", "gevent"]
ENQUEUE = "from tasks import complete\nfor _ in range({}): print(complete.delay({!r}, 'hi').id)"
ANSWER = (
    "from tasks import complete\nprint(complete.delay({!r}, 'hi').get(timeout=180)['provider'])"
)


def enqueue(workers: Fleet, number: int, role: str = "clarifier", **how: Any) -> list[str]:
    return workers.run(ENQUEUE.format(number, role), **how).split()


def settled(client: Any, ids: list[str]) -> int:
    return int(client.exists(*(f"celery-task-meta-{each}" for each in ids)))


def told(workers: Fleet, *words: str) -> Any:
    return json.loads(workers.command("breakwater", *words, "--json").stdout)


@pytest.fixture
def client(redis_url: str) -> Any:
    return redis.Redis.from_url(redis_url, decode_responses=True)


@pytest.fixture(autouse=True)
def _operator(workers: Fleet) -> None:
    workers.environ["BREAKWATER_WHO"] = "ann"


@pytest.mark.slow
@pytest.mark.parametrize(
    "pool", ["threads", *(pytest.param(each, marks=pytest.mark.long) for each in POOLS[1:])]
)
def test_a_paused_role_waits_and_the_others_run_on(
    workers: Fleet, held: Loopback, client: Any, pool: str
) -> None:
    """What runs finishes, nothing else is begun, by new workers neither; then all is answered."""
    workers.start(1, pool, 4)
    ids = enqueue(workers, 10, "slow")
    wait_for(lambda: len(held.asked) == 4)

    done = workers.command("breakwater", "pause", "slow", "--why", "the bill")
    held.gate.set()
    wait_for(lambda: settled(client, ids) == 4, 20, workers.logs)
    workers.start(1, pool, 4)
    other = workers.run(ANSWER.format("planner")).strip()
    (queue,) = [each for each in told(workers, "queues") if each["role"] == "slow"]
    asked = len(held.asked)
    resumed = workers.command("breakwater", "resume", "slow")

    assert (done.returncode, done.stdout) == (0, "role.slow paused\n")
    assert other == "gpt"
    assert asked == 4
    assert (queue["depth"], queue["consumers"]) == (6, 2)
    assert (queue["paused"]["who"], queue["paused"]["why"]) == ("ann", "the bill")
    assert resumed.stdout == "role.slow resumed\n"
    wait_for(lambda: settled(client, ids) == 10, 30, workers.logs)
    assert len(held.asked) == 10


@pytest.mark.slow
def test_a_pause_reaches_what_comes_by_the_common_queue(
    workers: Fleet, simulator: Simulator, client: Any
) -> None:
    """A producer that cannot know the roles is no way around it."""
    workers.start()
    workers.command("breakwater", "pause", "clarifier")

    ids = enqueue(workers, 3, roles_known=False)

    wait_for(lambda: client.llen("role.clarifier") == 3)
    assert simulator.hits("claude") == []
    workers.command("breakwater", "resume", "--all")
    wait_for(lambda: settled(client, ids) == 3, 20, workers.logs)


@pytest.mark.parametrize("pool", POOLS)
def test_a_drained_worker_finishes_what_it_runs_and_ends(
    workers: Fleet, held: Loopback, client: Any, pool: str
) -> None:
    """However long it takes, its grace is another thing; what it has not begun is for others."""
    workers.start(1, pool, 4, "--grace", "0.1")
    ids = enqueue(workers, 10, "slow")
    wait_for(lambda: len(held.asked) == 4)

    done = workers.command("breakwater", "drain", "w0@test")
    inspected = wait_for(lambda: told_by_inspect(workers), 20)
    (worker,) = told(workers, "workers")
    ended_early = workers.workers[0].poll() is not None
    held.gate.set()
    workers.workers[0].wait(180)

    assert (done.returncode, done.stdout) == (0, "w0@test draining\n")
    assert (worker["draining"]["who"], inspected) == ("ann", "ann")
    assert not ended_early
    assert workers.workers[0].returncode == 0
    assert settled(client, ids) == 4
    assert client.llen("role.slow") == 6
    assert not client.exists("taken", "workers", "draining")


def told_by_inspect(workers: Fleet) -> str:
    done = workers.command("celery", "-A", "workers", "inspect", "roles", "--json")
    (answer,) = json.loads(done.stdout).values()
    return str(answer["drained_by"])


@pytest.mark.slow
def test_drain_waits_until_they_have_ended(workers: Fleet, held: Loopback) -> None:
    """A deployment goes on when the old ones are gone."""
    workers.start(2, "threads", 2)
    enqueue(workers, 4, "slow")
    wait_for(lambda: len(held.asked) == 4)
    threading.Timer(3, held.gate.set).start()

    workers.command("breakwater", "drain", "--all", "--wait", "--yes")

    assert held.gate.is_set()
    assert told(workers, "workers") == []
    assert [worker.wait(180) for worker in workers.workers] == [0, 0]


@pytest.mark.slow
def test_a_signal_ends_the_patience_of_a_drain(
    workers: Fleet, simulator: Simulator, client: Any
) -> None:
    """SIGTERM gives a draining worker its grace, and then its tasks go back."""
    simulator.settings("claude", latency="held")
    workers.start(1, "threads", 4, "--grace", "1")
    enqueue(workers, 4)
    wait_for(lambda: simulator.in_flight("claude") == 4)
    workers.command("breakwater", "drain", "--all", "--yes")
    wait_for(lambda: "shutdown.draining" in workers.log())

    workers.workers[0].send_signal(signal.SIGTERM)
    workers.workers[0].wait(180)

    assert client.llen("role.clarifier") == 4


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("pause", "clarifer"), "did you mean 'clarifier'?"),
        (("resume", "clarifer"), "did you mean 'clarifier'?"),
        (("pause",), "give roles, or --all"),
        (("pause", "coder", "--all"), "give roles, or --all"),
        (("drain", "w0@tst"), "did you mean 'w0@test'?"),
        (("drain",), "or --all"),
        (("queues", "--watch"), "needs a terminal"),
        (("queus",), "Did you mean 'queues'?"),
        (("pause", "--whi", "x"), "--why"),
        (("breakers", "force-open", "claud"), "did you mean 'claude'?"),
    ],
)
def test_wrong_words_are_named_and_change_nothing(
    workers: Fleet, client: Any, words: tuple[str, ...], named: str
) -> None:
    """Exit code 2, and the nearest right one."""
    about = {
        "name": "w0@test",
        "pool": "thread",
        "concurrency": 1,
        "version": "x",
        "queues": [],
        "running": {},
    }
    client.hset("workers", "w", json.dumps(about))

    done = workers.command("breakwater", *words)

    assert done.returncode == 2
    assert named in " ".join(done.stderr.split())
    assert not client.exists("paused", "draining", "operations")


def test_the_levers_need_no_roles_file(workers: Fleet, client: Any) -> None:
    """Workers have said which queues there are."""
    workers.start()
    workers.environ["ROLES_FILE"] = "/nowhere/roles.yaml"

    paused = workers.command("breakwater", "pause", "clarifier")
    typo = workers.command("breakwater", "pause", "clarifer")

    assert paused.stdout == "role.clarifier paused\n"
    assert typo.returncode == 2
    assert "there are clarifier, coder, planner, reviewer" in typo.stderr
    assert client.hkeys("paused") == ["role.clarifier"]


def test_queues_tells_what_waits_and_why(workers: Fleet, client: Any) -> None:
    """For people in words, with what needs their eyes; nothing of a role that is long gone."""
    enqueue(workers, 2)
    client.sadd("queues", "role.ancient")
    until = {
        "until_ms": 0,
        "for_ms": 1,
        "since_ms": 1,
        "reason": "gpt is open",
        "few": 1,
        "passed": 0,
    }
    client.hset("parked", "role.planner", json.dumps(until))
    workers.command("breakwater", "pause", "coder")

    shown = workers.command("breakwater", "queues").stdout.splitlines()

    rows = {line.split()[0]: line for line in shown[1:]}
    assert set(rows) == {"clarifier", "planner", "coder", "reviewer"}
    assert rows["clarifier"].split()[1] == "2"
    assert "no worker consumes it" in rows["clarifier"]
    assert "paused by ann" in rows["coder"]
    assert "parked until a call is tried: gpt is open" in rows["planner"]


def test_a_fleet_in_two_minds_is_told(workers: Fleet, client: Any) -> None:
    """`queues` and `doctor` name the workers by the roles file they route by."""
    for name, version in (("w0@test", "aaaa"), ("w1@test", "bbbb")):
        about = {
            "name": name,
            "pool": "thread",
            "concurrency": 1,
            "version": version,
            "queues": [],
            "running": {},
        }
        client.hset("workers", name, json.dumps(about))

    queues = workers.command("breakwater", "queues")
    doctor = told(workers, "doctor")

    assert "different roles files: aaaa: w0@test; bbbb: w1@test" in queues.stderr
    (finding,) = [each for each in doctor if each["about"] == "workers"]
    assert (finding["level"], "aaaa: w0@test" in finding["what"]) == ("warning", True)


@pytest.mark.slow
def test_every_lever_is_written_down(workers: Fleet, simulator: Simulator, client: Any) -> None:
    """Who, when, what and to what; also of breakers, dead letters and cancelled tasks."""
    workers.start()
    simulator.fault("gpt", status=400)
    workers.run(
        "from tasks import complete\n"
        "for name in ('t1', 't2', 't3'):\n"
        "    try: complete.apply_async(('planner', 'hi'), task_id=name).get(timeout=180)\n"
        "    except Exception as error: pass"
    )
    words = [
        ("pause", "planner", "--why", "the bill"), ("breakers", "force-open", "claude"), ("breakers", "auto", "claude"),
        ("dead", "retry", "t1"), ("dead", "drop", "t2", "t3", "--yes"), ("reload",), ("drain", "--all", "--yes"),
    ]  # fmt: skip
    for each in words:
        assert workers.command("breakwater", *each).returncode == 0, each
    workers.run("from tasks import app\napp.control.revoke(['t8', 't9'])")

    entries = told(workers, "operations")

    assert {each["who"] for each in entries} == {"ann"}
    assert [(each["what"], each["number"]) for each in entries] == [
        ("cancel", 2), ("drain", 1), ("reload", 1), ("dead drop", 2), ("dead retry", 1),
        ("breaker auto", 1), ("breaker open", 1), ("pause", 1),
    ]  # fmt: skip
    assert entries[0]["targets"] == ["t8", "t9"]
    assert entries[4]["targets"] == ["t1"]
    assert entries[-1]["details"] == {"why": "the bill"}
    table = workers.command("breakwater", "operations", "--since", "1h", "--count", "1").stdout
    assert "t8, t9" in table
    assert "reload" not in table


def test_a_shell_completes_commands_and_roles(workers: Fleet) -> None:
    """By the roles file, and without a server."""
    workers.environ.update(REDIS_URL="redis://127.0.0.1:1/0", _BREAKWATER_COMPLETE="complete_bash")

    def complete(words: str) -> list[str]:
        workers.environ.update(COMP_WORDS=words, COMP_CWORD=str(words.count(" ")))
        return workers.command("breakwater").stdout.split()

    assert complete("breakwater pa") == ["pause"]
    assert complete("breakwater pause c") == ["clarifier", "coder"]


def test_completion_installs_itself(workers: Fleet) -> None:
    """For the shell that asks."""
    # Typer looks for a shell among its ancestors, and a test may have none.
    workers.environ["_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"] = "1"

    done = workers.command("breakwater", "--install-completion", "bash")

    assert done.returncode == 0, done.stderr
    assert "breakwater" in (workers.folder / ".bashrc").read_text()
