"""The `breakwater` command: look at the fleet, move a breaker by hand, ask, check the set-up."""

import json
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from typing import Annotated, Any, NoReturn

import typer
from celery.exceptions import TimeoutError as NoAnswer
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from rich.console import Console
from rich.live import Live
from rich.table import Table

from breaker import Breakers, BreakerState
from tasks import complete
from tasks.errors import BreakwaterError, nearest
from tasks.queue import redis_url

cli = typer.Typer(no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)
breakers_cli = typer.Typer(invoke_without_command=True, help="Show and move the breakers.")
cli.add_typer(breakers_cli, name="breakers")
out, err = Console(highlight=False), Console(stderr=True, highlight=False)

AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
Name = Annotated[str, typer.Argument(help="The breaker's name, as in roles.yaml.")]
COLOURS = {"closed": "green", "open": "red", "half-open": "yellow"}


def main() -> None:
    """Run the command; an error of ours is one line on standard error, exit code 1."""
    try:
        cli()
    except (BreakwaterError, OperationalError, RedisError) as error:
        _fail(f"{type(error).__name__}: {error}")


def _fail(message: str) -> NoReturn:
    err.print(message, style="red", markup=False)
    raise SystemExit(1)


def _version(wanted: bool) -> None:
    if wanted:
        out.print(version("breakwater"))
        raise typer.Exit


@cli.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@breakers_cli.callback()
def show(
    context: typer.Context,
    watch: Annotated[bool, typer.Option(help="Look again twice a second.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show every breaker: state, failures, when it opens, trips, last reason."""
    if context.invoked_subcommand:
        return
    breakers = Breakers.from_url(redis_url(), timeout_s=2)
    if as_json:
        out.print_json(json.dumps([asdict(state) for state in _states(breakers)]))
    elif not watch:
        out.print(_table(_states(breakers)))
    else:
        with Live(console=out, refresh_per_second=4) as live:
            while True:
                live.update(_table(_states(breakers)))
                time.sleep(0.5)


@breakers_cli.command()
def events(name: Name, count: int = 20, as_json: AsJson = False) -> None:
    """Show a breaker's last transitions, newest first."""
    told = _known(name).events(name, count)
    if as_json:
        out.print_json(json.dumps(told))
        return
    table = Table("at (UTC)", "from", "to", "reason", "failures", "trips", "who", box=None)
    for event in told:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(int(event["at_ms"]) / 1000))
        table.add_row(at, *(event[x] for x in ("from", "to", "reason", "failures", "trips", "who")))
    out.print(table)


@breakers_cli.command("open")
def force_open(name: Name) -> None:
    """Take a provider out: nothing is sent to it until `auto`."""
    _known(name).get(name).force("open")


@breakers_cli.command("close")
def force_closed(name: Name) -> None:
    """Send to a provider whatever its breaker says, until `auto`."""
    _known(name).get(name).force("closed")


@breakers_cli.command()
def auto(name: Name) -> None:
    """Give a breaker back to its own rules."""
    _known(name).get(name).force(None)


@cli.command()
def ask(
    role: str,
    prompt: Annotated[str, typer.Argument(help="`-` reads standard input.")],
    system: Annotated[str | None, typer.Option(help="Instead of the role's own.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the answer.")] = 120,
    as_json: AsJson = False,
) -> None:
    """Enqueue a prompt, wait, and show the answer and where it was routed."""
    text = sys.stdin.read() if prompt == "-" else prompt
    options = {"system": system} if system else {}
    result = complete.apply_async((role, text), options)
    try:
        answer: dict[str, Any] = result.get(timeout=timeout)
    except NoAnswer:
        _fail(
            f"no answer within {timeout:g} s; task {result.id} is still waiting: does a worker "
            f"run (celery -A workers worker), and what do `breakwater breakers` say?"
        )
    if as_json:
        out.print_json(json.dumps(answer))
        return
    out.print(answer["text"], markup=False)
    for tried in answer["attempts"]:
        what = tried["error"] or f"{tried['latency_ms']} ms"
        err.print(f"{tried['provider']}: {tried['outcome']}, {what}, {tried['why']}", style="dim")


@cli.command()
def doctor(as_json: AsJson = False) -> None:
    """Check the roles file, the keys at their providers, Redis, and what shadows our packages."""
    from workers.doctor import examine  # noqa: PLC0415 - imports the vendors' SDKs

    findings = examine()
    if as_json:
        out.print_json(json.dumps([asdict(finding) for finding in findings]))
    for finding in [] if as_json else findings:
        colour = {"ok": "green", "warning": "yellow", "fault": "red"}[finding.level]
        out.print(f"[{colour}]{finding.level:8}[/]", finding.what, soft_wrap=True)
    raise typer.Exit(any(finding.level == "fault" for finding in findings))


@cli.command()
def demo() -> None:
    """Watch a provider die under a fleet of workers, and come back; about 20 seconds."""
    from workers.demo import run  # noqa: PLC0415 - starts an embedded server

    raise typer.Exit(run())


def _states(breakers: Breakers) -> list[BreakerState]:
    """
    Read every breaker.

    Raises:
        RedisError: Redis does not answer; there is nothing else to show here.
    """
    states = breakers.peek_all()
    if not states:
        breakers.events("any", 1)
    return states


def _known(name: str) -> Breakers:
    breakers = Breakers.from_url(redis_url(), timeout_s=2)
    names = [state.name for state in _states(breakers)]
    if name not in names:
        known = ", ".join(names) or "none yet: a worker makes them with the first prompt"
        _fail(f"no breaker {name!r} in Redis; there are {known}{nearest(name, names)}")
    return breakers


def _table(states: list[BreakerState]) -> Table:
    table = Table(
        "breaker", "state", "failures", "opens in", "held", "trips", "forced", "reason", box=None
    )
    for state in states:
        table.add_row(
            state.name,
            f"[{COLOURS[state.state]}]{state.state}[/]",
            str(state.failures),
            f"{state.open_for_s:.1f} s" if state.open_for_s else "",
            f"{state.held_for_s:.1f} s" if state.held_for_s else "",
            str(state.trips),
            state.forced or "",
            state.reason,
        )
    return table
