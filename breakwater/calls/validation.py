"""
Validate answers by jsonschema-rs: in this process, or in a separate one with limits.

Regular expressions run on an engine whose time is linear in the text, unless they need look-around
or back references; those have a limit on their steps. Nothing is fetched, and formats and contents
are not asserted. `run` validates in a new Python process with limits on time and memory; it serves
schemas and answers whose work cannot be calculated in advance. This file is also the program of
that process, so it imports nothing from Breakwater.

Source: json-schema.org, drafts 4 to 2020-12; ECMA-262 for regular expressions.
"""

import decimal
import json
import os
import resource
import subprocess
import sys
import threading
import time
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

import jsonschema_rs

MAX_FAULTS = 5
"""The number of faults that the model is sent."""
MAX_MESSAGE = 300
"""Characters of each fault's message."""
EACH_FAULT = 5_000
"""All faults are collected up to this many steps, 70 µs per fault; above it only the first one."""
MEMORY_BYTES = 1024 * 1024 * 1024
"""Limit for the address space of the separate process."""
COMPILED_BYTES = 1024 * 1024
"""Limit for the size of one compiled regular expression."""
CACHED_BYTES = 256 * 1024
"""Limit for the cache of one running regular expression."""
MAX_STEPS = 100_000
"""Limit for a regular expression with look-around or back references, per text."""

LARGE = 2**53
"""Floats are not exact from here on."""

_LINEAR = jsonschema_rs.RegexOptions(size_limit=COMPILED_BYTES, dfa_size_limit=CACHED_BYTES)
_STEPWISE = jsonschema_rs.FancyRegexOptions(
    backtrack_limit=MAX_STEPS, size_limit=COMPILED_BYTES, dfa_size_limit=CACHED_BYTES
)

_places = threading.BoundedSemaphore(os.cpu_count() or 1)
"""The number of validating processes that may run at the same time."""


class Fault(NamedTuple):
    """A rule that an answer breaks."""

    path: list[str | int]
    """The path from the top of the answer."""
    rule: str
    """The keyword of the schema, such as `required`."""
    message: str
    """The full message; it may quote the answer."""


class NotValidated(Exception):  # noqa: N818 - neither the schema nor the answer is known to be wrong
    """The validation exceeded its limit of time or memory."""


class _Ignored:
    """Handle a keyword that is only an annotation."""

    def __init__(self, *_: object) -> None:
        pass

    def validate(self, instance: object) -> None:
        """Accept any value."""


def compiled(schema: str, *, linear: bool) -> jsonschema_rs.Validator:
    """
    Return the validator of a schema.

    Args:
        schema: As JSON.
        linear: Refuse regular expressions with look-around or back references.

    Raises:
        jsonschema_rs.ValidationError: The schema is not valid; `kind` says why.
    """
    return jsonschema_rs.validator_for(
        schema,
        validate_formats=False,
        offline=True,
        pattern_options=_LINEAR if linear else _STEPWISE,
        keywords=dict.fromkeys(("contentMediaType", "contentEncoding"), _Ignored),
    )


def judge(validator: jsonschema_rs.Validator, data: object, steps: float) -> list[Fault]:
    """
    Return the faults of an answer, at most `MAX_FAULTS`; empty if it is valid.

    Args:
        steps: The most steps that validation may take; if small, all faults are collected.
    """
    if validator.is_valid(data):
        return []
    if steps <= EACH_FAULT:
        return [_fault(error) for error in islice(validator.iter_errors(data), MAX_FAULTS)]
    try:
        validator.validate(data)
    except jsonschema_rs.ValidationError as error:
        return [_fault(error)]
    return []


def run(schema: str, text: str, limit_s: float) -> list[Fault]:
    """
    Validate an answer in a separate process.

    Args:
        schema: As JSON; it may contain look-around and back references.
        text: The answer as JSON.
        limit_s: The time limit in seconds.

    Raises:
        NotValidated: The process exceeded its time limit or `MEMORY_BYTES`.
    """
    begun = time.monotonic()
    if not _places.acquire(timeout=limit_s):
        raise NotValidated(
            f"cannot be validated within {limit_s:.1f} s: other validations are before it"
        )
    try:
        ended = subprocess.run(
            # -P: the modules beside this file must not hide those of the standard library.
            [sys.executable, "-P", __file__],
            input=json.dumps([schema, text, limit_s, MEMORY_BYTES]).encode(),
            capture_output=True,
            timeout=max(0.01, limit_s - (time.monotonic() - begun)),
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise NotValidated(f"cannot be validated within {limit_s:.1f} s") from None
    except subprocess.CalledProcessError as error:
        raise NotValidated(
            f"cannot be validated: the process ended with code {error.returncode}, perhaps for "
            f"lack of memory"
        ) from None
    except OSError as error:
        raise NotValidated(f"cannot be validated: no process can be started ({error})") from None
    finally:
        _places.release()
    return [Fault(*fault) for fault in json.loads(ended.stdout)]


def _fault(error: jsonschema_rs.ValidationError) -> Fault:
    return Fault(error.instance_path, error.kind.name, error.message[:MAX_MESSAGE])


def _exact(number: str) -> int | float:
    """Read a JSON number; whole numbers beyond 2**53 become integers: a float would differ."""
    exact = decimal.Decimal(number)
    if abs(exact) >= LARGE and exact % 1 == 0:
        return int(exact)
    return float(number)


def _main() -> None:
    schema, text, limit_s, memory_bytes = json.load(sys.stdin)
    with suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    seconds = int(limit_s) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))  # in case its parent is gone
    decimal.getcontext().prec = 400  # more digits than the largest float has
    schema, data = (json.loads(each, parse_float=_exact) for each in (schema, text))
    faults = judge(compiled(json.dumps(schema), linear=False), data, float("inf"))
    json.dump(faults, sys.stdout)


if __name__ == "__main__":
    _main()
