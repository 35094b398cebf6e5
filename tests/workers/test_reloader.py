"""What counts as a change of the roles file, look by look."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
import structlog
from celery.exceptions import Ignore
from structlog.testing import LogCapture

from tasks.answering import runtime
from tasks.answering.execution import TaskExecution
from tasks.answering.settings_loader import load_settings
from tasks.delivery.worker_transport import TAKEN_FROM
from workers import reload
from workers.reload import Reloader

ROLES = """
providers:
  local: {{adapter: openai-chat, model: qwen3, base_url: "http://127.0.0.1:1/v1", api_key: none}}
roles:
  coder: {{chain: [local], deadline_s: {deadline_s}}}
"""


class Idle:
    """Celery's consumer, which does what it is asked to when it comes to it: not here."""

    task_consumer = None

    def call_soon(self, step: Any) -> None:
        pass


@pytest.fixture
def roles(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A roles file, and a runtime over it."""
    path = tmp_path / "roles.yaml"
    path.write_text(ROLES.format(deadline_s=1))
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("ROLES_FILE", str(path))
    runtime.use_settings(load_settings())
    yield path
    runtime.close()
    monkeypatch.setattr(runtime, "_settings", None)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> LogCapture:
    capture = LogCapture()
    monkeypatch.setattr(reload, "_log", structlog.wrap_logger(None, processors=[capture]))
    return capture


@pytest.fixture
def reloader(roles: Path) -> Reloader:
    return Reloader(Idle())


def deadline_s() -> float:
    return runtime.runtime().settings.role("coder").deadline_s


def told(log: LogCapture) -> list[str]:
    return [entry["event"] for entry in log.entries]


def test_a_change_counts_when_two_looks_find_the_same(
    reloader: Reloader, roles: Path, log: LogCapture
) -> None:
    """What is still being written is good YAML with fewer roles, often enough."""
    seen = []

    for deadline in (2, 3, 3, 3):
        roles.write_text(ROLES.format(deadline_s=deadline))
        reloader.check_file()
        seen.append(deadline_s())

    assert seen == [1, 1, 3, 3]
    assert told(log) == ["roles.reloaded"]


def test_a_bad_file_is_told_of_once_and_again_when_it_comes_back(
    reloader: Reloader, roles: Path, log: LogCapture
) -> None:
    """Not every two seconds; but who breaks it a second time is told a second time."""
    good, bad = roles.read_text(), ROLES.format(deadline_s=-1)

    for text in (bad, bad, bad, good, good, bad, bad, bad):
        roles.write_text(text)
        reloader.check_file()

    assert told(log) == ["roles.refused"] * 2
    assert "deadline_s" in log.entries[0]["faults"][0]
    assert deadline_s() == 1


def test_a_gap_while_an_editor_replaces_the_file_is_none(
    reloader: Reloader, roles: Path, log: LogCapture
) -> None:
    """Only a file that stays away is worth a word, one."""
    text = roles.read_text()
    reloader.check_file()

    roles.unlink()
    reloader.check_file()
    roles.write_text(text)
    reloader.check_file()
    gap = told(log)
    roles.unlink()
    for _ in range(4):
        reloader.check_file()

    assert gap == []
    assert told(log) == ["roles.refused"]
    assert deadline_s() == 1


def test_told_to_it_does_not_wait_for_a_second_look(reloader: Reloader, roles: Path) -> None:
    """Whoever types `breakwater reload` has finished writing."""
    before = runtime.runtime().settings.version
    roles.write_text(ROLES.format(deadline_s=2))

    answer = reloader.reload()

    after = runtime.runtime().settings.version
    assert answer == {"before": before, "after": after, "faults": []}
    assert before != after
    assert deadline_s() == 2


def test_a_removed_role_is_remembered_until_it_is_back(reloader: Reloader, roles: Path) -> None:
    """So that what was enqueued for it can be told from a mistake."""
    roles.write_text(ROLES.format(deadline_s=1).replace("coder", "writer"))
    reloader.reload()
    removed = runtime.runtime().settings.removed
    roles.write_text(ROLES.format(deadline_s=1))
    reloader.reload()

    assert removed == {"coder"}
    assert runtime.runtime().settings.removed == {"writer"}


def test_what_was_taken_just_before_its_role_was_removed_goes_back(
    reloader: Reloader, roles: Path, redis_url: str
) -> None:
    """Out of sight until its queue is left alone; it is no mistake of whoever enqueued it."""
    client: Any = redis.Redis.from_url(redis_url)
    client.lpush("role.coder", "message")
    ((tag, _, _),) = runtime.runtime().keeper.store.take(["role.coder"], 1, "w.1")
    properties = {"delivery_tag": tag, TAKEN_FROM: "role.coder"}
    request = SimpleNamespace(
        id="t", properties=properties, is_eager=False, headers={}, args=("coder", "hi"), kwargs={}
    )
    roles.write_text(ROLES.format(deadline_s=1).replace("coder", "writer"))
    reloader.reload()

    hand = TaskExecution.of(SimpleNamespace(request=request), runtime.runtime())
    assert hand
    with pytest.raises(Ignore):
        hand.answer(("coder", "hi"), {})

    assert client.zcard("delayed") == 1
    assert client.hgetall("delayed:queues") == {b"role.coder": b"1"}
    assert not client.exists("taken", "dead", "celery-task-meta-t")


def _renamed(path: Path, content: str) -> None:
    """As vim and most editors do."""
    swap = path.with_suffix(".swp")
    swap.write_text(content)
    swap.replace(path)


def _renamed_away(path: Path, content: str) -> None:
    """As those do that keep a backup."""
    path.rename(path.with_suffix(".yaml~"))
    path.write_text(content)


def _swapped(path: Path, content: str) -> None:
    """As the kubelet does with a ConfigMap: the file is a link by way of another, which is swapped."""
    there = path.parent / f"..{len(content)}.{path.stat().st_ino}"
    there.mkdir()
    (there / path.name).write_text(content)
    link = path.parent / "..data_tmp"
    link.symlink_to(there.name)
    link.replace(path.parent / "..data")
    if not path.is_symlink():
        path.unlink()
        path.symlink_to(f"..data/{path.name}")


@pytest.mark.parametrize("write", [_renamed, _renamed_away, _swapped])
def test_a_file_that_is_replaced_is_seen(reloader: Reloader, roles: Path, write: Any) -> None:
    """However an editor, or Kubernetes, puts another in its place."""
    seen = []

    for deadline in (2, 3):
        write(roles, ROLES.format(deadline_s=deadline))
        reloader.check_file()
        reloader.check_file()
        seen.append(deadline_s())

    assert seen == [2, 3]
