"""
The walls: which part of the product may import which.

A part ("wing") is a package below `breakwater`, `tasks` or `workers`, one of their loose modules,
or the whole of `breaker`. Imports inside functions and for type checkers count like any other.
"""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ("breakwater", "breaker", "tasks", "workers")

# fmt: off
MAY_IMPORT = {
    "breakwater.content": (),
    "breakwater.attempt": ("breakwater.content",),
    "breakwater.errors": ("breakwater.attempt",),
    "breakwater.result": ("breakwater.attempt", "breakwater.content"),
    "breakwater.executors": ("breakwater.errors",),
    "breakwater.redis": ("breakwater.errors",),
    "breakwater.calls": ("breakwater.content", "breakwater.errors", "breakwater.result"),
    "breakwater.roles": ("breakwater.errors", "breakwater.redis"),
    "breakwater.config": ("breakwater.calls", "breakwater.errors"),
    "breakwater.messaging": (
        "breakwater.calls", "breakwater.config", "breakwater.content", "breakwater.errors",
        "breakwater.redis",
    ),
    "breakwater.celery_app": ("breakwater.calls", "breakwater.errors", "breakwater.messaging"),
    "breakwater.enqueueing": (
        "breakwater.calls", "breakwater.celery_app", "breakwater.config", "breakwater.content",
        "breakwater.errors", "breakwater.messaging", "breakwater.redis", "breakwater.result",
        "breakwater.roles",
    ),
    "breakwater.completion": (
        "breakwater.calls", "breakwater.celery_app", "breakwater.enqueueing", "breakwater.errors",
        "breakwater.executors", "breakwater.messaging", "breakwater.redis", "breakwater.result",
    ),
    "breakwater.workflows": (
        "breakwater.attempt", "breakwater.calls", "breakwater.celery_app", "breakwater.config",
        "breakwater.content", "breakwater.enqueueing", "breakwater.errors", "breakwater.executors",
        "breakwater.messaging", "breakwater.redis", "breakwater.result",
    ),
    "breakwater.asking": (
        "breakwater.celery_app", "breakwater.completion", "breakwater.content",
        "breakwater.enqueueing", "breakwater.errors", "breakwater.redis", "breakwater.result",
    ),
    "breakwater": (
        "breakwater.asking", "breakwater.completion", "breakwater.enqueueing", "breakwater.errors",
        "breakwater.result", "breakwater.workflows",
    ),
    "breakwater.langchain": (
        "breakwater.asking", "breakwater.attempt", "breakwater.calls", "breakwater.content",
        "breakwater.errors", "breakwater.result",
    ),
    "breaker": ("breakwater.redis",),
    "tasks.moved": (),
    "tasks.errors": ("breakwater.errors",),
    "tasks.spool_file": ("breakwater.redis",),
    "tasks.catalogue": ("breakwater.calls",),
    "tasks.config": (
        "breakwater.calls", "breakwater.config", "breakwater.errors", "tasks.catalogue",
    ),
    "tasks.providers": (
        "breakwater.attempt", "breakwater.calls", "breakwater.content", "breakwater.errors",
        "tasks.catalogue", "tasks.config",
    ),
    "tasks.delivery": (
        "breakwater.attempt", "breakwater.celery_app", "breakwater.errors", "breakwater.messaging",
        "breakwater.redis", "tasks.spool_file",
    ),
    "tasks.telemetry": (
        "breaker", "breakwater.attempt", "breakwater.calls", "breakwater.messaging",
        "tasks.catalogue", "tasks.config", "tasks.providers",
    ),
    "tasks.admission": (
        "breaker", "breakwater.attempt", "breakwater.calls", "breakwater.errors",
        "breakwater.messaging", "breakwater.redis", "tasks.config", "tasks.delivery",
        "tasks.telemetry",
    ),
    "tasks.ledger": (
        "breakwater.attempt", "breakwater.errors", "breakwater.messaging", "breakwater.redis",
        "tasks.catalogue", "tasks.config", "tasks.delivery", "tasks.providers",
        "tasks.spool_file", "tasks.telemetry",
    ),
    "tasks.worker_app": ("breakwater.completion",),
    "tasks.workflows": (
        "breakwater.celery_app", "breakwater.completion", "breakwater.errors",
        "breakwater.executors", "breakwater.messaging", "breakwater.redis", "breakwater.result",
        "breakwater.workflows",
    ),
    "tasks.operations": (
        "breaker", "breakwater.attempt", "breakwater.calls", "breakwater.celery_app",
        "breakwater.config", "breakwater.errors", "breakwater.messaging", "breakwater.redis",
        "tasks.delivery", "tasks.ledger",
    ),
    "tasks.streaming": (
        "breaker", "breakwater.asking", "breakwater.calls", "breakwater.content",
        "breakwater.messaging", "breakwater.redis", "tasks.delivery",
    ),
    "tasks": (
        "breakwater.asking", "breakwater.completion", "breakwater.workflows", "tasks.moved",
        "tasks.worker_app",
    ),
    "tasks.answering": (
        "breaker", "breakwater.attempt", "breakwater.calls", "breakwater.completion",
        "breakwater.config", "breakwater.content", "breakwater.errors", "breakwater.executors",
        "breakwater.messaging", "breakwater.redis", "breakwater.result", "breakwater.roles",
        "breakwater.workflows", "tasks.admission", "tasks.config", "tasks.delivery", "tasks.ledger",
        "tasks.providers", "tasks.streaming", "tasks.telemetry",
    ),
    "workers.terminal": ("breakwater.errors", "breakwater.redis"),
    "workers.log": ("tasks.catalogue", "workers.terminal"),
    "workers.pools": ("breakwater.celery_app",),
    "workers.otel": ("breakwater.errors", "breakwater.messaging", "tasks.telemetry"),
    "workers.commands": (
        "breaker", "breakwater.asking", "breakwater.attempt", "breakwater.config",
        "breakwater.enqueueing", "breakwater.errors", "breakwater.messaging", "breakwater.redis",
        "breakwater.result", "breakwater.workflows", "tasks", "tasks.ledger", "tasks.operations",
        "workers.terminal",
    ),
    "workers.heartbeat": (
        "breakwater.celery_app", "tasks.answering", "tasks.config", "tasks.operations",
        "workers.pools",
    ),
    "workers.metrics": (
        "breakwater.attempt", "breakwater.errors", "breakwater.messaging", "breakwater.redis",
        "tasks.answering", "tasks.config", "tasks.operations", "tasks.telemetry",
    ),
    "workers.reload": (
        "breakwater.celery_app", "breakwater.config", "breakwater.errors", "breakwater.messaging",
        "tasks.answering", "tasks.config", "tasks.operations", "tasks.providers",
    ),
    "workers.shutdown": ("tasks.answering", "tasks.providers", "workers.heartbeat"),
    "workers.lifecycle": (
        "breakwater.celery_app", "breakwater.errors", "breakwater.messaging", "breakwater.redis",
        "tasks.answering", "tasks.config", "tasks.delivery", "tasks.ledger", "tasks.operations",
        "tasks.providers", "workers.log", "workers.metrics", "workers.otel", "workers.pools",
        "workers.reload", "workers.shutdown", "workers.terminal",
    ),
    "workers": ("tasks", "workers.lifecycle"),
    "workers.doctor": (
        "breaker", "breakwater", "breakwater.errors", "breakwater.messaging", "breakwater.redis",
        "breakwater.roles", "tasks", "tasks.answering", "tasks.config", "tasks.ledger",
        "tasks.operations", "tasks.providers", "tasks.spool_file", "workers", "workers.shutdown",
        "workers.terminal",
    ),
    "workers.demo": (
        "breaker", "breakwater.messaging", "breakwater.redis", "breakwater.result", "tasks",
        "tasks.answering", "tasks.config", "workers.doctor", "workers.terminal",
    ),
    "workers.cli": (
        "breakwater.errors", "breakwater.messaging", "breakwater.redis", "workers.commands",
        "workers.demo", "workers.doctor", "workers.terminal",
    ),
}
# fmt: on
"""
Every import between two wings, the lowest first on each floor.

A new import is a decision: add it here, or find a better place. `breakwater` and `tasks` alone
are the two `__init__.py`, which load the public names on first use.
"""


