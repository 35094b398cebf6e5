"""`breakwater workflows` and `breakwater workflow`: begin a run, look at it, cancel it, go on."""

from typing import Annotated, Any

import typer
from celery.exceptions import TaskRevokedError
from celery.exceptions import TimeoutError as NoAnswer
from rich.console import Group
from rich.text import Text

from breakwater.errors import BreakwaterError, ConfigError, UnknownWorkflow
from breakwater.redis.connection import client
from breakwater.workflows import Run, section, workflow
from breakwater.workflows.run import overview
from breakwater.workflows.run_store import RunStore
from workers.terminal.console import (
    AsJson,
    Watched,
    at_utc,
    err,
    fail,
    group,
    out,
    print_answer,
    print_json,
    refuse,
    typed,
    usable_redis_url,
    watch,
)
from workers.terminal.plain import plain
from workers.terminal.table import Table

REDIS_TIMEOUT_S = 2.0
COLOURS = {"running": "yellow", "succeeded": "green", "failed": "red", "cancelled": "magenta"}

cli = group(invoke_without_command=True)


def _complete_name() -> list[str]:
    try:
        return sorted(section.load())
    except ConfigError:
        return []


Id = Annotated[str, typer.Argument(metavar="ID", help="A run's, as `run` and `workflows` say it.")]


Count = Annotated[int, typer.Option(min=1, help="How many at most.")]


@cli.callback()
def group_(context: typer.Context, count: Count = 20, as_json: AsJson = False) -> None:
    """Show the runs of workflows, newest first, or begin or steer one."""
    if not context.invoked_subcommand:
        workflows(count, as_json)


def workflows(count: Count = 20, as_json: AsJson = False) -> None:
    """Show the runs of workflows, newest first."""
    found = [overview(snapshot) for snapshot in RunStore(client(usable_redis_url())).runs(count)]
    if as_json:
        print_json(found)
        return
    table = Table(
        "begun (UTC)", "workflow", "run", "state", "cost in $",
        whole=("run", "state"), right=("cost in $",),
    )  # fmt: skip
    for each in found:
        begun = at_utc(each["created_ms"])
        table.add(begun, each["workflow"], each["run"], _state(each["state"]), _cost(each))
    out.print(table if found else "no run")


@cli.command()
def run(
    name: Annotated[
        str, typer.Argument(help="A workflow of roles.yaml.", autocompletion=_complete_name)
    ],
    given: Annotated[
        str, typer.Option("--input", help="What its prompts call {input}; `-` reads stdin.")
    ],
    wait: Annotated[bool, typer.Option("--wait", help="Wait, and show the last answer.")] = False,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait at most.")] = 600,
    as_json: AsJson = False,
) -> None:
    """Begin a run, and say its id."""
    _reach_redis()
    try:
        chosen = workflow(name)
    except UnknownWorkflow as fault:
        refuse(str(fault))
    begun = chosen.delay(typed(given))
    if wait:
        _wait(begun, timeout, as_json)
    elif as_json:
        print_json({"run": begun.id})
    else:
        out.print(begun.id)


@cli.command()
def show(id_: Id, watched: Watched = False, as_json: AsJson = False) -> None:
    """Show a run: each stage, who served it, what it took and cost."""
    _reach_redis()
    looked_at = workflow.run(id_)
    if watched:
        watch(looked_at.state, _shown, as_json)
    elif as_json:
        print_json(looked_at.state())
    else:
        out.print(_shown(looked_at.state()))


@cli.command()
def cancel(id_: Id) -> None:
    """Stop what is not paid for yet; `resume` goes on from there."""
    _reach_redis()
    if not workflow.run(id_).cancel():
        fail(f"{id_} is over already: {workflow.run(id_).state()['state']}")
    out.print(f"{id_} cancelled")


@cli.command()
def resume(id_: Id) -> None:
    """
    Go on with a run that failed, was cancelled, or stands still.

    What has an answer is not paid for again; the stage that failed is asked anew.
    """
    _reach_redis()
    if not workflow.run(id_).resume():
        fail(f"{id_} has succeeded; there is nothing to go on with")
    out.print(f"{id_} goes on")


def _reach_redis() -> None:
    """Ask Redis before Celery does, which would try for long."""
    with client(usable_redis_url(), connect_s=REDIS_TIMEOUT_S, answer_s=REDIS_TIMEOUT_S) as reached:
        reached.ping()


def _wait(begun: Run, timeout_s: float, as_json: bool) -> None:
    try:
        answer = begun.get(timeout=timeout_s)
    except NoAnswer:
        fail(f"not over within {timeout_s:g} s; it goes on: breakwater workflow show {begun.id}")
    except TaskRevokedError:
        fail(f"{begun.id} was cancelled")
    except BreakwaterError as error:
        err.print(_shown(begun.state()))
        fail(f"{type(error).__name__}: {error}")
    if as_json:
        print_json(answer)
        return
    print_answer(answer["text"])
    err.print(_shown(begun.state()))


def _shown(state: dict[str, Any]) -> Group:
    head = Text(f"{plain(state['workflow'] or '(in code)')} {plain(state['run'])} ")
    head.append_text(_state(state["state"]))
    head.append(f", begun {at_utc(state['created_ms'])} UTC, {_cost(state) or 'no'} $")
    if state["error"]:
        fault = f"{state['error']['type']}: {state['error']['message']}"
        head.append(f"\n{plain(fault)}", style="red")
    table = Table(
        "stage", "round", "try", "state", "role", "provider", "model", "ms", "cost in $", "",
        right=("round", "try", "ms", "cost in $"),
    )  # fmt: skip
    for each in state["stages"]:
        table.add(
            each["stage"], each["round"], each["try"], _state(each["state"]),
            *(each[name] or "" for name in ("role", "provider", "model")),
            each["latency_ms"] or "", _cost(each),
            f"until: {each['until']}" if each["until"] else each["error"] or "",
        )  # fmt: skip
    return Group(head, table)


def _state(state: str) -> Text:
    return Text(plain(state), style=COLOURS.get(state, ""))


def _cost(of: dict[str, Any]) -> str:
    return of["cost_usd"] or ""
