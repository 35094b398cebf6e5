"""
One log for ours and Celery's lines: JSON where a program reads it, colours where a person does.

A line never holds a key, a prompt or an answer.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from tasks import catalogue
from workers.terminal.plain import plain, plain_lines

OF_SEVERAL_LINES = {"event", "exception", "stack"}
OURS = ("breakwater", "breaker", "tasks", "workers")
_STAMP: list[Any] = [
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def set_up_logging(level: int, stream: TextIO | None = None, logfile: str | None = None) -> None:
    """
    Send every log line to one place in one form.

    Args:
        level: For Celery and the libraries, as of `celery worker --loglevel`. Our own lines, one
            per attempt, are shown from INFO on also under Celery's default of WARNING.
        stream: Where to write; standard error if None.
        logfile: A path instead of the stream, as of `celery worker --logfile`.
    """
    stream = stream or sys.stderr
    handler = logging.FileHandler(logfile) if logfile else logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_STAMP,
            processors=[
                _drop_celery_data,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(for_people=not logfile and stream.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in OURS:
        logging.getLogger(name).setLevel(logging.INFO if level == logging.WARNING else level)
    for name in catalogue.loggers():
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    structlog.configure(
        processors=[*_STAMP, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _rendering(*, for_people: bool) -> list[Any]:
    # Not rich's traceback: it shows the values of variables, prompts among them.
    traceback = structlog.processors.format_exc_info
    if not for_people:
        return [traceback, structlog.processors.JSONRenderer()]
    people = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    return [traceback, _clean, people]


def _clean(
    _logger: object, _method: str, line: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Let no text of a provider or a producer steer the terminal."""
    for name, value in line.items():
        if isinstance(value, str):
            line[name] = plain_lines(value) if name in OF_SEVERAL_LINES else plain(value)
    return line


def _drop_celery_data(
    _logger: object, _method: str, line: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Celery hangs its arguments on the record for custom handlers; they must not be rendered."""
    line.pop("data", None)
    return line