def wing_of(module: str) -> str:
    """Return the wing of a module: `tasks.providers.http.host` -> `tasks.providers`."""
    floor, *rest = module.split(".")
    if floor == "breaker" or not rest:
        return floor
    return f"{floor}.{rest[0]}"


def modules() -> dict[str, Path]:
    """Return the files of the product by module name."""
    files = {}
    for floor in FLOORS:
        for path in (ROOT / floor).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            files[".".join(parts).removesuffix(".__init__")] = path
    return files


def imports_of(path: Path, files: dict[str, Path]) -> Iterator[str]:
    """Yield the modules of the product that a file imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in files)
        elif isinstance(node, ast.ImportFrom) and node.module in files:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in files else node.module


def arrows(files: dict[str, Path]) -> dict[tuple[str, str], set[str]]:
    """Return each pair of wings of which the first imports the second, with the modules that do."""
    importers: dict[tuple[str, str], set[str]] = {}
    for module, path in files.items():
        for imported in imports_of(path, files):
            pair = wing_of(module), wing_of(imported)
            if pair[0] != pair[1]:
                importers.setdefault(pair, set()).add(module)
    return importers


def forbidden(files: dict[str, Path]) -> list[str]:
    """Return a line for each import that the table does not allow."""
    return sorted(
        f"{', '.join(sorted(importers))}: {wing} must not import {imported}"
        for (wing, imported), importers in arrows(files).items()
        if imported not in MAY_IMPORT.get(wing, ())
    )


def test_every_import_between_wings_is_allowed() -> None:
    """The message names the module, and both wings."""
    assert forbidden(modules()) == []


def test_the_table_has_no_circle() -> None:
    """`graphlib` raises CycleError with the circle's wings."""
    assert list(TopologicalSorter(MAY_IMPORT).static_order())


def test_the_table_allows_nothing_that_is_not_used() -> None:
    """An arrow that nobody needs any more is taken out, so that it cannot come back unseen."""
    allowed = {(wing, other) for wing, others in MAY_IMPORT.items() for other in others}

    assert allowed == set(arrows(modules()))


def test_no_wing_imports_one_of_a_higher_floor() -> None:
    """The client never imports the worker, whatever the table says."""
    for importer, imported in arrows(modules()):
        floors = [FLOORS.index(wing.split(".")[0]) for wing in (importer, imported)]
        assert floors == sorted(floors, reverse=True), f"{importer} imports {imported}"


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("tasks.providers.base", "from tasks.ledger import prices"),
        ("tasks.delivery.lease", "import tasks.answering.execution"),
        ("breakwater.calls.media", "def late() -> None:\n    from tasks.config import Role"),
        ("breaker.state", "from breakwater import celery_app"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, module: str, line: str) -> None:
    """From a name, as a plain import, inside a function, and between floors."""
    files = modules()
    changed = tmp_path / "changed.py"
    changed.write_text(f"{files[module].read_text()}\n{line}\n")

    problems = forbidden({**files, module: changed})

    assert len(problems) == 1
    assert problems[0].startswith(f"{module}: {wing_of(module)} must not import ")
