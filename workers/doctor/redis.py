"""What `breakwater doctor` finds at Redis: rights, settings, limits, the clock."""

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import redis
from redis.exceptions import RedisError

from breakwater.messaging.names import COMMON_QUEUE
from breakwater.redis.address import Address
from breakwater.redis.connection import explain
from tasks.operations.fleet import Worker
from workers.doctor.finding import Finding
from workers.doctor.workers import connections

REDIS_TIMEOUT_S = 5.0
SKEW_S = 1.0
"""Deadlines are told in the producer's time and kept in the worker's."""
OLDEST_REDIS = (6, 2)
NEARLY_FULL = 0.8
LOOPBACK = {"127.0.0.1", "::1", "localhost"}
KERNEL = Path("/")
"""Where its settings are found, if Redis is on this host."""
NEEDED = (
    ("lpush", COMMON_QUEUE, "x"), ("rpush", "role.x", "x"), ("brpop", "bell:x", "1"),
    ("hset", "taken", "x", "x"), ("zadd", "taken:until", "1", "x"), ("hset", "begun", "x", "x"),
    ("hset", "task:x", "x", "x"), ("set", "asked:x", "x"),
    ("zadd", "delayed", "1", "x"), ("hset", "parked", "x", "x"),
    ("hset", "delayed:messages", "x", "x"), ("xadd", "parked:events", "*", "x", "x"),
    ("xadd", "dead", "*", "x", "x"), ("hset", "dead:messages", "x", "x"),
    ("hsetnx", "paused", "x", "x"), ("hset", "roles", "x", "x"), ("zadd", "foreign:x", "1", "x"),
    ("hset", "workers", "x", "x"),
    ("zadd", "workers:until", "1", "x"), ("hsetnx", "draining", "x", "x"), ("sadd", "queues", "x"),
    ("xadd", "operations", "*", "x", "x"), ("hincrby", "delayed:queues", "x", "1"),
    ("lindex", "role.x", "1"), ("hincrby", "delivery", "x", "1"),
    ("hset", "delivery:clock", "x", "x"),
    ("xadd", "ledger", "*", "x", "x"), ("xdel", "ledger", "0-1"), ("set", "ledger:drainer", "x"),
    ("xadd", "stream:x", "*", "x", "x"), ("xtrim", "stream:x", "maxlen", "0"),
    ("xread", "streams", "stream:x", "0"),
    ("set", "cache:x", "x"), ("set", "flight:x", "x"), ("zadd", "flights", "1", "x"),
    ("set", "celery-task-meta-x", "x"), ("sadd", "_kombu.binding.x", "x"),
    ("hset", "breaker:{x}", "x", "x"), ("xadd", "breaker:{x}:events", "*", "x", "x"),
    ("sadd", "breakers", "x"), ("multi",), ("evalsha", "x", "0"),
    ("publish", "/{db}.celery.pidbox", "x"), ("subscribe", "celery-task-meta-x"),
    ("publish", "breaker:changes", "x"), ("subscribe", "breaker:changes"),
)  # fmt: skip
"""A command for each key and each channel."""
MAY = """
local refused = {}
for _, words in ipairs(ARGV) do
  local command = {}
  for word in string.gmatch(words, '%S+') do command[#command + 1] = word end
  if not redis.acl_check_cmd(unpack(command)) then refused[#refused + 1] = words end
end
return refused
"""


def sentinels(where: Address) -> Iterator[Finding]:
    """Ask each: a failover needs most of them, and producers any."""
    for host, port in where.sentinels:
        about, name = f"sentinel {host}:{port}", where.master
        try:
            with where.sentinel(host, port, REDIS_TIMEOUT_S) as asked:
                master = asked.sentinel_masters().get(name)
        except RedisError as error:
            yield Finding("warning", about, *explain(error))
            continue
        if not master:
            yield Finding("fault", about, f"it knows no master {name!r}", "correct ?master=")
        else:
            others = f"{master['num-slaves']} replicas, {master['num-other-sentinels']} others"
            yield Finding("ok", about, f"{name} is {master['ip']}:{master['port']}; {others}")


def rights(server: redis.Redis, db: int) -> Iterator[Finding]:
    """Ask the ACL about one command of each kind; servers before 7.0 cannot be asked."""
    with suppress(RedisError):
        commands = [" ".join(each).replace("{db}", str(db)) for each in NEEDED]
        refused = cast("list[bytes]", server.eval(MAY, 0, *commands))
        if refused:
            what = f"this user may not {', '.join(each.decode() for each in refused)}"
            yield Finding("fault", "acl", what, "give the user the rules of docs/redis.md")


def of_server(server: redis.Redis, info: dict[str, Any], where: Address) -> Iterator[Finding]:
    """Look at what the server is, and at its settings."""
    yield _version(info)
    yield from _role(info)
    yield _persistence(server, info)
    yield from _eviction(info)
    yield from _full(info)
    yield from _hangs_up(server)
    if where.shown.startswith("unix") or where.options.get("host") in LOOPBACK:
        yield from of_kernel(KERNEL)
    yield _clock(server)


