"""A changed roles file under running workers: taken whole, refused whole, and nothing lost by it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import redis

from simulator.client import Simulator
from tests.support.fleet import KEYS, Fleet, wait_for
from tests.support.loopback import Loopback

POOLS = ["threads", "prefork", "gevent"]
ASK = "from tasks import complete\nfor r in [complete.delay({!r}, 'hi') for _ in range({})]: print(r.get(timeout=180)['provider'])"
ENQUEUE = "from tasks import complete\nprint(complete.delay({!r}, 'hi').id)"
CLARIFIER = "clarifier: {chain: [claude]"


def ask(workers: Fleet, role: str, number: int = 1, **how: Any) -> set[str]:
    """Who answered."""
    return set(workers.run(ASK.format(role, number), **how).split())


def change(workers: Fleet, *pairs: tuple[str, str]) -> None:
    """Write the roles file anew, as an editor does: another file in its place."""
    text = workers.roles_file.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    new_file = workers.folder / "roles.new"
    new_file.write_text(text)
    os.replace(new_file, workers.roles_file)


def versions(workers: Fleet) -> list[str]:
    shown = json.loads(workers.command("breakwater", "workers", "--json").stdout)
    return [worker["version"] for worker in shown]


@pytest.fixture
def client(redis_url: str) -> Any:
    return redis.Redis.from_url(redis_url, decode_responses=True)


@pytest.mark.slow
@pytest.mark.parametrize("pool", [*POOLS, pytest.param("solo", marks=pytest.mark.long)])
def test_workers_take_a_changed_file_at_once_when_told(workers: Fleet, pool: str) -> None:
    """Each answers with its old and its new version; every child of a prefork goes by it."""
    workers.start(2, pool, 1 if pool == "solo" else 4)
    assert ask(workers, "clarifier", 12) == {"claude"}
    (before,) = set(versions(workers))
    change(workers, (CLARIFIER, "clarifier: {chain: [gpt]"))

    done = workers.command("breakwater", "reload", "--json")

    answers = json.loads(done.stdout)
    assert done.returncode == 0
    assert set(answers) == {"w0@test", "w1@test"}
    (after,) = {answer["after"] for answer in answers.values()}
    assert after != before
    assert ask(workers, "clarifier", 24) == {"gpt"}
    wait_for(lambda: versions(workers) == [after, after], 5)


@pytest.mark.slow
def test_workers_see_a_change_by_themselves(workers: Fleet) -> None:
    """Within a few seconds; a date that has changed alone is none."""
    workers.start(1, "threads", 4)
    os.utime(workers.roles_file)

    change(workers, (CLARIFIER, "clarifier: {chain: [gpt]"))

    wait_for(lambda: "roles.reloaded" in workers.log(), 40, workers.log)
    assert ask(workers, "clarifier") == {"gpt"}
    assert workers.log().count("roles.reloaded") == 1


@pytest.mark.slow
def test_a_link_that_is_turned_is_a_change(workers: Fleet) -> None:
    """As Kubernetes does with a ConfigMap: file -> ..data/file, ..data -> a folder of a date."""
    text, folder = workers.roles_file.read_text(), workers.folder
    for name, content in (
        ("..1", text),
        ("..2", text.replace(CLARIFIER, "clarifier: {chain: [gpt]")),
    ):
        (folder / name).mkdir()
        (folder / name / "roles.yaml").write_text(content)
    (folder / "..data").symlink_to("..1")
    workers.roles_file.unlink()
    workers.roles_file.symlink_to(Path("..data") / "roles.yaml")
    workers.start(1, "threads", 4)

    (folder / "..data_tmp").symlink_to("..2")
    os.replace(folder / "..data_tmp", folder / "..data")

    wait_for(lambda: "roles.reloaded" in workers.log(), 40, workers.log)
    assert ask(workers, "clarifier") == {"gpt"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "pool", ["threads", "prefork", pytest.param("gevent", marks=pytest.mark.long)]
)
def test_a_running_task_ends_with_the_settings_it_began_with(
    workers: Fleet, held: Loopback, pool: str
) -> None:
    """Its provider is not in the file any more, answers it all the same, and is let go of then."""
    port = int(held.url.rpartition(":")[2])
    workers.start(1, pool, 2)
    task_id = workers.run(ENQUEUE.format("slow")).strip()
    wait_for(lambda: len(held.asked) == 1)
    text = [line for line in workers.roles_file.read_text().splitlines() if "  held:" not in line]
    workers.roles_file.write_text("\n".join(text).replace("[held]", "[gpt]"))

    done = workers.command("breakwater", "reload")
    new = ask(workers, "slow")
    while_it_runs = connections(port)
    held.gate.set()
    old = workers.run(
        f"from tasks import app\nprint(app.AsyncResult({task_id!r}).get(timeout=180)['provider'])"
    )

    assert done.returncode == 0, done.stderr
    assert new == {"gpt"}
    assert while_it_runs == 2  # both ends are on this host
    assert old.strip() == "held"
    # A child of a prefork lets go when it begins its next task.
    wait_for(lambda: ask(workers, "slow", 4) and connections(port) == 0, 30)


def connections(port: int) -> int:
    """Count the ends of connections to a port of this host."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(f":{port:04X}" in row[1] + row[2] and row[3] == "01" for row in rows)


