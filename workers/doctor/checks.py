"""`breakwater doctor`: all that is wrong with a set-up, each with what to do next."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import redis
from redis.exceptions import NoPermissionError, RedisError
from sqlalchemy.exc import SQLAlchemyError

import breaker
import breakwater
import tasks
import workers
from breakwater.errors import (
    AuthenticationFailed,
    BreakwaterError,
    ConfigError,
    HostFault,
    ModelNotFound,
)
from breakwater.messaging.names import COMMON_QUEUE, queue_of
from breakwater.redis import encryption
from breakwater.redis.connection import address, client
from breakwater.redis.foreign_keys import STEP, foreign, named
from tasks.answering.settings_loader import load_settings
from tasks.config import Settings
from tasks.ledger import database
from tasks.ledger.redis_queue import LEDGER
from tasks.operations.fleet import Fleet, FleetSnapshot
from tasks.providers.registry import Registry, preload
from workers.doctor.finding import Finding
from workers.doctor.other_programs import other_fleets, others_on
from workers.doctor.redis import REDIS_TIMEOUT_S, of_server, rights, room_for, sentinels
from workers.doctor.workers import of_host, of_workers

KEY_TIMEOUT_S = 10.0
UNDRAINED_S = 60
"""A row is drained within seconds while any worker reaches the database."""
CELERYS_OWN = (
    "CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL",
    "CELERY_RESULT_BACKEND",
)  # fmt: skip
WHERE = """
import importlib.util, json, sys
found = {name: importlib.util.find_spec(name) for name in sys.argv[1:]}
print(json.dumps({name: spec and spec.origin for name, spec in found.items()}))
"""


def examine(*, offline: bool = False) -> list[Finding]:
    """
    Look at everything; never stop at the first fault.

    Args:
        offline: Look at the roles file and the environment alone: no provider, no Redis.
    """
    try:
        settings, found = load_settings(), []
    except ConfigError as error:
        settings = None
        found = [
            Finding("fault", "config", fault, "docs/roles-file.md explains every key")
            for fault in error.details.get("faults", [str(error)])
        ]
    if settings:
        found = [*_config(settings), *_left_out(settings)]
    if offline:
        return [*found, *_encryption(), *_environment()]
    if settings:
        found += _keys(settings)
    return [
        *found,
        *_redis(settings),
        *_encryption(),
        *_environment(),
        *of_host(settings),
        *_packages(),
    ]


def _config(settings: Settings) -> Iterator[Finding]:
    roles = "any role" if settings.serves_any_role else _number(len(settings.roles), "role")
    providers = _number(len(settings.providers), "provider")
    yield Finding("ok", "config", f"{settings.source}: {providers}, {roles}")


def _number(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _left_out(settings: Settings) -> Iterator[Finding]:
    """Name the optional providers that no chain has here, and why."""
    for name, unset in settings.left_out.items():
        unset_is = f"{' and '.join(unset)} {'is' if len(unset) == 1 else 'are'} not set"
        yield Finding(
            "ok",
            f"provider {name}",
            f"left out of every chain: it is optional, and {unset_is}",
            "to use it, set that and restart the workers; a reload does not read the environment",
        )


def _keys(settings: Settings) -> Iterator[Finding]:
    """Ask every provider at once for what costs nothing."""
    # No breaker takes part in a check, and this client connects only when it is used.
    registry = Registry(settings)
    preload(settings)  # else the SDKs' imports, all at once, count as the providers' time
    for name, result in registry.check_all(KEY_TIMEOUT_S).items():
        about = f"provider {name}"
        match result:
            case AuthenticationFailed():
                step = f"set a valid api_key for {name}"
            case ModelNotFound():
                step = f"correct the model of {name}"
            case HostFault():
                step = "correct this host's setting; its tasks go on to their next targets"
            case BreakwaterError():
                step = f"is {name}'s base_url right, and can this host reach it?"
            case _:
                yield Finding("ok", about, result)
                yield from _models(registry, name)
                continue
        yield Finding("fault", about, f"{type(result).__name__}: {result}", step)
    registry.close()


def _models(registry: Registry, name: str) -> Iterator[Finding]:
    """Name each model of a chain that the provider does not list."""
    for model, (roles, hint) in registry.unlisted(name).items():
        what = f"{name} does not list it; {', '.join(roles)} would ask for it{hint}"
        step = f"correct it in {registry.settings.source}, unless it is an alias"
        yield Finding("warning", f"model {name}/{model}", what, step)


def _redis(settings: Settings | None) -> Iterator[Finding]:
    try:
        where = address()
    except ConfigError as error:
        for fault in error.details["faults"]:
            yield Finding("fault", "redis", fault, "docs/redis.md shows every form")
        return
    yield from sentinels(where)
    server = client(connect_s=REDIS_TIMEOUT_S, answer_s=REDIS_TIMEOUT_S)
    try:
        server.ping()
        yield from rights(server, where.db)  # first: without them the others cannot look
        yield from _foreign(server, settings)
        yield from other_fleets(server, settings)
        yield from others_on(server)
        info = server.info()
        yield from of_server(server, info, where)
        yield from _orphans(server, settings)
        view = Fleet(server).snapshot()
        yield from room_for(view.workers, info)
        yield from _fleet(view, settings)
        yield from of_workers(view.workers, settings)
        yield from _ledger(server, view)
    except NoPermissionError:
        what, step = "this user may not look at the server", "allow it +info, +time, +scan, +llen"
        yield Finding("warning", "redis", what, step)
    except RedisError as error:
        yield Finding("fault", "redis", *named(error))
    finally:
        server.close()


def _foreign(client: redis.Redis, settings: Settings | None) -> Iterator[Finding]:
    """Name each key of ours that another program has taken."""
    queues = [COMMON_QUEUE, *map(queue_of, settings.roles if settings else ())]
    for each in foreign(client, queues):
        yield Finding(
            "fault", f"key {each.key}", f"it is a {each.type}, ours is a {each.ours}", STEP
        )


def _orphans(client: redis.Redis, settings: Settings | None) -> Iterator[Finding]:
    """Name each role's queue that holds prompts although no worker with these roles consumes it."""
    consumed = {queue_of(role) for role in settings.roles} if settings else set()
    waiting: Counter[str] = Counter()
    for key in client.scan_iter(queue_of("*"), count=1000, _type="list"):
        name = key.decode(errors="replace").split("\x06\x16")[0]  # kombu marks priorities so
        waiting[name] += client.llen(key)
    for name, prompts in sorted(waiting.items()):
        if settings and name not in consumed:
            yield Finding(
                "warning",
                f"queue {name}",
                f"{prompts} prompts wait, but {settings.source} has no such role",
                f"add the role again, or drop them: redis-cli DEL {name}",
            )


