"""Where the commands print: answers to standard output, everything else to standard error."""

import json
import sys
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from tasks.connection import address, redis_url
from tasks.errors import ConfigError

# A table in a pipe is for grep: nothing is cut off there.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
err = Console(highlight=False, stderr=True, soft_wrap=True)

COLOURS = {"closed": "green", "open": "red", "half-open": "yellow"}

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def fail(message: str) -> NoReturn:
    """Say what went wrong in one line, and end with exit code 1."""
    err.print(message, style="red", markup=False)
    raise typer.Exit(1)


def print_json(value: Any) -> None:
    """Print one JSON document."""
    out.print_json(json.dumps(value))


def usable_redis_url() -> str:
    """Return REDIS_URL; end the command if it is no address of a Redis."""
    try:
        address()
    except ConfigError as error:
        fail(str(error))
    return redis_url()
