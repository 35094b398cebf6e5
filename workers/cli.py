"""The `breakwater` command. Exit codes: 0 well, 1 an error or a fault found, 2 wrong words."""

import logging
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import structlog
import typer
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from breakwater.errors import BreakwaterError, UnknownRole
from breakwater.messaging.names import COMMON_QUEUE
from breakwater.redis.connection import shown
from breakwater.redis.foreign_keys import named
from workers.commands import (
    ask,
    breakers,
    dead_letters,
    ledger,
    metrics,
    operations,
    queues,
    top,
    why,
    workers,
    workflows,
)  # fmt: skip
from workers.terminal.console import (
    AsJson,
    Screen,
    err,
    exit_code,
    flush_streams,
    group,
    out,
    prepare_streams,
    print_json,
)

cli = group(cls=Screen, no_args_is_help=True, add_completion=True)
cli.add_typer(breakers.cli, name="breakers")
cli.add_typer(dead_letters.cli, name="dead")
cli.add_typer(ledger.cli, name="ledger")
cli.add_typer(metrics.cli, name="metrics")
cli.add_typer(workflows.cli, name="workflow")
for command in (
    queues.queues, queues.pause, queues.resume,
    workers.workers, workers.drain, workers.reload,
    operations.operations, why.why, top.top, ask.ask,
):  # fmt: skip
    cli.command()(command)
cli.command(hidden=True)(workflows.workflows)  # what `workflow` alone does, too


def main() -> None:
    """Run the command; an error of ours is one line on standard error, exit code 1 (or 2)."""
    # What the breakers log for a worker, a command says in its own words.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    prepare_streams()
    try:
        try:
            cli()
        except SystemExit as ended:
            raise SystemExit(exit_code(ended)) from None
        finally:
            flush_streams()
    except RedisError as error:
        what, step = named(error, [COMMON_QUEUE])
        err.print(f"Redis: {what}, at {shown()}; {step}", style="red")
        raise SystemExit(1) from None
    except (BreakwaterError, OperationalError) as error:
        err.print(f"{type(error).__name__}: {error}", style="red")
        raise SystemExit(2 if isinstance(error, UnknownRole) else 1) from None
    except OSError as error:  # a full disk under standard output, a file that may not be read
        err.print(f"{type(error).__name__}: {error}", style="red")
        raise SystemExit(1) from None


def _version(wanted: bool) -> None:
    if not wanted:
        return
    try:
        out.print(version("breakwater-llm"))
    except PackageNotFoundError:  # run from a checkout that pip did not install
        out.print("unknown: breakwater-llm is not installed; run pip install '.[worker]'")
    raise typer.Exit


@cli.callback()
def breakwater(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, hidden=True)
    ] = False,
) -> None:
    """Ask, watch and steer a fleet; reads REDIS_URL, ROLES_FILE and LEDGER_URL."""


@cli.command()
def doctor(
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Only the roles file and the environment; ask nobody."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """
    Check the whole set-up, and say what to do next.

    The roles file, each key at its provider, Redis, the clocks, queues without a
    role, settings that hurt, and packages that hide ours. Exit code 1 if there is
    a fault.
    """
    from workers.doctor.checks import examine  # noqa: PLC0415 - imports the vendors' SDKs

    findings = examine(offline=offline)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    for finding in [] if as_json else findings:
        colour = {"ok": "green", "warning": "yellow", "fault": "red"}[finding.level]
        level = finding.level.upper() if finding.level == "fault" else finding.level
        out.print(f"{level:8}", style=colour, end="")
        out.print(f"{finding.about}: {finding.what}", soft_wrap=True)
        if finding.next_step:
            out.print(f"{'':8}→ {finding.next_step}", soft_wrap=True, style="dim")
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
    from workers.demo.story import run  # noqa: PLC0415 - nobody else needs it

    raise typer.Exit(run(simulated=simulated))
