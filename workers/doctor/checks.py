"""`breakwater doctor`: list everything that is wrong with a set-up, each with what to do next."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import cast

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
from breakwater.messaging.keys import LEDGER
from breakwater.messaging.names import COMMON_QUEUE, queue_of
from breakwater.redis import encryption
from breakwater.redis.connection import address, client
from breakwater.redis.foreign_keys import STEP, foreign, named
from tasks.answering.settings_loader import load_settings
from tasks.config import Settings
from tasks.ledger import engine
from tasks.operations.fleet import Fleet, FleetSnapshot
from tasks.providers.registry import Registry, preload
from workers.doctor.finding import Finding, fault, ok, warning
from workers.doctor.other_programs import other_fleets, other_programs
from workers.doctor.redis import (
    REDIS_TIMEOUT_S,
    check_connections,
    check_rights,
    check_sentinels,
    check_server,
)
from workers.doctor.workers import check_host, check_workers
from workers.terminal.figures import number_of

KEY_TIMEOUT_S = 10.0
MAX_DRAIN_S = 60
"""A row is drained within seconds while any worker reaches the database."""
CELERY_VARIABLES = (
    "CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL",
    "CELERY_RESULT_BACKEND",
)  # fmt: skip
"""Variables that Celery itself reads, and prefers to `REDIS_URL`."""
PRIORITY_MARK = "\x06\x16"
"""kombu appends this and the priority to the name of a queue's list."""
FIND_PACKAGES = """
import importlib.util, json, sys
found = {name: importlib.util.find_spec(name) for name in sys.argv[1:]}
print(json.dumps({name: spec and spec.origin for name, spec in found.items()}))
"""


def examine(*, offline: bool = False) -> list[Finding]:
    """
    Check everything; a fault does not stop the checks after it.

    Args:
        offline: Check the roles file and the environment only; call no provider and no Redis.
    """
    settings, findings = _load()
    if settings:
        findings += [*_config(settings), *_left_out(settings)]
    if offline:
        return [*findings, *_encryption(), *_environment()]
    if settings:
        findings += check_keys(settings)
    return [
        *findings,
        *_redis(settings),
        *_encryption(),
        *_environment(),
        *check_host(settings),
        *_packages(),
    ]


def _load() -> tuple[Settings | None, list[Finding]]:
    try:
        return load_settings(), []
    except ConfigError as error:
        faults = error.details.get("faults", [str(error)])
        step = "`breakwater docs roles-file` explains every key"
        return None, [fault("config", each, step) for each in faults]


def _config(settings: Settings) -> Iterator[Finding]:
    roles = number_of(len(settings.roles), "role")
    if settings.serves_any_role:
        roles = "any role"
    providers = number_of(len(settings.providers), "provider")
    yield ok("config", f"{settings.source}: {providers}, {roles}")


def _left_out(settings: Settings) -> Iterator[Finding]:
    """Name the optional providers that every chain leaves out, and the variables they lack."""
    step = "to use it, set that and restart the workers; a reload does not read the environment"
    for name, unset in settings.left_out.items():
        verb = "are"
        if len(unset) == 1:
            verb = "is"
        message = (
            f"left out of every chain: it is optional, and {' and '.join(unset)} {verb} not set"
        )
        yield ok(f"provider {name}", message, step)


def check_keys(settings: Settings) -> Iterator[Finding]:
    """Send every provider, at the same time, a request that costs nothing."""
    registry = Registry(settings)
    preload(settings)  # else the imports of the SDKs, all at once, count as the providers' time
    for name, result in registry.check_all(KEY_TIMEOUT_S).items():
        about = f"provider {name}"
        if isinstance(result, BreakwaterError):
            yield fault(about, f"{type(result).__name__}: {result}", _step_for(name, result))
        else:
            yield ok(about, result)
            yield from _models(registry, name)
    registry.close()


def _step_for(name: str, error: BreakwaterError) -> str:
    match error:
        case AuthenticationFailed():
            return f"set a valid api_key for {name}"
        case ModelNotFound():
            return f"correct the model of {name}"
        case HostFault():
            return "correct this host's setting; its tasks go on to their next targets"
    return f"is {name}'s base_url right, and can this host reach it?"


def _models(registry: Registry, name: str) -> Iterator[Finding]:
    """Name each model of a chain that the provider does not list."""
    for model, (roles, hint) in registry.unlisted(name).items():
        message = f"{name} does not list it; {', '.join(roles)} would call it{hint}"
        step = f"correct it in {registry.settings.source}, unless it is an alias"
        yield warning(f"model {name}/{model}", message, step)


def _redis(settings: Settings | None) -> Iterator[Finding]:
    try:
        where = address()
    except ConfigError as error:
        for each in error.details["faults"]:
            yield fault("redis", each, "`breakwater docs redis#addresses` shows every form")
        return
    yield from check_sentinels(where)
    server = client(connect_s=REDIS_TIMEOUT_S, answer_s=REDIS_TIMEOUT_S)
    try:
        server.ping()
        yield from check_rights(server, where.db)  # first: the other checks need these rights
        yield from _foreign_keys(server, settings)
        yield from other_fleets(server, settings)
        yield from other_programs(server)
        info = server.info()
        yield from check_server(server, info, where)
        yield from _orphaned_queues(server, settings)
        fleet = Fleet(server).snapshot()
        yield from check_connections(fleet.workers, info)
        yield from _roles_versions(fleet, settings)
        yield from _paused_queues(fleet)
        yield from check_workers(fleet.workers, settings)
        yield from _ledger(server, fleet)
    except NoPermissionError:
        message = "this user may not read the server's state"
        yield warning("redis", message, "allow it +info, +time, +scan, +llen")
    except RedisError as error:
        yield fault("redis", *named(error))
    finally:
        server.close()


