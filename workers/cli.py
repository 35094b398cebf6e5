"""The `breakwater` command. Exit codes: 0 well, 1 an error or a fault found, 2 wrong words."""

import json
import logging
import sys
from dataclasses import asdict
from importlib.metadata import version
from typing import Annotated, Any

import structlog
import typer
from celery.exceptions import TimeoutError as NoAnswer
from celery.result import AsyncResult
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from tasks import app, complete
from tasks.completion import queue_for
from tasks.connection import client
from tasks.errors import BreakwaterError, UnknownRole
from workers import (
    breaker_commands,
    dead_letter_commands,
    ledger_commands,
    metrics_commands,
    operation_commands,
    queue_commands,
    top_command,
    why_command,
    worker_commands,
    workflow_commands,
)  # fmt: skip
from workers.console import (
    AsJson,
    Screen,
    err,
    fail,
    group,
    out,
    print_json,
    refuse,
    usable_redis_url,
)

HINT_AFTER_S = 3.0
"""An answer may take minutes; a queue that nobody consumes is worth saying sooner."""
GRACE_S = 2.0
"""The worker tells why a deadline passed; wait for its word a little longer than that."""
REDIS_TIMEOUT_S = 2.0

cli = group(cls=Screen, no_args_is_help=True, add_completion=True)
cli.add_typer(breaker_commands.cli, name="breakers")
cli.add_typer(dead_letter_commands.cli, name="dead")
cli.add_typer(ledger_commands.cli, name="ledger")
cli.add_typer(metrics_commands.cli, name="metrics")
cli.add_typer(workflow_commands.cli, name="workflow")
for command in (
    queue_commands.queues, queue_commands.pause, queue_commands.resume,
    worker_commands.workers, worker_commands.drain, worker_commands.reload,
    operation_commands.operations, why_command.why, top_command.top,
):  # fmt: skip
    cli.command()(command)
cli.command(hidden=True)(workflow_commands.workflows)  # what `workflow` alone does, too


def main() -> None:
    """Run the command; an error of ours is one line on standard error, exit code 1 (or 2)."""
    # What the breakers log for a worker, a command says in its own words.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        cli()
    except (BreakwaterError, OperationalError, RedisError) as error:
        err.print(f"{type(error).__name__}: {error}", style="red", markup=False)
        raise SystemExit(2 if isinstance(error, UnknownRole) else 1) from None


def _version(wanted: bool) -> None:
    if wanted:
        out.print(version("breakwater"))
        raise typer.Exit


@cli.callback()
def breakwater(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, hidden=True)
    ] = False,
) -> None:
    """Ask, watch and steer a fleet; reads REDIS_URL, ROLES_FILE and LEDGER_URL."""


@cli.command()
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
    as_json: AsJson = False,
) -> None:
    """Enqueue a prompt, wait, show the answer and its way."""
    _reach_redis()
    text = sys.stdin.read() if prompt == "-" else prompt
    options: dict[str, Any] = {"params": _params(param or []), "deadline_s": timeout}
    if system is not None:
        options["system"] = system
    result = complete.apply_async((role, text), options)
    try:
        answer = _wait(result, queue_for(role), timeout)
    except BreakwaterError as error:
        if as_json:
            print_json({"error": type(error).__name__, "message": str(error), **error.details})
        _show_way(error.attempts)
        (refuse if isinstance(error, UnknownRole) else fail)(f"{type(error).__name__}: {error}")
    if as_json:
        print_json(answer)
        return
    out.print(answer["text"], markup=False, soft_wrap=True)
    _show_way(answer["attempts"])


@cli.command()
def doctor(as_json: AsJson = False) -> None:
    """
    Check the whole set-up, and say what to do next.

    The roles file, each key at its provider, Redis, the clocks, queues without a
    role, and packages that hide ours. Exit code 1 if there is a fault.
    """
    from workers.doctor import examine  # noqa: PLC0415 - imports the vendors' SDKs

    findings = examine()
    if as_json:
        print_json([asdict(finding) for finding in findings])
    for finding in [] if as_json else findings:
        colour = {"ok": "green", "warning": "yellow", "fault": "red"}[finding.level]
        level = finding.level.upper() if finding.level == "fault" else finding.level
        out.print(f"[{colour}]{level:8}[/]", end="")
        out.print(f"{finding.about}: {finding.what}", markup=False, soft_wrap=True)
        if finding.next_step:
            out.print(f"{'':8}→ {finding.next_step}", markup=False, soft_wrap=True, style="dim")
    raise typer.Exit(any(finding.level == "fault" for finding in findings))


@cli.command(hidden=True)  # `make demo`; it needs a checkout
def demo(
    simulated: Annotated[
        bool, typer.Option("--simulated", help="Leave real providers alone, keys or not.")
    ] = False,
) -> None:
    """
    Watch a provider die under workers, and come back.

    About half a minute. Runs from a checkout; needs no server and no key. With keys of
    real providers in the environment it sends them a few short prompts, and breaks nothing.
    """
    from workers.demo import run  # noqa: PLC0415 - nobody else needs it

    raise typer.Exit(run(simulated=simulated))


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
        except ValueError:
            params[name] = value  # a word, such as reasoning_effort=low
    return params


def _wait(result: AsyncResult, queue: str, timeout_s: float) -> dict[str, Any]:
    """Wait for the answer; if it takes long, say whether anybody is listening at all."""
    hint_after_s = min(HINT_AFTER_S, timeout_s)
    try:
        return _answer(result, hint_after_s)
    except NoAnswer:
        heard = _is_consumed(queue)
    if not heard:
        err.print(
            f"no worker consumes the queue {queue} now; start one: celery -A workers worker",
            style="yellow",
        )
    try:
        return _answer(result, timeout_s - hint_after_s + GRACE_S)
    except NoAnswer:
        whose = "its worker has not answered" if heard else "no worker has taken it"
        fail(f"no answer within {timeout_s:g} s: {whose} (task {result.id})")


def _answer(result: AsyncResult, timeout_s: float) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = result.get(timeout=timeout_s)
    except RuntimeError:  # Celery's word for results it cannot reach any more
        fail(f"Redis went away while task {result.id} was waited for")
    return answer


def _is_consumed(queue: str) -> bool:
    consumed = app.control.inspect(timeout=1).active_queues() or {}
    return any(each["name"] == queue for queues in consumed.values() for each in queues)


def _show_way(attempts: list[dict[str, Any]]) -> None:
    for tried in attempts:
        what = tried["error"] or f"{tried['latency_ms']} ms"
        line = f"{tried['provider']} ({tried['model']}): {tried['outcome']}, {what}; {tried['why']}"
        err.print(line, style="dim", markup=False)
