"""`breakwater ask`: send one prompt by hand."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, NoReturn

import typer
from celery.exceptions import TimeoutError as WaitTimeout
from celery.result import AsyncResult
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from breakwater.asking.events import Event
from breakwater.attempt import AttemptJson
from breakwater.enqueueing.prepared import queue_for
from breakwater.errors import BreakwaterError, UnknownRole
from breakwater.redis.connection import client, explain
from breakwater.result import Result
from tasks import complete, stream
from workers.commands.waiting import StatusReporter
from workers.terminal.console import (
    AsJson,
    err,
    fail,
    out,
    print_answer,
    print_json,
    print_json_line,
    refuse,
    typed,
    usable_redis_url,
)

FIRST_REPORT_S, REPORT_INTERVAL_S = 3.0, 2.0
"""An answer may take minutes; the user learns earlier what holds it."""
GRACE_S = 2.0
"""The worker reports why a deadline passed; its result may come a little after the deadline."""
REDIS_TIMEOUT_S = 2.0


def ask(
    role: Annotated[str, typer.Argument(help="A role of roles.yaml.")],
    prompt: Annotated[str, typer.Argument(help="The prompt; `-` reads standard input.")],
    system: Annotated[str | None, typer.Option(help="Instead of the role's own.")] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Such as temperature=0; repeatable."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds until the prompt expires.")
    ] = 120,
    streamed: Annotated[
        bool, typer.Option("--stream", help="Show the answer as it arrives.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Ctrl-C leaves the task running.")] = False,
    as_json: AsJson = False,
) -> None:
    """
    Enqueue a prompt, wait, and show the answer and its route.

    While it waits, prints what holds it. Ctrl-C cancels the task, and prints its id.
    """
    _check_redis()
    text = typed(prompt)
    options: dict[str, object] = {"params": _params(param or []), "deadline_s": timeout}
    if streamed:
        options["stream"] = True
    if system is not None:
        options["system"] = system
    task = complete.apply_async((role, text), options)
    waiting = Waiting(task, queue_for(role), timeout)
    try:
        result = waiting.stream(as_json) if streamed else waiting.get()
    except KeyboardInterrupt:
        _stop_waiting(task, keep)
    except BreakwaterError as error:
        _fail(task.id, error, as_json)
    if not streamed:
        _print_result(result, as_json)
    _print_route(task.id, result["attempts"], as_json=as_json)


def _check_redis() -> None:
    """Fail at once if Redis does not answer; Celery would retry for 20 s, then fail."""
    with client(usable_redis_url(), connect_s=REDIS_TIMEOUT_S, answer_s=REDIS_TIMEOUT_S) as redis:
        redis.ping()


def _params(pairs: list[str]) -> dict[str, object]:
    params: dict[str, object] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"{pair!r} is not KEY=VALUE, such as temperature=0")
        try:
            params[name] = json.loads(value)
        except (ValueError, RecursionError):
            params[name] = value  # a word, such as reasoning_effort=low
    return params


class Waiting:
    """Wait for one task, and report what holds it while no answer comes."""

    def __init__(self, task: AsyncResult, queue: str, timeout_s: float) -> None:
        self._task = task
        self._timeout_s = timeout_s
        self._reporter = StatusReporter(task.id, queue)

    def get(self) -> Result:
        """
        Return the result.

        Raises:
            BreakwaterError: The task failed.
            typer.Exit: It has no result in time.
        """
        for interval_s in self._intervals():
            try:
                return _get(self._task, interval_s)
            except WaitTimeout:
                self._reporter.report()
        return self._fail("no answer", "its worker has not answered", is_taken=False)

    def stream(self, as_json: bool) -> Result:
        """Print the answer as it arrives, or each event as a line of JSON; return the result."""
        last_id: str | None = None
        for interval_s in self._intervals():
            try:
                for event in stream(self._task, after=last_id, timeout=interval_s):
                    last_id = event.id
                    _print_event(event, as_json)
                    if event.result is not None:
                        return event.result
            except WaitTimeout:
                if last_id is None:
                    self._reporter.report()
        has_begun = last_id is not None
        return self._fail("no whole answer", "its worker has not finished", is_taken=has_begun)

    def _intervals(self) -> Iterator[float]:
        """Yield how long to wait before each report; in total a little longer than the task may."""
        ends_at = time.monotonic() + self._timeout_s + GRACE_S
        yield min(FIRST_REPORT_S, self._timeout_s)
        while (left_s := ends_at - time.monotonic()) > 0:
            yield min(REPORT_INTERVAL_S, left_s)

    def _fail(self, missing: str, reason: str, *, is_taken: bool) -> NoReturn:
        if not (is_taken or self._reporter.is_taken):
            reason = "no worker has taken it"
        fail(f"{missing} within {self._timeout_s:g} s: {reason} (task {self._task.id})")


def _get(task: AsyncResult, timeout_s: float) -> Result:
    try:
        result: Result = task.get(timeout=timeout_s)
    except RuntimeError:  # Celery raises this when it has lost its connection for results
        fail(f"Redis stopped answering while task {task.id} was waited for")
    return result


def _stop_waiting(task: AsyncResult, keep: bool) -> NoReturn:
    """Cancel the task after Ctrl-C, unless the user keeps it; print its id in both cases."""
    err.print(_cancel(task, keep), style="yellow")
    raise typer.Exit(130)


def _cancel(task: AsyncResult, keep: bool) -> str:
    if keep:
        return f"task {task.id} goes on; `breakwater why {task.id}` shows it"
    try:
        task.cancel()
    except (OperationalError, RedisError) as error:
        return f"task {task.id} could not be cancelled: {explain(error)[0]}"
    return f"cancelled task {task.id}"


def _fail(task_id: str, error: BreakwaterError, as_json: bool) -> NoReturn:
    name = type(error).__name__
    if as_json:
        print_json({"error": name, "message": str(error), **error.details})
    _print_route(task_id, error.attempts, as_json=False)
    if isinstance(error, UnknownRole):
        refuse(f"{name}: {error}")
    fail(f"{name}: {error}")


def _print_result(result: Result, as_json: bool) -> None:
    if as_json:
        print_json(result)
    else:
        print_answer(result["text"])


def _print_event(event: Event, as_json: bool) -> None:
    if as_json:
        fields = {name: value for name, value in asdict(event).items() if value not in (None, "")}
        print_json_line(fields)
    elif event.type == "restart":
        out.print()
        source = event.provider or "its worker"
        err.print(f"{source}: {event.error}; the answer starts again", style="yellow")
    elif event.type == "end":
        print_answer(event.text)
    else:
        print_answer(event.text, end="")


def _print_route(task_id: str, attempts: list[AttemptJson], *, as_json: bool) -> None:
    if as_json:  # the result has the attempts
        return
    err.print(f"task {task_id}", style="dim")
    for attempt in attempts:
        ended = attempt["error"] or f"{attempt['latency_ms']} ms"
        target = f"{attempt['provider']} ({attempt['model']})"
        err.print(f"{target}: {attempt['outcome']}, {ended}; {attempt['why']}", style="dim")