def _foreign_keys(server: redis.Redis, settings: Settings | None) -> Iterator[Finding]:
    """Name each key that we need and another program has taken."""
    queues = [COMMON_QUEUE]
    if settings:
        queues += [queue_of(role) for role in settings.roles]
    for key in foreign(server, queues):
        yield fault(f"key {key.key}", f"it is a {key.type}, ours is a {key.ours}", STEP)


def _orphaned_queues(server: redis.Redis, settings: Settings | None) -> Iterator[Finding]:
    """Name each role's queue that holds prompts although no worker with these roles consumes it."""
    if settings is None:
        return
    consumed = {queue_of(role) for role in settings.roles}
    prompts: Counter[str] = Counter()
    for key in server.scan_iter(queue_of("*"), count=1000, _type="list"):
        name = key.decode(errors="replace").split(PRIORITY_MARK)[0]
        prompts[name] += server.llen(key)
    for name, number in sorted(prompts.items()):
        if name not in consumed:
            message = f"{number} prompts wait, but {settings.source} has no such role"
            step = f"add the role again, or drop them: redis-cli DEL {name}"
            yield warning(f"queue {name}", message, step)


def _roles_versions(fleet: FleetSnapshot, settings: Settings | None) -> Iterator[Finding]:
    """Check that all workers route by one roles file, and by the one of this host."""
    versions = fleet.versions()
    listed = "; ".join(f"{version}: {', '.join(names)}" for version, names in versions.items())
    if len(versions) > 1:
        message = f"workers route by different roles files: {listed}"
        yield warning("workers", message, "`breakwater reload` shows which worker refuses, and why")
    elif settings and versions and settings.version not in versions:
        message = f"they route by {listed}; {settings.source} here is {settings.version}"
        yield warning("workers", message, "`breakwater reload`, if it is their file")
    elif versions:
        yield ok("workers", f"{len(fleet.workers)} route by one roles file, {listed}")


def _paused_queues(fleet: FleetSnapshot) -> Iterator[Finding]:
    for queue in fleet.queues:
        if queue.paused:
            message = f"paused by {queue.paused.who}, {queue.depth} prompts wait"
            step = f"`breakwater resume {queue.role or '--all'}`, when it is time"
            yield warning(f"queue {queue.name}", message, step)


def _ledger(server: redis.Redis, fleet: FleetSnapshot) -> Iterator[Finding]:
    """Check that this host reaches the ledger, that all workers share it, and that rows drain."""
    try:
        yield ok("ledger", engine.check_connection())
    except ConfigError as error:
        yield fault("ledger", str(error), "`breakwater docs ledger` shows the forms")
    except SQLAlchemyError as error:
        message = f"it cannot be reached: {type(error).__name__}"
        yield warning("ledger", message, "rows wait in Redis meanwhile; correct LEDGER_URL")
    hosts = {worker.name.partition("@")[2] for worker in fleet.workers}
    if engine.is_sqlite() and len(hosts) > 1:
        message = (
            f"a SQLite file is one host's, and workers run on {len(hosts)}: each drains its own"
        )
        yield warning("ledger", message, "give all of them one PostgreSQL as LEDGER_URL")
    oldest = cast("list[tuple[bytes, object]]", server.xrange(LEDGER, count=1))
    for entry_id, _ in oldest:
        waits_s = fleet.now_ms // 1000 - int(entry_id.split(b"-")[0]) // 1000
        if waits_s > MAX_DRAIN_S:
            message = f"{server.xlen(LEDGER)} rows wait, the oldest for {waits_s} s"
            step = "a worker that reaches the database drains them; or `breakwater ledger drain`"
            yield warning("ledger", message, step)


def _encryption() -> Iterator[Finding]:
    try:
        if number := encryption.keys():
            yield ok("encryption", f"{number} keys; the first encrypts")
    except ConfigError as error:
        yield fault("encryption", str(error), "see `breakwater docs redis#encryption`")


def _environment() -> Iterator[Finding]:
    """Name Celery's own variables that are set: Celery prefers them to `REDIS_URL`."""
    for name in CELERY_VARIABLES:
        if os.environ.get(name):
            message = f"{name} is set, and it takes precedence over REDIS_URL"
            yield warning("environment", message, f"unset {name}")


def _packages() -> Iterator[Finding]:
    """Name each of our packages that a new Python in this directory would not import."""
    ours = {
        package.__name__: Path(str(package.__file__)).resolve()
        for package in (breaker, breakwater, tasks, workers)
    }
    done = subprocess.run(
        [sys.executable, "-c", FIND_PACKAGES, *ours], capture_output=True, text=True, check=True
    )
    for name, origin in json.loads(done.stdout).items():
        if not origin or Path(origin).resolve() != ours[name]:
            yield fault(
                f"package {name}",
                f"hidden by {origin or 'a folder of that name'} in this directory",
                "run workers elsewhere; enqueue with app.send_task('complete', (role, prompt))",
            )
