"""Check Redis for `breakwater doctor`: rights, settings, limits and the clock."""

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias, cast

import redis
from redis.exceptions import RedisError

from breakwater.messaging.names import COMMON_QUEUE
from breakwater.redis.address import Address
from breakwater.redis.connection import explain
from tasks.operations.fleet import Worker
from workers.doctor.finding import Finding, fault, ok, warning
from workers.doctor.workers import max_connections

REDIS_TIMEOUT_S = 5.0
MAX_SKEW_S = 1.0
"""Producers set deadlines by their clock, and workers keep them by theirs."""
OLDEST_REDIS = (6, 2)
NEARLY_FULL = 0.8
"""The share of maxmemory."""
LOOPBACK = {"127.0.0.1", "::1", "localhost"}
ROOT = Path("/")
"""The folder of /proc and /sys, if Redis is on this host."""
NEEDED_COMMANDS = (
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
"""One command for each key and each channel."""
REFUSED_COMMANDS = """
local refused = {}
for _, words in ipairs(ARGV) do
  local command = {}
  for word in string.gmatch(words, '%S+') do command[#command + 1] = word end
  if not redis.acl_check_cmd(unpack(command)) then refused[#refused + 1] = words end
end
return refused
"""
"""Returns those of the commands that the ACL refuses to this user."""

ServerInfo: TypeAlias = dict[str, Any]  # redis-py's; the keys depend on the server's version


def check_sentinels(where: Address) -> Iterator[Finding]:
    """Check each Sentinel: a failover needs most of them, and a producer needs one."""
    for host, port in where.sentinels:
        about, name = f"sentinel {host}:{port}", where.master
        try:
            with where.sentinel(host, port, REDIS_TIMEOUT_S) as sentinel:
                master = sentinel.sentinel_masters().get(name)
        except RedisError as error:
            yield warning(about, *explain(error))
            continue
        if not master:
            yield fault(about, f"it has no master {name!r}", "correct ?master=")
        else:
            others = f"{master['num-slaves']} replicas, {master['num-other-sentinels']} others"
            yield ok(about, f"{name} is {master['ip']}:{master['port']}; {others}")


def check_rights(server: redis.Redis, db: int) -> Iterator[Finding]:
    """Check one command of each kind against the ACL; servers before 7.0 cannot answer this."""
    with suppress(RedisError):
        commands = [" ".join(each).replace("{db}", str(db)) for each in NEEDED_COMMANDS]
        refused = cast("list[bytes]", server.eval(REFUSED_COMMANDS, 0, *commands))
        if refused:
            message = f"this user may not {', '.join(each.decode() for each in refused)}"
            yield fault(
                "acl", message, "give the user the rules that `breakwater docs redis#users` lists"
            )


def check_server(server: redis.Redis, info: ServerInfo, where: Address) -> Iterator[Finding]:
    """Check the kind of server, and its settings."""
    yield _version(info)
    yield from _role(info)
    yield _persistence(server, info)
    yield from _eviction(info)
    yield from _memory(info)
    yield from _idle_timeout(server)
    if where.shown.startswith("unix") or where.options.get("host") in LOOPBACK:
        yield from check_kernel(ROOT)
    yield _clock(server)


def _role(info: ServerInfo) -> Iterator[Finding]:
    if info.get("role") == "slave":
        message = "this is a replica: it takes no prompts"
        yield fault("redis", message, explain(redis.ReadOnlyError())[1])
    if info.get("cluster_enabled"):
        message = "this is a Redis Cluster: breakers work on it, the queues do not"
        step = "use one server with replicas and Sentinels; see `breakwater docs redis#cluster`"
        yield fault("cluster", message, step)


def _version(info: ServerInfo) -> Finding:
    compatible = info["redis_version"]
    name = f"Redis {compatible}"
    if "valkey_version" in info:
        name = f"Valkey {info['valkey_version']}"
    if tuple(int(part) for part in compatible.split(".")[:2]) < OLDEST_REDIS:
        return fault("redis", f"{name} is too old", "6.2 or newer is needed")
    return ok("redis", name)


def _persistence(server: redis.Redis, info: ServerInfo) -> Finding:
    about, step = "persistence", "redis-cli config set appendonly yes, and in its redis.conf"
    if info.get("aof_enabled"):
        if _setting(server, "appendfsync") == "no":
            message = "the system decides when the append-only file is written: it may lose 30 s"
            return warning(about, message, "redis-cli config set appendfsync everysec")
        return ok(about, "append-only file")
    try:
        has_snapshots = bool(_read_setting(server, "save"))
    except RedisError:  # managed servers refuse this
        return warning(about, "no append-only file: a crash may lose prompts", step)
    if has_snapshots:
        message = "snapshots alone: a crash loses the prompts since the last one"
        return warning(about, message, step)
    return warning(about, "none: a restart loses every waiting prompt", step)


def _eviction(info: ServerInfo) -> Iterator[Finding]:
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        message = f"maxmemory-policy is {policy}: prompts and breakers may be evicted"
        yield warning("eviction", message, "redis-cli config set maxmemory-policy noeviction")


def _memory(info: ServerInfo) -> Iterator[Finding]:
    used, limit = info.get("used_memory", 0), info.get("maxmemory", 0)
    if limit and used > NEARLY_FULL * limit:
        message = f"{used / limit:.0%} of maxmemory is used; a full server takes no prompts"
        yield warning(
            "memory",
            message,
            "give it more memory, or start more workers; see `breakwater docs scale`",
        )


def _idle_timeout(server: redis.Redis) -> Iterator[Finding]:
    """Check `timeout`: a connection that Redis closes for being idle is an outage of a second."""
    seconds = _setting(server, "timeout")
    if seconds not in {"", "0"}:
        message = f"it closes connections after {seconds} idle s; workers take that for an outage"
        yield warning("connections", message, "redis-cli config set timeout 0")


def _setting(server: redis.Redis, name: str) -> str:
    """Read one setting; empty if the server refuses, as managed servers do."""
    try:
        return _read_setting(server, name)
    except RedisError:
        return ""


def _read_setting(server: redis.Redis, name: str) -> str:
    settings = cast("dict[str, object]", server.config_get(name))
    return str(settings.get(name, ""))


def check_kernel(root: Path) -> Iterator[Finding]:
    """
    Check the settings that Redis needs of its host's kernel.

    Args:
        root: The folder of /proc and /sys.

    Source: redis.io/docs/latest/operate/oss_and_stack/management/admin.
    """
    with suppress(OSError):
        if (root / "proc/sys/vm/overcommit_memory").read_text().strip() == "0":
            message = "vm.overcommit_memory is 0: with half of the memory used, Redis cannot save"
            yield warning("kernel", message, "sysctl vm.overcommit_memory=1")
    with suppress(OSError):
        huge = root / "sys/kernel/mm/transparent_hugepage/enabled"
        if "[always]" in huge.read_text():
            message = "transparent huge pages: each save makes Redis slow, and larger"
            yield warning("kernel", message, f"echo madvise > {huge}")


def check_connections(workers: Sequence[Worker], info: ServerInfo) -> Iterator[Finding]:
    """Compare `maxclients` with the connections that these workers may open."""
    limit, needed = info.get("maxclients", 0), max_connections(workers)
    if limit and needed > limit:
        message = f"maxclients is {limit}, and {len(workers)} workers may open {needed} connections"
        yield warning("connections", message, f"redis-cli config set maxclients {needed * 2}")


def _clock(server: redis.Redis) -> Finding:
    before = time.time()
    seconds, micros = server.time()
    after = time.time()
    server_time = seconds + micros / 1e6
    skew_s = max(before - server_time, server_time - after, 0.0)
    if skew_s > MAX_SKEW_S:
        message = (
            f"this host's and Redis' differ by {skew_s:.1f} s: so do deadlines that are set here"
        )
        return warning("clock", message, "run NTP on both")
    return ok("clock", "this host's and Redis' agree")
