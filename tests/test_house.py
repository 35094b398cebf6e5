"""The house: imports point down, and only what belongs into a wheel gets there."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import breaker
import tasks

ROOT = Path(__file__).parent.parent
FLOORS = ("breakwater", "breaker", "tasks", "workers")  # each may import itself and those before it


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("floor", [*FLOORS, "simulator"])
def test_imports_point_down(floor: str) -> None:
    """Workers may import tasks, tasks breaker; never the other way; the simulator none of them."""
    below = set(FLOORS[: FLOORS.index(floor) + 1]) if floor in FLOORS else {floor}
    ours = {*FLOORS, "simulator", "tests", "benchmarks"}

    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / floor).rglob("*.py")
        for name in _imports(path) & ours - below
    }

    assert not wrong


@pytest.mark.parametrize("name", ["celery", "anthropic", "openai", "google", "prompt"])
def test_the_breaker_knows_nothing_of_prompts_or_celery(name: str) -> None:
    """The package is worth having without the rest."""
    assert not [p for p in (ROOT / "breaker").rglob("*.py") if name in _imports(p)]


def test_the_breaker_takes_from_the_client_how_redis_is_reached_alone() -> None:
    """It is worth having without the rest: an address and a prefix come along, no Celery."""
    imported = {
        node.module
        for path in (ROOT / "breaker").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("breakwater")
    }

    assert imported <= {
        "breakwater.redis.address",
        "breakwater.redis.prefix",
        "breakwater.redis.process_name",
        "breakwater.redis.script_arguments",
        "breakwater.redis.text",
    }


def test_every_package_of_ours_is_in_the_wheel() -> None:
    """The list is written by hand, so that nothing slips in; nothing may be missing either."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]

    there = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for package in (*FLOORS, "simulator")
        for path in (ROOT / package).rglob("__init__.py")
    }

    # The pages, which `breakwater docs` prints, are a folder without modules.
    assert set(listed) - {"workers.docs"} == there


def test_a_producer_imports_neither_an_sdk_nor_the_http_stack() -> None:
    """What it takes to enqueue costs little more than Celery itself; `import tasks` nothing."""
    code = """
import sys, tasks
print([m for m in sys.modules if m in {"celery", "redis", "kombu"}])
try:
    tasks.complete.delay("coder", "hi")
except sys.modules["breakwater.errors"].QueueUnavailable:
    print([m for m in sys.modules if '.' not in m])
"""

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT,
        env={"REDIS_URL": "redis://127.0.0.1:1/0", "PATH": ""},
    )  # fmt: skip

    at_import, loaded = done.stdout.splitlines()
    assert at_import == "[]"
    assert "'celery'" in loaded
    sdks = ("anthropic", "openai", "google", "httpx2")
    heavies = ("pydantic", "jsonschema_rs", "structlog", "rich", "pybreaker")
    for heavy in (*sdks, *heavies):
        assert f"'{heavy}'" not in loaded


@pytest.mark.parametrize("package", [breaker, tasks])
def test_what_a_package_offers_is_imported_when_it_is_asked_for(package: ModuleType) -> None:
    """All of it is there, and a misspelt name is an error that names it."""
    assert all(getattr(package, name) for name in package.__all__)
    assert set(package._WHERE) == set(package.__all__)

    with pytest.raises(AttributeError, match="has no attribute 'complet'"):
        _ = package.complet


def test_no_word_of_one_machine_stands_in_the_repository() -> None:
    """Paths of somebody's home or of a build machine belong to nobody else."""
    files = subprocess.run(
        ["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=False
    ).stdout.split()

    for name in files:
        text = (ROOT / name).read_text(errors="replace") if (ROOT / name).is_file() else ""
        assert "/" + "root/" not in text, name
