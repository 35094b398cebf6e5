"""`breakwater ask`: one prompt, asked by hand."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any, NoReturn

import typer
from celery.exceptions import TimeoutError as NoAnswer
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
from workers.commands.waiting import Teller
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

FIRST_LOOK_S, LOOK_EVERY_S = 3.0, 2.0
"""An answer may take minutes; what holds it is worth saying sooner."""
GRACE_S = 2.0
"""The worker tells why a deadline passed; wait for its word a little longer than that."""
REDIS_TIMEOUT_S = 2.0


def ask(
    role: Annotated[str, typer.Argument(help="A role of roles.yaml.")],
    prompt: Annotated[str, typer.Argument(help="What to ask; `-` reads standard input.")],
    system: Annotated[str | None, typer.Option(help="Instead of the role's own.")] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Over the role's, such as temperature=0; repeat."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds until the question lapses.")
    ] = 120,
    streamed: Annotated[
        bool, typer.Option("--stream", help="Show the answer while it comes.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Ctrl-C leaves the task running.")] = False,
    as_json: AsJson = False,
) -> None:
    """
    Enqueue a prompt, wait, show the answer and its way.

    While it waits, says what holds it. Ctrl-C cancels the task, and names it.
    """
    _reach_redis()
    text = typed(prompt)
    options: dict[str, Any] = {"params": _params(param or []), "deadline_s": timeout}
    options |= {"stream": True} if streamed else {}
    options |= {} if system is None else {"system": system}
    result = complete.apply_async((role, text), options)
    try:
        wait = _tell if streamed else _wait
        answer = wait(result, Teller(result.id, queue_for(role)), timeout, as_json)
    except KeyboardInterrupt:
        _give_up(result, keep)
    except BreakwaterError as error:
        if as_json:
            print_json({"error": type(error).__name__, "message": str(error), **error.details})
        _show_way(result.id, error.attempts)
        (refuse if isinstance(error, UnknownRole) else fail)(f"{type(error).__name__}: {error}")
    if as_json:
        if not streamed:
            print_json(answer)
        return
    if not streamed:
        print_answer(answer["text"])
    _show_way(result.id, answer["attempts"])


def _reach_redis() -> None:
    """Ask Redis before Celery does, which would try for 20 s and end with a traceback."""
    with client(usable_redis_url(), connect_s=REDIS_TIMEOUT_S, answer_s=REDIS_TIMEOUT_S) as reached:
        reached.ping()


def _params(pairs: list[str]) -> dict[str, Any]:
    params = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"{pair!r} is not KEY=VALUE, such as temperature=0")
        try:
            params[name] = json.loads(value)
        except (ValueError, RecursionError):
            params[name] = value  # a word, such as reasoning_effort=low
    return params


def _wait(result: AsyncResult, teller: Teller, timeout_s: float, _json: bool) -> Result:
    """Wait for the answer; if it takes long, say what holds it."""
    for within_s in _spans(timeout_s):
        try:
            return _answer(result, within_s)
        except NoAnswer:
            teller.look()
    whose = "its worker has not answered" if teller.runs else "no worker has taken it"
    return fail(f"no answer within {timeout_s:g} s: {whose} (task {result.id})")


def _tell(result: AsyncResult, teller: Teller, timeout_s: float, as_json: bool) -> Result:
    """Show the answer while it comes, or as JSON each event on a line; return the result."""
    last: str | None = None
    for within_s in _spans(timeout_s):
        try:
            for event in stream(result, after=last, timeout=within_s):
                last = event.id
                _show(event, as_json)
                if event.result is not None:
                    return event.result
        except NoAnswer:
            if last is None:
                teller.look()
    runs = last is not None or teller.runs
    whose = "its worker has not come to the end" if runs else "no worker has taken it"
    return fail(f"no whole answer within {timeout_s:g} s: {whose} (task {result.id})")


def _spans(timeout_s: float) -> Iterator[float]:
    """Return for how long to wait between two looks; a little longer than the task may take."""
    ends_at = time.monotonic() + timeout_s + GRACE_S
    yield min(FIRST_LOOK_S, timeout_s)
    while (left_s := ends_at - time.monotonic()) > 0:
        yield min(LOOK_EVERY_S, left_s)


def _give_up(result: AsyncResult, keep: bool) -> NoReturn:
    """Cancel the task after Ctrl-C, unless it is to go on; either way name it."""
    what = f"task {result.id} goes on; `breakwater why {result.id}` shows it"
    if not keep:
        try:
            result.cancel()
            what = f"cancelled task {result.id}"
        except (OperationalError, RedisError) as error:
            what = f"task {result.id} could not be cancelled: {explain(error)[0]}"
    err.print(what, style="yellow")
    raise typer.Exit(130)


def _show(event: Event, as_json: bool) -> None:
    if as_json:
        shown = {name: value for name, value in asdict(event).items() if value not in (None, "")}
        print_json_line(shown)
    elif event.type == "restart":
        out.print()
        who = event.provider or "its worker"
        err.print(f"{who}: {event.error}; the answer begins anew", style="yellow")
    else:
        ends = "\n" if event.type == "end" else ""
        print_answer(event.text, end=ends)


def _answer(result: AsyncResult, timeout_s: float) -> Result:
    try:
        answer: Result = result.get(timeout=timeout_s)
    except RuntimeError:  # Celery's word for results it cannot reach any more
        fail(f"Redis went away while task {result.id} was waited for")
    return answer


def _show_way(task_id: str, attempts: list[AttemptJson]) -> None:
    err.print(f"task {task_id}", style="dim")
    for tried in attempts:
        what = tried["error"] or f"{tried['latency_ms']} ms"
        line = f"{tried['provider']} ({tried['model']}): {tried['outcome']}, {what}; {tried['why']}"
        err.print(line, style="dim")
