"""
Format all log lines of a worker, ours and Celery's: JSON for programs, colours for a terminal.

A line never holds a key, a prompt or an answer.
"""

import logging
import sys
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor

from tasks import catalogue
from workers.terminal.plain import plain, plain_lines

MULTILINE_FIELDS = {"event", "exception", "stack"}
OURS = ("breakwater", "breaker", "tasks", "workers")
_STAMP: list[Processor] = [
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def set_up_logging(level: int, stream: TextIO | None = None, logfile: str | None = None) -> None:
    """
    Send every log line to one place in one format.

    Args:
        level: For Celery and the libraries, as of `celery worker --loglevel`. Our own lines, one
            per attempt, are shown from INFO on, even under Celery's default of WARNING.
        stream: Where to write; standard error if None.
        logfile: A path instead of the stream, as of `celery worker --logfile`.
    """
    stream = stream or sys.stderr
    handler: logging.Handler = logging.StreamHandler(stream)
    if logfile:
        handler = logging.FileHandler(logfile)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_STAMP,
            processors=[
                _drop_celery_data,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(for_people=not logfile and stream.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    _set_levels(level)
    structlog.configure(
        processors=[*_STAMP, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _set_levels(level: int) -> None:
    logging.getLogger().setLevel(level)
    our_level = level
    if level == logging.WARNING:
        our_level = logging.INFO
    for name in OURS:
        logging.getLogger(name).setLevel(our_level)
    for name in catalogue.loggers():
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def _renderers(*, for_people: bool) -> list[Processor]:
    # Not rich's traceback: it shows the values of variables, prompts among them.
    traceback = structlog.processors.format_exc_info
    if not for_people:
        return [traceback, structlog.processors.JSONRenderer()]
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    return [traceback, _escape, console]


def _escape(_logger: object, _method: str, line: EventDict) -> EventDict:
    """Escape control characters, so that no text of a provider or producer steers the terminal."""
    for name, value in line.items():
        if not isinstance(value, str):
            continue
        if name in MULTILINE_FIELDS:
            line[name] = plain_lines(value)
        else:
            line[name] = plain(value)
    return line


def _drop_celery_data(_logger: object, _method: str, line: EventDict) -> EventDict:
    """Remove the arguments that Celery adds to a record for custom handlers."""
    line.pop("data", None)
    return line
