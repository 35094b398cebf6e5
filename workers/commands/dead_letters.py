"""`breakwater dead`: what is past help, and an operator's decision on it."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from typing import Annotated, Any

import typer

from breakwater.attempt import attempts_as_json
from breakwater.messaging.journal import Command
from breakwater.redis.connection import client
from tasks.operations.dead_letters import DeadLetter, DeadLetters, LetterFilter
from tasks.operations.operator import Operator
from workers.terminal.console import (
    CHECKS_FAILED,
    AsJson,
    at_utc,
    confirm,
    err,
    fail,
    group,
    out,
    print_json,
    seconds,
    usable_redis_url,
)
from workers.terminal.plain import plain
from workers.terminal.table import Table

NOT_RETRIED = {
    "gone": "was retried or dropped by somebody else",
    "lost": "has no message any more",
    "answered": "has another result since",
}

SHOWN = 10
"""Letters that are shown before many are decided on."""

cli = group(invoke_without_command=True)


Names = Annotated[
    list[str] | None, typer.Argument(metavar="ID", help="A task's id, or a letter's own.")
]
Role = Annotated[str | None, typer.Option(help="Only letters of this role.")]
Error = Annotated[str | None, typer.Option(help="Only of this class of error.")]
Older = Annotated[
    float | None,
    typer.Option("--older-than", parser=seconds, metavar="AGE", help="Such as 30m or 7d."),
]
Newer = Annotated[
    float | None, typer.Option("--newer-than", parser=seconds, metavar="AGE", help="As above.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask first.")]
All = Annotated[bool, typer.Option("--all", help="Every letter there is.")]


@cli.callback()
def dead(
    context: typer.Context,
    role: Role = None,
    error: Error = None,
    older_than: Older = None,
    newer_than: Newer = None,
    count: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    before: Annotated[
        str, typer.Option(metavar="ID", help="The next page: behind this letter.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Show dead letters, newest first, or decide on them."""
    if context.invoked_subcommand:
        return
    wanted = LetterFilter(role, error, older_than_s=older_than or 0, newer_than_s=newer_than)
    found = [*islice(_letters().find(wanted, before=_letter_id(before)), count + 1)]
    letters, more = found[:count], len(found) > count
    if as_json:
        print_json([_told(letter) for letter in letters])
    elif letters:
        out.print(_table(letters))
    else:
        out.print(
            "no dead letters" + ("" if wanted == LetterFilter() and not before else " like that")
        )
    if more:
        err.print(f"there are more: --before {letters[-1].id}", style="dim")


