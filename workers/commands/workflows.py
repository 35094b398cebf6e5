"""`breakwater workflows` and `breakwater workflow`: start, show, cancel and resume runs."""

from typing import Annotated

import typer
from celery.exceptions import TaskRevokedError
from celery.exceptions import TimeoutError as WaitTimeout
from rich.console import Group
from rich.text import Text

from breakwater.errors import BreakwaterError, ConfigError, UnknownWorkflow
from breakwater.redis.connection import client
from breakwater.workflows import Run, section, workflow
from breakwater.workflows.run import Overview, RunState, StageState, overview
from breakwater.workflows.run_store import RunStore
from workers.terminal.console import (
    AsJson,
    Watched,
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
    watch_json,
)
from workers.terminal.figures import at_utc
from workers.terminal.plain import plain
from workers.terminal.table import Cell, Table

REDIS_TIMEOUT_S = 2.0
COLOURS = {"running": "yellow", "succeeded": "green", "failed": "red", "cancelled": "magenta"}


cli = group(invoke_without_command=True)


def _complete_name() -> list[str]:
    try:
        return sorted(section.load())
    except ConfigError:
        return []


Id = Annotated[
    str, typer.Argument(metavar="ID", help="A run's, as `run` and `workflows` print it.")
]
Count = Annotated[int, typer.Option(min=1, help="How many at most.")]


@cli.callback()
def group_(context: typer.Context, count: Count = 20, as_json: AsJson = False) -> None:
    """Show the runs of workflows, or start or control one."""
    if not context.invoked_subcommand:
        workflows(count, as_json)


def workflows(count: Count = 20, as_json: AsJson = False) -> None:
    """Show the runs of workflows, newest first."""
    runs = [overview(snapshot) for snapshot in RunStore(client(usable_redis_url())).runs(count)]
    if as_json:
        print_json(runs)
        return
    if not runs:
        out.print("no run")
        return
    table = Table(
        "begun (UTC)", "workflow", "run", "state", "cost in $",
        whole=("run", "state"), right=("cost in $",),
    )  # fmt: skip
    for each in runs:
        begun = at_utc(each["created_ms"])
        table.add(begun, each["workflow"], each["run"], _state(each["state"]), _cost(each))
    out.print(table)


@cli.command()
def run(
    name: Annotated[
        str, typer.Argument(help="A workflow of roles.yaml.", autocompletion=_complete_name)
    ],
    text: Annotated[
        str, typer.Option("--input", help="The value of {input} in its prompts; `-` reads stdin.")
    ],
    wait: Annotated[bool, typer.Option("--wait", help="Wait, and show the last answer.")] = False,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait at most.")] = 600,
    as_json: AsJson = False,
) -> None:
    """Start a run, and print its id."""
    _check_redis()
    try:
        chosen = workflow(name)
    except UnknownWorkflow as fault:
        refuse(str(fault))
    begun = chosen.delay(typed(text))
    if wait:
        _wait(begun, timeout, as_json)
    elif as_json:
        print_json({"run": begun.id})
    else:
        out.print(begun.id)


@cli.command()
def show(id_: Id, watched: Watched = False, as_json: AsJson = False) -> None:
    """Show a run: each stage, its provider, time and cost."""
    _check_redis()
    chosen = workflow.run(id_)
    if watched and as_json:
        watch_json(chosen.state)
    elif watched:
        watch(chosen.state, _draw)
    elif as_json:
        print_json(chosen.state())
    else:
        out.print(_draw(chosen.state()))


@cli.command()
def cancel(id_: Id) -> None:
    """
    Cancel the stage that runs, and start no further one.

    `resume` continues the run.
    """
    _check_redis()
    if not workflow.run(id_).cancel():
        fail(f"{id_} has ended already: {workflow.run(id_).state()['state']}")
    out.print(f"{id_} cancelled")


@cli.command()
def resume(id_: Id) -> None:
    """
    Continue a run that failed, was cancelled, or stands still.

    Stages that have an answer are not paid for again; the stage that failed is
    called again.
    """
    _check_redis()
    if not workflow.run(id_).resume():
        fail(f"{id_} has succeeded; there is nothing to resume")
    out.print(f"{id_} resumed")


def _check_redis() -> None:
    """Fail at once if Redis does not answer; Celery would retry for a long time."""
    with client(usable_redis_url(), connect_s=REDIS_TIMEOUT_S, answer_s=REDIS_TIMEOUT_S) as redis:
        redis.ping()


def _wait(begun: Run, timeout_s: float, as_json: bool) -> None:
    try:
        answer = begun.get(timeout=timeout_s)
    except WaitTimeout:
        fail(
            f"it has not ended within {timeout_s:g} s, and goes on: "
            f"breakwater workflow show {begun.id}"
        )
    except TaskRevokedError:
        fail(f"{begun.id} was cancelled")
    except BreakwaterError as error:
        err.print(_draw(begun.state()))
        fail(f"{type(error).__name__}: {error}")
    if as_json:
        print_json(answer)
        return
    print_answer(answer["text"])
    err.print(_draw(begun.state()))


def _draw(state: RunState) -> Group:
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
    for stage in state["stages"]:
        table.add(*_stage_cells(stage))
    return Group(head, table)


def _stage_cells(stage: StageState) -> list[Cell]:
    note = stage["error"] or ""
    if stage["until"]:
        note = f"until: {stage['until']}"
    return [
        stage["stage"],
        stage["round"],
        stage["try"],
        _state(stage["state"]),
        stage["role"] or "",
        stage["provider"] or "",
        stage["model"] or "",
        stage["latency_ms"] or "",
        _cost(stage),
        note,
    ]


def _state(state: str) -> Text:
    return Text(plain(state), style=COLOURS.get(state, ""))


def _cost(state: Overview | StageState) -> str:
    return state["cost_usd"] or ""
