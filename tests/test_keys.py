"""Each key in Redis is spelt by one module, so that a key can be renamed or explained in one place."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ("breaker", "breakwater", "tasks", "workers")

OWNERS = {
    "breaker/redis_storage.py": ("breaker:", "breakers"),
    "breaker/changes.py": ("breaker:changes",),
    "breakwater/asking/events.py": ("stream:",),
    "breakwater/messaging/journal.py": ("operations",),
    "breakwater/messaging/names.py": ("celery-task-meta-", "role."),
    "breakwater/messaging/keys.py": (
        "task:", "cache:", "flight:", "bell:", "queues", "workers", "workers:until", "draining",
        "apart:workers", "foreign", "parked:events", "dead", "dead:messages", "delivery", "ledger",
    ),
    "breakwater/roles.py": ("roles",),
    "breakwater/workflows/run_store.py": ("workflow:", "workflows"),
    "tasks/ledger/drain.py": ("ledger:drainer",),
    "workers/metrics/fleet.py": ("workers:seen",),
}  # fmt: skip
"""The keys, or their beginnings, of each module that spells some."""

READERS_OF_ALL = {
    "breakwater/redis/foreign_keys.py": "compares each key's type with the tables of the scripts",
    "breakwater/redis/prefix.py": "refuses a prefix that begins like a key of ours",
    "workers/doctor/redis.py": "asks Redis whether its user may run each command on each key",
}

BEGINNINGS = tuple(
    dict.fromkeys(
        [key for keys in OWNERS.values() for key in keys if ":" in key]
        + ["asked:", "foreign:", "taken:", "delayed:", "parked:", "apart:", "roles:", "delivery:"]
    )
)
WORDS = {key for keys in OWNERS.values() for key in keys if ":" not in key} | {
    "taken", "begun", "delayed", "flights", "apart", "parked", "paused", "foreign",
}  # fmt: skip
COMMANDS = {
    "delete", "exists", "get", "hdel", "hget", "hgetall", "hkeys", "hlen", "hmget", "hset", "hvals",
    "llen", "lpush", "lrange", "pttl", "sadd", "set", "smembers", "type", "xadd", "xlen", "xrange",
    "xread", "xrevrange", "zadd", "zcard", "zrange", "zrem",
}  # fmt: skip


def _beginning(node: ast.expr) -> str:
    """Return the text that a literal begins with."""
    if isinstance(node, ast.JoinedStr) and node.values:
        node = node.values[0]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return ""


def _docstrings(tree: ast.AST) -> set[int]:
    return {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def spelt(text: str) -> Iterator[str]:
    """Yield the keys that a module spells: by their beginning, or as a command's first argument."""
    tree = ast.parse(text)
    skipped = _docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            word = _beginning(node.args[0])
            if node.func.attr in COMMANDS and word in WORDS:
                yield word
        if isinstance(node, ast.Constant | ast.JoinedStr) and id(node) not in skipped:
            key = _beginning(node)
            if key.startswith(BEGINNINGS) and " " not in key:
                yield key


def _files() -> Iterator[str]:
    for floor in FLOORS:
        for path in sorted((ROOT / floor).rglob("*.py")):
            yield str(path.relative_to(ROOT))


def test_a_key_is_spelt_by_its_owner_alone() -> None:
    """All other modules import its name."""
    wrong = [
        f"{file} spells {key!r}; import it from {owner}"
        for file in _files()
        if file not in READERS_OF_ALL
        for key in spelt((ROOT / file).read_text())
        if file not in {name for name, keys in OWNERS.items() if key.startswith(keys)}
        for owner in [
            next((name for name, keys in OWNERS.items() if key.startswith(keys)), "its owner")
        ]
    ]

    assert not wrong


@pytest.mark.parametrize(
    "code", ['client.hgetall("workers")', 'key = f"task:{task_id}"', 'pipe.xlen("dead")']
)
def test_a_key_that_is_spelt_elsewhere_is_found(code: str) -> None:
    """In a command, and in any text that begins like a key."""
    assert list(spelt(code))


def test_each_owner_spells_its_keys() -> None:
    """A key that moved, or is no more, leaves the table."""
    missing = [
        f"{file}: {key}"
        for file, keys in OWNERS.items()
        for key in keys
        if not re.search(rf"""["']{re.escape(key)}""", (ROOT / file).read_text())
    ]

    assert not missing


SCRIPTS = {
    "breaker/scripts": "breaker.lua",
    "breakwater/messaging/scripts": "delivery.lua",
    "breakwater/workflows/scripts": "workflow.lua",
    "tasks/delivery/scripts": "delivery.lua",
}
KEY_TABLE = re.compile(
    r"^-- ([a-z]+(?::[a-z]+)*)[^ ]*(?:, [^ ]+)? +(?:hash|list|set|stream|string|zset) ",
    re.MULTILINE,
)
IN_LUA = re.compile(r"redis\.p?call\('[A-Z]+', '([a-z]+(?::[a-z]+)*):?'")


@pytest.mark.parametrize("folder", SCRIPTS)
def test_a_script_uses_only_keys_of_its_table(folder: str) -> None:
    """The table at the head of the shared file explains each key once."""
    (table,) = ROOT.rglob(f"*/scripts/{SCRIPTS[folder]}")
    known = {key.split(":")[0] for key in KEY_TABLE.findall(table.read_text())}

    used = {
        f"{path.name}: {key}"
        for path in (ROOT / folder).glob("*.lua")
        for key in IN_LUA.findall(path.read_text())
        if key.split(":")[0] not in known and key not in {"breaker:changes", "celery-task-meta"}
    }

    assert not used