@cli.command()
def show(
    name: Annotated[str, typer.Argument(metavar="ID", help="A task's id, or a letter's own.")],
    prompt: Annotated[bool, typer.Option("--prompt", help="Show the prompt as well.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show one letter with its whole history."""
    letters = _letters()
    letter = letters.get(name)
    if letter is None:
        fail(f"no dead letter of {name!r}")
    told = _told(letter)
    if prompt:
        try:
            told["prompt"] = letters.prompt(letter)
        except ValueError as error:
            fail(str(error))
    if as_json:
        print_json(told)
        return
    del told["attempts"]
    for key, value in told.items():
        out.print(f"{key + ':':10}{plain(value)}", soft_wrap=True)
    table = Table("provider", "model", "outcome", "error", "status", "ms", "why", right=("ms",))
    for each in letter.attempts:
        table.add(
            each.provider, each.model, each.outcome, each.error or "", each.status or "",
            each.latency_ms or "", each.why,
        )  # fmt: skip
    out.print(table if letter.attempts else "no attempt was made")


@cli.command()
def retry(
    names: Names = None,
    role: Role = None,
    error: Error = None,
    older_than: Older = None,
    newer_than: Newer = None,
    all_: All = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """
    Queue letters again, each with a new deadline: by id, by filter, or all.

    Of a filter and of all it shows which those are, and asks first; each may be paid again.
    """
    letters, wanted = _letters(), _wanted(names, role, error, older_than, newer_than, all_)
    if not names:
        _ask_first("retry", [*_chosen(letters, wanted)], yes)
    operator, command, told = _operator(), Command(), Counter[str]()
    for letter in _chosen(letters, wanted):
        outcome = operator.retry(letter, command)
        told[outcome] += 1
        if outcome != "retried":
            err.print(f"{letter.name} {NOT_RETRIED[outcome]}", style="yellow")
    if as_json:
        print_json({outcome: told[outcome] for outcome in ("retried", *NOT_RETRIED)})
    else:
        out.print(f"retried {told['retried']}")
    if names and told["retried"] < told.total():
        raise typer.Exit(CHECKS_FAILED)


@cli.command()
def drop(
    names: Names = None,
    role: Role = None,
    error: Error = None,
    older_than: Older = None,
    newer_than: Newer = None,
    all_: All = False,
    yes: Yes = False,
) -> None:
    """Remove letters and their prompts for good: by id, by filter, or all."""
    letters, wanted = _letters(), _wanted(names, role, error, older_than, newer_than, all_)
    _ask_first("drop", [*_chosen(letters, wanted)], yes)
    out.print(f"dropped {_operator().drop(_chosen(letters, wanted))}")


def _ask_first(what: str, letters: list[DeadLetter], yes: bool) -> None:
    """Show which letters are chosen, and ask; end the command unless the answer is yes."""
    if letters and not yes:
        err.print(_table(letters[:SHOWN]), soft_wrap=False)
        if len(letters) > SHOWN:
            err.print(f"and {len(letters) - SHOWN} more", style="dim")
    of_them = "dead letter" if len(letters) == 1 else "dead letters"
    with_prompts = " and their prompts, for good" if what == "drop" else ""
    confirm(f"{what} {len(letters)} {of_them}{with_prompts}", yes, len(letters))


def _operator() -> Operator:
    return Operator(client(usable_redis_url()))


def _letters() -> DeadLetters:
    return DeadLetters(client(usable_redis_url()))


def _wanted(
    names: list[str] | None,
    role: str | None,
    error: str | None,
    older_than_s: float | None,
    newer_than_s: float | None,
    all_: bool,
) -> LetterFilter:
    """Refuse words that could mean more letters than were meant."""
    filtered = LetterFilter(role, error, older_than_s=older_than_s or 0, newer_than_s=newer_than_s)
    if sum((bool(names), filtered != LetterFilter(), all_)) != 1:
        raise typer.BadParameter("give ids, or filters such as --role, or --all")
    return LetterFilter(names=frozenset(names)) if names else filtered


def _chosen(letters: DeadLetters, wanted: LetterFilter) -> Iterator[DeadLetter]:
    """Find the letters that are wanted now; a task that is named stands for its newest one."""
    missing = set(wanted.names)
    if not missing:
        # What dies again meanwhile is younger than the first, and is not chosen twice.
        yield from letters.find(wanted)
        return
    found = []
    for letter in letters.find(wanted):
        if not missing.isdisjoint((letter.task_id, letter.id)):
            missing -= {letter.task_id, letter.id}
            found.append(letter)
        if not missing:
            break
    if missing:
        fail(f"no dead letter of {', '.join(map(repr, sorted(missing)))}; nothing was changed")
    yield from found


def _letter_id(name: str) -> str:
    if name and not re.fullmatch(r"\d{1,15}-\d{1,15}", name):
        raise typer.BadParameter(f"{name!r} is no letter's own id, such as 1763700000000-0")
    return name


def _told(letter: DeadLetter) -> dict[str, Any]:
    attempts = attempts_as_json(letter.attempts)
    return {**asdict(letter), "attempts": attempts, "at": at_utc(letter.at_ms)}


def _table(letters: Iterable[DeadLetter]) -> Table:
    table = Table("at (UTC)", "id", "role", "error", "message", whole=("id",))
    for letter in letters:
        table.add(at_utc(letter.at_ms), letter.name, letter.role, letter.error, letter.message)
    return table
