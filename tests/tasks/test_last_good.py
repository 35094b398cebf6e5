"""A roles file that is half written or missing for a moment fails nobody who has read it once."""

import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from breakwater.config import LAST_GOOD, document, last_good, role_names
from breakwater.config.last_good import REMOVAL_GRACE_S, LastGood
from breakwater.errors import ConfigError, UnknownRole, UnknownWorkflow
from tasks import complete, workflow
from tasks.config import Settings, set_served_roles

GOOD = """
providers:
  local: {adapter: openai-chat, model: m, base_url: "http://127.0.0.1:1/v1", api_key: none}
roles:
  coder: {chain: [local]}
  planner: {chain: [local]}
workflows:
  feature: [{name: only, role: coder, prompt: "{input}"}]
"""
BAD = {
    "empty": "",
    "cut in a mapping": GOOD[: GOOD.index("planner: {") + 12],
    "cut in a string": GOOD[: GOOD.index("http") + 3],
    "cut before the roles": GOOD[: GOOD.index("roles:")],
    "cut behind a role": GOOD[: GOOD.index("  planner")],
    "the word alone": "roles:\n",
    "a tab": "roles:\n\tcoder: {}\n",
    "merge marks": "<<<<<<< HEAD\n" + GOOD,
    "not UTF-8": b"\xff\xfe\x00",
    "zeros": b"\0" * 100,
    "too large": b"#" * 300_000,
    "a role missing": GOOD.replace("  planner: {chain: [local]}\n", ""),
}


class Clock:
    """Moved by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of readings of files; none was made before."""
    clock = Clock()
    monkeypatch.setattr(LAST_GOOD, "_clock", clock)
    monkeypatch.setattr(LAST_GOOD, "_readings", {})
    return clock


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Path:
    """A good roles file."""
    path = tmp_path / "roles.yaml"
    path.write_text(GOOD)
    monkeypatch.setenv("ROLES_FILE", str(path))
    return path


@pytest.fixture
def worker() -> Iterator[Any]:
    """Serve roles as a worker does; `set_served_roles(names, removed)`."""
    yield lambda roles, removed=(): set_served_roles(
        replace(
            Settings({}, dict.fromkeys(roles)),  # type: ignore[arg-type]
            removed=frozenset(removed),
        )
    )
    set_served_roles(None)


def spoil(path: Path, content: str | bytes) -> None:
    path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.mark.parametrize("bad", BAD)
def test_the_last_good_names_stay(file: Path, bad: str) -> None:
    """For as long as the file is bad."""
    role_names()
    workflow("feature")

    spoil(file, BAD[bad])

    assert role_names() == {"coder", "planner"}
    assert workflow("feature")
    file.write_text(GOOD.replace("planner", "reviewer"))
    assert {"coder", "reviewer"} <= (role_names() or set())


def test_a_missing_file_is_as_a_bad_one(file: Path) -> None:
    """An editor removes it before it writes the new one."""
    role_names()
    workflow("feature")

    file.unlink()

    assert role_names() == {"coder", "planner"}
    assert workflow("feature")


def test_a_missing_default_file_is_as_a_bad_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """Without ROLES_FILE too."""
    monkeypatch.chdir(tmp_path)
    assert role_names() is None
    (tmp_path / "roles.yaml").write_text(GOOD)
    assert role_names() == {"coder", "planner"}

    (tmp_path / "roles.yaml").unlink()

    assert role_names() == {"coder", "planner"}


@pytest.mark.parametrize("bad", ["empty", "cut in a mapping", "a tab", "zeros", "too large"])
def test_a_first_reading_of_a_bad_file_is_an_error(file: Path, bad: str) -> None:
    """A process that starts must not guess."""
    spoil(file, BAD[bad])

    with pytest.raises(ConfigError):
        role_names()
    with pytest.raises(ConfigError):
        complete.delay("coder", "hi")


def test_a_bad_file_is_read_once_and_named_once(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not with every prompt; a file of 256 KiB takes a second."""
    role_names()
    spoil(file, BAD["empty"])
    number = itertools.count()
    read = document.keys_of
    monkeypatch.setattr(
        document,
        "keys_of",
        lambda *given: (next(number), read(*given))[1],
    )

    for _ in range(5):
        role_names()

    assert next(number) == 1
    assert caplog.text.count("the last good one stays") == 1
    assert "empty; it needs providers and roles" in caplog.text


def test_a_removed_role_is_known_for_a_minute(file: Path, clock: Clock) -> None:
    """Then it is misspelt again."""
    role_names()
    spoil(file, BAD["a role missing"])

    assert role_names() == {"coder", "planner"}
    clock.now += REMOVAL_GRACE_S - 1
    assert role_names() == {"coder", "planner"}
    clock.now += 2
    assert role_names() == {"coder"}


def test_a_removed_workflow_is_known_for_a_minute(file: Path, clock: Clock) -> None:
    """A file that is cut between two sections is good YAML."""
    workflow("feature")
    spoil(file, GOOD[: GOOD.index("workflows:")])

    assert workflow("feature")
    clock.now += REMOVAL_GRACE_S + 1
    with pytest.raises(UnknownWorkflow):
        workflow("feature")


def test_roles_that_come_are_known_at_once(file: Path) -> None:
    """A change does not wait."""
    role_names()

    file.write_text(GOOD.replace("workflows:", "  reviewer: {chain: [local]}\nworkflows:"))

    assert role_names() == {"coder", "planner", "reviewer"}


@pytest.mark.parametrize("bad", BAD)
def test_an_enqueueing_worker_knows_what_it_serves_whatever_the_file_says(
    file: Path, worker: Any, bad: str
) -> None:
    """Later stages of chains go on, also in a process that has not read the file itself."""
    worker(["coder"], ["planner"])

    spoil(file, BAD[bad])

    assert {"coder", "planner"} <= (role_names() or set())


def test_an_enqueueing_worker_also_knows_what_is_new_in_the_file(file: Path, worker: Any) -> None:
    """Before it has reloaded."""
    worker(["coder"])

    assert role_names() == {"coder", "planner"}


def test_a_producer_enqueues_while_the_file_is_bad(shared: Any, clock: Clock) -> None:
    """And a misspelt role is still an error."""
    complete.delay("coder", "hi")
    path = Path(os.environ["ROLES_FILE"])
    for content in (b"", b"roles:\n", b"\xff"):
        path.write_bytes(content)
        complete.delay("coder", "hi")
        complete.delay_many([("planner", "hi")])
        with pytest.raises(UnknownRole, match="did you mean 'coder'"):
            complete.delay("codr", "hi")
    path.unlink()
    complete.delay("coder", "hi")

    assert (shared.llen("role.coder"), shared.llen("role.planner")) == (5, 3)


def test_readings_of_two_files_are_apart(tmp_path: Path) -> None:
    """And each part of a file has its own."""
    known = LastGood()
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)

    found = [
        known.read(tmp_path / name, part, lambda name=name, part=part: {name + part: 1})
        for name in ("a", "b")
        for part in ("x", "y")
    ]

    assert [list(each or {}) for each in found] == [["ax"], ["ay"], ["bx"], ["by"]]
    assert last_good.stamp(tmp_path / "missing") == ()