def _fleet(view: FleetSnapshot, settings: Settings | None) -> Iterator[Finding]:
    """Tell whether the workers route by one roles file, by this one, and what an operator holds."""
    versions = view.versions()
    told = "; ".join(f"{version}: {', '.join(names)}" for version, names in versions.items())
    if len(versions) > 1:
        what = f"workers route by different roles files: {told}"
        yield Finding(
            "warning", "workers", what, "`breakwater reload` tells which refuses, and why"
        )
    elif settings and versions and settings.version not in versions:
        what = f"they route by {told}; {settings.source} here is {settings.version}"
        yield Finding("warning", "workers", what, "`breakwater reload`, if it is their file")
    elif versions:
        yield Finding("ok", "workers", f"{len(view.workers)} route by one roles file, {told}")
    for queue in view.queues:
        if queue.paused:
            what = f"paused by {queue.paused.who}, {queue.depth} prompts wait"
            step = f"`breakwater resume {queue.role or '--all'}`, when it is time"
            yield Finding("warning", f"queue {queue.name}", what, step)


def _ledger(server: redis.Redis, view: FleetSnapshot) -> Iterator[Finding]:
    """Tell whether this host reaches the ledger, and all workers the same one."""
    try:
        yield Finding("ok", "ledger", database.check_connection())
    except ConfigError as fault:
        yield Finding("fault", "ledger", str(fault), "docs/ledger.md shows the forms")
    except SQLAlchemyError as error:
        what = f"it cannot be reached: {type(error).__name__}"
        yield Finding("warning", "ledger", what, "rows wait in Redis meanwhile; correct LEDGER_URL")
    hosts = {worker.name.partition("@")[2] for worker in view.workers}
    if database.is_sqlite() and len(hosts) > 1:
        what = f"a SQLite file is one host's, and workers run on {len(hosts)}: each drains its own"
        yield Finding("warning", "ledger", what, "give all of them one PostgreSQL as LEDGER_URL")
    for entry, _ in cast("list[tuple[bytes, Any]]", server.xrange(LEDGER, count=1)):
        waits_s = view.now_ms // 1000 - int(entry.split(b"-")[0]) // 1000
        if waits_s > UNDRAINED_S:
            what = f"{server.xlen(LEDGER)} rows wait, the oldest for {waits_s} s"
            step = "a worker that reaches the database drains them; or `breakwater ledger drain`"
            yield Finding("warning", "ledger", what, step)


def _encryption() -> Iterator[Finding]:
    try:
        if number := encryption.keys():
            yield Finding("ok", "encryption", f"{number} keys; the first encrypts")
    except ConfigError as fault:
        yield Finding("fault", "encryption", str(fault), "docs/redis.md, `Encryption`")


def _environment() -> Iterator[Finding]:
    """Celery reads variables of its own, and they win over `REDIS_URL`."""
    for name in CELERYS_OWN:
        if os.environ.get(name):
            what = f"{name} is set, and it takes precedence over REDIS_URL"
            yield Finding("warning", "environment", what, f"unset {name}")


def _packages() -> Iterator[Finding]:
    """Name each package of ours that a fresh Python in this directory would not find."""
    ours = {
        m.__name__: Path(str(m.__file__)).resolve() for m in (breaker, breakwater, tasks, workers)
    }
    fresh = subprocess.run(
        [sys.executable, "-c", WHERE, *ours], capture_output=True, text=True, check=True
    )
    for name, origin in json.loads(fresh.stdout).items():
        if not origin or Path(origin).resolve() != ours[name]:
            yield Finding(
                "fault",
                f"package {name}",
                f"hidden by {origin or 'a folder of that name'} in this directory",
                "run workers elsewhere; enqueue with app.send_task('complete', (role, prompt))",
            )
