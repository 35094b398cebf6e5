"""What an older version left in Redis: `tests/data/mixed` has it, and `record.py` there how."""

import json
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import redis

from simulator.client import Simulator

DATA = Path(__file__).parents[1] / "data" / "mixed"
OLD = "2ac275a"
"""The commit whose code made the recording."""
MOMENT = re.compile(r"(?<!\d)1[78]\d{11}(?:\d{3})?(?!\d)")
"""A time in milliseconds or microseconds, wherever it stands in a text."""
DATE = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?\+00:00")
"""A time as Celery writes it into headers."""


def recorded(name: str) -> Any:
    """Return a file of the recording."""
    return json.loads((DATA / f"{name}.json").read_text())


def roles_over(simulator: Simulator) -> str:
    """Return the roles file of the recording."""
    return (DATA / "roles.yaml").read_text().replace("SIMULATOR", simulator.base_url)


def restore(name: str, url: str, age_s: float | None = 0) -> Any:
    """
    Write a recording into an empty database, and return a client of it.

    Args:
        name: The recording.
        url: Of the database.
        age_s: How long ago it shall have been made; every time in it is moved. None: as it is.
    """
    client: Any = redis.Redis.from_url(
        url, decode_responses=True, encoding_errors="surrogateescape"
    )
    recording = recorded(name)
    seconds, micros = client.time()
    now_ms = seconds * 1000 + micros // 1000
    later_ms = 0 if age_s is None else now_ms - recording["now_ms"] - int(age_s * 1000)

    def moved(text: str) -> str:
        def shifted(match: re.Match[str]) -> str:
            unit = 1 if len(match[0]) == 13 else 1000
            return str(int(match[0]) + later_ms * unit)

        def redated(match: re.Match[str]) -> str:
            return (datetime.fromisoformat(match[0]) + timedelta(milliseconds=later_ms)).isoformat()

        return DATE.sub(redated, MOMENT.sub(shifted, text))

    for key, entry in json.loads(moved(json.dumps(recording["keys"]))).items():
        _write(client, key, entry["type"], entry["value"])
        if entry["ttl_ms"] > 0:
            client.pexpire(key, entry["ttl_ms"])
    return client


def _write(client: Any, key: str, kind: str, value: Any) -> None:
    match kind:
        case "string":
            client.set(key, value)
        case "list":
            client.rpush(key, *value)
        case "hash":
            client.hset(key, mapping=value)
        case "set":
            client.sadd(key, *value)
        case "zset":
            client.zadd(key, dict(value))
        case "stream":
            for entry_id, fields in value:
                client.xadd(key, fields, id=entry_id)
