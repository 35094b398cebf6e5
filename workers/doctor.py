"""`breakwater doctor`: all that is wrong with a set-up, each with what to do next."""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import redis
from redis.exceptions import RedisError

import breaker
import tasks
import workers
from breaker import Breakers
from tasks.config import Settings, load_settings
from tasks.errors import BreakwaterError, ConfigError
from tasks.providers.registry import Registry
from tasks.queue import redis_url

TIMEOUT_S = 10.0
SKEW_S = 1.0
OLDEST_REDIS = (6, 2)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    level: Literal["ok", "warning", "fault"]
    what: str


def examine() -> list[Finding]:
    """Look at everything; never stop at the first fault."""
    found = list(_packages())
    settings: Settings | None = None
    try:
        settings = load_settings()
    except ConfigError as error:
        found += [Finding("fault", line) for line in error.details.get("faults", [str(error)])]
    else:
        found.append(Finding("ok", f"{settings.source}: {len(settings.providers)} providers"))
        found += _keys(settings)
    return [*found, *_redis(settings)]


def _packages() -> Iterator[Finding]:
    """Name each package of ours that another of the same name hides in this directory."""
    for ours in (breaker, tasks, workers):
        where = subprocess.run(
            [sys.executable, "-c", f"import {ours.__name__} as m; print(m.__file__)"],
            capture_output=True, text=True, check=False,
        ).stdout.strip()  # fmt: skip
        if not where or Path(where).resolve() != Path(str(ours.__file__)).resolve():
            yield Finding(
                "fault",
                f"package {ours.__name__!r} is hidden by {where or 'a broken one'}: "
                f"run workers elsewhere; enqueue with app.send_task('complete', (role, prompt))",
            )


def _keys(settings: Settings) -> Iterator[Finding]:
    registry = Registry(settings, Breakers.from_url(redis_url()))
    for name, result in registry.check_all(TIMEOUT_S).items():
        if isinstance(result, BreakwaterError):
            yield Finding("fault", f"provider {name}: {type(result).__name__}: {result}")
        else:
            yield Finding("ok", f"provider {name}: {result}")
    registry.close()


def _redis(settings: Settings | None) -> Iterator[Finding]:
    client = redis.Redis.from_url(redis_url(), socket_timeout=5, socket_connect_timeout=5)
    try:
        info: dict[str, Any] = client.info()
        yield from _server(info)
        seconds, micros = client.time()
        skew_s = abs(time.time() - seconds - micros / 1e6)
        if skew_s > SKEW_S:
            yield Finding("warning", f"Redis' clock and ours differ by {skew_s:.1f} s; use NTP")
        for key in client.scan_iter("role.*", count=1000, _type="list"):
            role = key.decode().removeprefix("role.")
            if settings and role not in settings.roles:
                waiting = client.llen(key)
                yield Finding(
                    "warning",
                    f"queue role.{role}: {waiting} prompts wait, but the file has no such role",
                )
    except RedisError as error:
        yield Finding(
            "fault", f"Redis does not answer ({type(error).__name__}): is REDIS_URL right?"
        )


def _server(info: dict[str, Any]) -> Iterator[Finding]:
    number = tuple(int(part) for part in info["redis_version"].split(".")[:2])
    if number < OLDEST_REDIS:
        yield Finding("fault", f"Redis {info['redis_version']} is too old; 6.2 or newer is needed")
    else:
        yield Finding("ok", f"Redis {info['redis_version']}")
    if not info.get("aof_enabled"):
        yield Finding("warning", "Redis keeps no append-only file: a restart may lose prompts; "
                      "set `appendonly yes`")  # fmt: skip
    if (policy := info.get("maxmemory_policy", "noeviction")) != "noeviction":
        yield Finding("warning", f"Redis evicts keys ({policy}): prompts and breakers may vanish; "
                      "set `maxmemory-policy noeviction`")  # fmt: skip
