"""
The `breakwater` command.

Exit codes: 0 all is well; 1 a fault of Breakwater or its surroundings; 2 wrong arguments; 3 the
command ended, and some rows or checks failed; 130 Ctrl-C.
"""

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
    docs,
    ledger,
    ledger_reports,
    operations,
    queues,
    top,
    why,
    workers,
    workflows,
)  # fmt: skip
from workers.doctor.finding import Finding
from workers.terminal.console import (
    CHECKS_FAILED,
    AsJson,
    CompactHelp,
    err,
    exit_code,
    flush_streams,
    group,
    out,
    prepare_streams,
    print_json,
)

LEVELS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "fault": ("FAULT", "red")}
"""The word and the colour of each level of a finding."""

cli = group(cls=CompactHelp, no_args_is_help=True, add_completion=True)
cli.add_typer(breakers.cli, name="breakers")
cli.add_typer(dead_letters.cli, name="dead")
cli.add_typer(ledger.cli, name="ledger")
cli.add_typer(ledger_reports.OLD_GROUP, name="metrics", hidden=True)
cli.add_typer(workflows.cli, name="workflow")
for command in (
    queues.queues, queues.pause, queues.resume,
    workers.workers, workers.drain, workers.reload,
    operations.operations, why.why, top.top, ask.ask, docs.docs,
):  # fmt: skip
    cli.command()(command)
cli.command(hidden=True)(workflows.workflows)  # the same as `workflow` without a command


def main() -> None:
    """Run the command; print an expected error as one line, with exit code 1 or 2."""
    # The breakers log for workers; a command prints its own messages.
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
        message, step = named(error, [COMMON_QUEUE])
        err.print(f"Redis: {message}, at {shown()}; {step}", style="red")
        raise SystemExit(1) from None
    except (BreakwaterError, OperationalError) as error:
        err.print(f"{type(error).__name__}: {error}", style="red")
        raise SystemExit(_exit_code_of(error)) from None
    except OSError as error:  # such as a full disk, or a file that may not be read
        err.print(f"{type(error).__name__}: {error}", style="red")
        raise SystemExit(1) from None


def _exit_code_of(error: Exception) -> int:
    if isinstance(error, UnknownRole):
        return 2
    return 1


def _print_version(is_wanted: bool) -> None:
    if not is_wanted:
        return
    try:
        out.print(version("breakwater-llm"))
    except PackageNotFoundError:  # a checkout that pip did not install
        out.print("unknown: breakwater-llm is not installed; run pip install '.[worker]'")
    raise typer.Exit


@cli.callback()
def breakwater(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, hidden=True)
    ] = False,
) -> None:
    """Use, watch and control a fleet; reads REDIS_URL, ROLES_FILE and LEDGER_URL."""


@cli.command()
def doctor(
    offline: Annotated[
        bool,
        typer.Option("--offline", help="The roles file and the environment only; no connections."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """
    Check the whole set-up, and print what to do next.

    The roles file, each key at its provider, Redis, the clocks, queues without a
    role, harmful settings, and packages that hide Breakwater's. Exit code 3 if there
    is a fault.
    """
    from workers.doctor.checks import examine  # noqa: PLC0415 - imports the vendors' SDKs

    findings = examine(offline=offline)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            _print_finding(finding)
    if any(finding.level == "fault" for finding in findings):
        raise typer.Exit(CHECKS_FAILED)


def _print_finding(finding: Finding) -> None:
    word, colour = LEVELS[finding.level]
    out.print(f"{word:8}", style=colour, end="")
    out.print(f"{finding.about}: {finding.what}", soft_wrap=True)
    if finding.next_step:
        out.print(f"{'':8}→ {finding.next_step}", soft_wrap=True, style="dim")


@cli.command(hidden=True)  # `make demo`; it needs the extra `demo`
def demo(
    simulated: Annotated[
        bool, typer.Option("--simulated", help="Call no real provider, whatever keys are set.")
    ] = False,
) -> None:
    """
    Watch a provider fail under three workers, and recover.

    About half a minute; needs no server and no key. With keys of real providers in
    the environment it sends them a few short prompts, and breaks nothing.
    """
    from workers.demo.story import run  # noqa: PLC0415 - only this command needs it

    raise typer.Exit(run(simulated=simulated))
