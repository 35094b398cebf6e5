"""
Validation by jsonschema-rs: in this process, or in one of its own that has limits.

Regular expressions run on an engine whose time is linear in the text, as long as they need no
look-around and no back reference; those that do are bounded in the number of their steps. Nothing
is fetched, and formats and contents are not asserted. `run` judges in a new Python process with
bounds on its time and memory, for schemas and answers whose work no sum bounds beforehand. This
file is that process's program too, so it imports nothing of ours.

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
from typing import Any, NamedTuple

import jsonschema_rs

MAX_FAULTS = 5
"""Faults of an answer that are reported to its model."""
MAX_MESSAGE = 300
"""Characters of each."""
EACH_FAULT = 5_000
"""Up to so many steps all faults are collected, which takes 70 µs each; beyond, only the first."""
MEMORY_BYTES = 1024 * 1024 * 1024
"""Of the process of its own: its address space."""
COMPILED_BYTES = 1024 * 1024
"""How large a regular expression may become when it is compiled."""
CACHED_BYTES = 256 * 1024
"""What running one may keep."""
MAX_STEPS = 100_000
"""Of a regular expression with look-around or back references, for one text."""

LARGE = 2**53
"""From here on a float is not exact."""

_LINEAR = jsonschema_rs.RegexOptions(size_limit=COMPILED_BYTES, dfa_size_limit=CACHED_BYTES)
_STEPWISE = jsonschema_rs.FancyRegexOptions(
    backtrack_limit=MAX_STEPS, size_limit=COMPILED_BYTES, dfa_size_limit=CACHED_BYTES
)

_places = threading.BoundedSemaphore(os.cpu_count() or 1)
"""Processes that may run at the same time."""


class Fault(NamedTuple):
    """A rule that an answer breaks."""

    path: list[str | int]
    """Where, from the top of the answer."""
    rule: str
    """The keyword of the schema, such as `required`."""
    message: str
    """In full, with the answer's own words."""


class NotValidated(Exception):  # noqa: N818 - neither the schema nor the answer has been found wrong
    """The validation took longer or needed more memory than it may."""


class _Ignored:
    """Stands for keywords that are annotations."""

    def __init__(self, *given: Any) -> None:
        pass

    def validate(self, instance: Any) -> None:
        """Accept it."""


def compiled(schema: str, *, linear: bool) -> jsonschema_rs.Validator:
    """
    Return the validator of a schema.

    Args:
        schema: As JSON.
        linear: Refuse regular expressions with look-around or back references.

    Raises:
        jsonschema_rs.ValidationError: It is not a JSON Schema; `kind` says why.
    """
    return jsonschema_rs.validator_for(
        schema,
        validate_formats=False,
        offline=True,
        pattern_options=_LINEAR if linear else _STEPWISE,
        keywords=dict.fromkeys(("contentMediaType", "contentEncoding"), _Ignored),
    )


def judge(validator: jsonschema_rs.Validator, data: Any, steps: float) -> list[Fault]:
    """
    Return what is wrong with an answer, at most `MAX_FAULTS`; empty if nothing is.

    Args:
        steps: The most that validating may take; all faults are collected only if it is small.
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
    Judge in a process of its own.

    Args:
        schema: As JSON; may have look-around and back references.
        text: The answer as JSON.
        limit_s: How long it may take, in seconds.

    Raises:
        NotValidated: It took longer, or needed more than `MEMORY_BYTES`.
    """
    begun = time.monotonic()
    if not _places.acquire(timeout=limit_s):
        raise NotValidated(f"cannot be validated within {limit_s:.1f} s: others are before it")
    try:
        ended = subprocess.run(
            # -P: the modules beside this file are not to stand for those of the library.
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
            f"cannot be validated: that ended with code {error.returncode}, perhaps for lack of "
            f"memory"
        ) from None
    except OSError as error:
        raise NotValidated(f"cannot be validated: no process can be started ({error})") from None
    finally:
        _places.release()
    return [Fault(*fault) for fault in json.loads(ended.stdout)]


def _fault(error: jsonschema_rs.ValidationError) -> Fault:
    return Fault(error.instance_path, error.kind.name, error.message[:MAX_MESSAGE])


def _exact(number: str) -> int | float:
    """Read a JSON number; whole ones beyond 2**53, where a float would be another, as integers."""
    exact = decimal.Decimal(number)
    return int(exact) if abs(exact) >= LARGE and exact % 1 == 0 else float(number)


def _main() -> None:
    schema, text, limit_s, memory_bytes = json.load(sys.stdin)
    with suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    seconds = int(limit_s) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))  # should nobody be left to end it
    decimal.getcontext().prec = 400  # more digits than the largest float has
    schema, data = (json.loads(each, parse_float=_exact) for each in (schema, text))
    faults = judge(compiled(json.dumps(schema), linear=False), data, float("inf"))
    json.dump(faults, sys.stdout)


if __name__ == "__main__":
    _main()