@pytest.mark.slow
def test_a_bad_file_is_refused_and_the_old_one_stays(workers: Fleet) -> None:
    """Every fault is told, once in the log, and no key; a mended file is taken."""
    workers.start(1, "threads", 4)
    good = workers.roles_file.read_text()
    change(
        workers, (CLARIFIER, "clarifier: {chain: [cloude]"), ("temperature: 0.5", "temperature: 7")
    )
    wait_for(lambda: "roles.refused" in workers.log(), 40, workers.log)

    done = workers.command("breakwater", "reload")
    answered = ask(workers, "clarifier")
    wait_for(lambda: workers.command("breakwater", "reload").returncode == 3)
    workers.roles_file.write_text(good + "\n# mended\n")
    mended = workers.command("breakwater", "reload")

    assert done.returncode == 3
    assert "w0@test: refused" in done.stderr
    assert "did you mean 'claude'?" in done.stderr
    assert "temperature" in done.stderr
    assert answered == {"claude"}
    assert workers.log().count("roles.refused") == 1
    assert mended.returncode == 0
    for key in KEYS.values():
        assert key not in workers.logs() + done.stdout + done.stderr


def test_a_missing_file_changes_nothing(workers: Fleet) -> None:
    """It is said, and the worker goes on."""
    workers.start(1, "threads", 4)
    workers.roles_file.unlink()

    done = workers.command("breakwater", "reload")

    assert done.returncode == 3
    assert "cannot be read" in done.stderr
    assert ask(workers, "clarifier", roles_known=False) == {"claude"}


@pytest.mark.parametrize(
    "pool", ["threads", "gevent", pytest.param("prefork", marks=pytest.mark.long)]
)
def test_queues_follow_the_roles_and_no_prompt_is_lost(
    workers: Fleet, client: Any, pool: str
) -> None:
    """A new role is served; what waits for a removed one waits, is named, and is served later."""
    workers.start(1, pool, 4)
    whole = workers.roles_file.read_text()
    change(workers, ("  planner:", "  thinker:"))
    assert workers.command("breakwater", "reload").returncode == 0
    served = ask(workers, "thinker", 3)

    task_id = workers.run(
        "from tasks import complete\n"
        "print(complete.apply_async(('planner', 'hi'), queue='role.planner').id)"
    ).strip()  # by a producer whose file is an hour behind
    wait_for(lambda: "Canceling queue role.planner" in workers.log(), 40, workers.log)
    shown = json.loads(workers.command("breakwater", "queues", "--json").stdout)
    doctor = workers.command("breakwater", "doctor").stdout
    waiting = client.llen("role.planner")
    workers.roles_file.write_text(whole)
    assert workers.command("breakwater", "reload").returncode == 0

    assert served == {"gpt"}
    assert waiting == 1
    assert [(q["depth"], q["consumers"]) for q in shown if q["role"] == "planner"] == [(1, 0)]
    assert "role.planner: 1 prompts wait" in doctor
    wait_for(lambda: client.exists(f"celery-task-meta-{task_id}"), 20, workers.logs)


def test_a_worker_of_some_queues_takes_no_new_ones(workers: Fleet, client: Any) -> None:
    """`-Q` holds for what comes later as well."""
    workers.start(1, "threads", 4, "-Q", "role.coder,role.thinker")
    change(
        workers, ("  planner:", "  thinker: {chain: [gpt]}\n  other: {chain: [gpt]}\n  planner:")
    )

    assert workers.command("breakwater", "reload").returncode == 0

    assert ask(workers, "thinker") == {"gpt"}
    (worker,) = json.loads(workers.command("breakwater", "workers", "--json").stdout)
    assert worker["queues"] == ["role.coder", "role.thinker"]


def test_a_parked_role_that_gets_another_provider_runs_on(
    workers: Fleet, simulator: Simulator, client: Any
) -> None:
    """At once, not when the old one is back."""
    simulator.fault("claude", status=401)
    workers.start(1, "threads", 4)
    task_id = workers.run(
        "from tasks import complete\nprint(complete.delay('clarifier', 'hi').id)"
    ).strip()
    wait_for(lambda: client.hexists("parked", "role.clarifier"), 20, workers.logs)
    change(workers, (CLARIFIER, "clarifier: {chain: [gpt]"))

    assert workers.command("breakwater", "reload").returncode == 0

    wait_for(lambda: client.exists(f"celery-task-meta-{task_id}"), 15, workers.logs)


def test_the_breakers_go_by_the_new_rules(
    workers: Fleet, simulator: Simulator, client: Any
) -> None:
    """What they have counted stays."""
    workers.start(1, "threads", 1)
    change(
        workers,
        ("claude: {", "claude: {breaker: {fail_max: 2, reset_timeout_s: 600}, "),
    )
    assert workers.command("breakwater", "reload").returncode == 0
    simulator.fault("claude", status=503)

    workers.run("from tasks import complete\ncomplete.delay('clarifier', 'hi')")

    wait_for(lambda: client.hget("breaker:{claude}", "state") == "open", 20, workers.logs)
    assert client.hget("breaker:{claude}", "failures") == "2"
    assert client.hget("breaker:{claude}", "open_for_ms") == "600000"


def test_no_worker_is_nothing_to_reload(workers: Fleet) -> None:
    """Exit code 1, and what to do."""
    done = workers.command("breakwater", "reload")

    assert done.returncode == 1
    assert "no worker" in done.stderr