def _role(info: dict[str, Any]) -> Iterator[Finding]:
    if info.get("role") == "slave":
        what = "this is a replica: it takes no prompts"
        yield Finding("fault", "redis", what, explain(redis.ReadOnlyError())[1])
    if info.get("cluster_enabled"):
        what = "this is a Redis Cluster: breakers work on it, the queues do not"
        step = "use one server with replicas and Sentinels; docs/redis.md says why"
        yield Finding("fault", "cluster", what, step)


def _version(info: dict[str, Any]) -> Finding:
    compatible = info["redis_version"]
    name = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {compatible}"
    if tuple(int(part) for part in compatible.split(".")[:2]) < OLDEST_REDIS:
        return Finding("fault", "redis", f"{name} is too old", "6.2 or newer is needed")
    return Finding("ok", "redis", name)


def _persistence(client: redis.Redis, info: dict[str, Any]) -> Finding:
    about, step = "persistence", "redis-cli config set appendonly yes, and in its redis.conf"
    if info.get("aof_enabled"):
        if _told(client, "appendfsync") == "no":
            what = "an append-only file that is written when the system likes: it may lose 30 s"
            return Finding("warning", about, what, "redis-cli config set appendfsync everysec")
        return Finding("ok", about, "append-only file")
    try:
        snapshots = bool(cast("dict[str, str]", client.config_get("save")).get("save"))
    except RedisError:  # managed servers do not tell
        return Finding("warning", about, "no append-only file: a crash may lose prompts", step)
    if snapshots:
        what = "snapshots alone: a crash loses the prompts since the last one"
        return Finding("warning", about, what, step)
    return Finding("warning", about, "none: a restart loses every waiting prompt", step)


def _eviction(info: dict[str, Any]) -> Iterator[Finding]:
    if (policy := info.get("maxmemory_policy", "noeviction")) != "noeviction":
        what = f"maxmemory-policy is {policy}: prompts and breakers may be evicted"
        yield Finding(
            "warning", "eviction", what, "redis-cli config set maxmemory-policy noeviction"
        )


def _full(info: dict[str, Any]) -> Iterator[Finding]:
    used, most = info.get("used_memory", 0), info.get("maxmemory", 0)
    if most and used > NEARLY_FULL * most:
        what = f"{used / most:.0%} of maxmemory is used; a full server takes no prompts"
        yield Finding("warning", "memory", what, "give it more, or more workers; docs/scale.md")


def _hangs_up(server: redis.Redis) -> Iterator[Finding]:
    """Ask for `timeout`: a connection that was closed for being idle is an outage of a second."""
    seconds = _told(server, "timeout")
    if seconds not in {"", "0"}:
        what = f"it closes connections that were idle for {seconds} s, which workers take for away"
        yield Finding("warning", "connections", what, "redis-cli config set timeout 0")


def _told(server: redis.Redis, name: str) -> str:
    """Read one setting; empty where managed servers do not tell."""
    try:
        found = cast("dict[Any, Any]", server.config_get(name))
    except RedisError:
        return ""
    return str(found.get(name, ""))


def of_kernel(root: Path) -> Iterator[Finding]:
    """
    Look at what Redis asks of its host's kernel.

    Args:
        root: Where /proc and /sys are.

    Source: redis.io/docs/latest/operate/oss_and_stack/management/admin.
    """
    with suppress(OSError):
        if (root / "proc/sys/vm/overcommit_memory").read_text().strip() == "0":
            what = "vm.overcommit_memory is 0: with half of the memory used, Redis cannot save"
            yield Finding("warning", "kernel", what, "sysctl vm.overcommit_memory=1")
    with suppress(OSError):
        huge = root / "sys/kernel/mm/transparent_hugepage/enabled"
        if "[always]" in huge.read_text():
            what = "transparent huge pages: each save makes Redis slow, and larger"
            yield Finding("warning", "kernel", what, f"echo madvise > {huge}")


def room_for(workers: Sequence[Worker], info: dict[str, Any]) -> Iterator[Finding]:
    """Compare `maxclients` with what these workers may open."""
    most, needed = info.get("maxclients", 0), connections(workers)
    if most and needed > most:
        what = f"maxclients is {most}, and {len(workers)} workers may open {needed} connections"
        yield Finding(
            "warning", "connections", what, f"redis-cli config set maxclients {needed * 2}"
        )


def _clock(client: redis.Redis) -> Finding:
    before = time.time()
    seconds, micros = client.time()
    after = time.time()
    theirs = seconds + micros / 1e6
    skew_s = max(before - theirs, theirs - after, 0.0)
    if skew_s > SKEW_S:
        what = f"this host's and Redis' differ by {skew_s:.1f} s: so do absolute times given here"
        return Finding("warning", "clock", what, "run NTP on both")
    return Finding("ok", "clock", "this host's and Redis' agree")
