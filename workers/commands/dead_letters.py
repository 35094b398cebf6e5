"""`breakwater dead`: show the tasks that failed for good, and retry or drop them."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from typing import Annotated

import typer

from breakwater.attempt import Attempt, attempts_as_json
from breakwater.messaging.journal import Command
from breakwater.redis.connection import client
from tasks.operations.dead_letters import DeadLetter, DeadLetters, LetterFilter
from tasks.operations.operator import Operator
from workers.terminal.console import (
    CHECKS_FAILED,
    AsJson,
    confirm,
    err,
    fail,
    group,
    out,
    print_json,
    usable_redis_url,
)
from workers.terminal.figures import at_utc, number_of, seconds
from workers.terminal.plain import plain
from workers.terminal.table import Table

NOT_RETRIED = {
    "gone": "was retried or dropped by another operator",
    "lost": "no longer has a message",
    "answered": "has another result since",
}
MAX_SHOWN = 10
"""How many letters are shown before a command changes many."""

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
All = Annotated[bool, typer.Option("--all", help="Every letter.")]


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
    """Show dead letters, newest first, or retry or drop them."""
    if context.invoked_subcommand:
        return
    wanted = LetterFilter(role, error, older_than_s=older_than or 0, newer_than_s=newer_than)
    page = [*islice(_letters().find(wanted, before=_letter_id(before)), count + 1)]
    letters = page[:count]
    if as_json:
        print_json([_as_dict(letter) for letter in letters])
    elif letters:
        out.print(_table(letters))
    elif before or wanted != LetterFilter():
        out.print("no dead letters match")
    else:
        out.print("no dead letters")
    if len(page) > count:
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
    fields = _as_dict(letter)
    if prompt:
        try:
            fields["prompt"] = letters.prompt(letter)
        except ValueError as error:
            fail(str(error))
    if as_json:
        print_json(fields)
        return
    _print_letter(fields, letter.attempts)


def _print_letter(fields: dict[str, object], attempts: list[Attempt]) -> None:
    for key, value in fields.items():
        if key != "attempts":
            out.print(f"{key + ':':10}{plain(value)}", soft_wrap=True)
    if not attempts:
        out.print("no attempt was made")
        return
    table = Table("provider", "model", "outcome", "error", "status", "ms", "why", right=("ms",))
    for attempt in attempts:
        table.add(
            attempt.provider,
            attempt.model,
            attempt.outcome,
            attempt.error or "",
            attempt.status or "",
            attempt.latency_ms or "",
            attempt.why,
        )
    out.print(table)


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
    Queue letters again: by id, by filter, or all.

    Each gets a new deadline, and may be paid again. With a filter or --all it shows the
    letters, and asks first.
    """
    wanted = _wanted(names, role, error, older_than, newer_than, all_)
    letters, operator, command = _letters(), _operator(), Command()
    if not names:
        _ask_first("retry", [*_choose(letters, wanted)], yes)
    outcomes = Counter[str]()
    for letter in _choose(letters, wanted):
        outcome = operator.retry(letter, command)
        outcomes[outcome] += 1
        if outcome != "retried":
            err.print(f"{letter.name} {NOT_RETRIED[outcome]}", style="yellow")
    if as_json:
        print_json({outcome: outcomes[outcome] for outcome in ("retried", *NOT_RETRIED)})
    else:
        out.print(f"retried {outcomes['retried']}")
    if names and outcomes["retried"] < outcomes.total():
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
    """
    Delete letters and prompts: by id, by filter, or all.

    They are deleted for good; it shows them, and asks first.
    """
    letters, wanted = _letters(), _wanted(names, role, error, older_than, newer_than, all_)
    _ask_first("drop", [*_choose(letters, wanted)], yes)
    out.print(f"dropped {_operator().drop(_choose(letters, wanted))}")


def _ask_first(verb: str, letters: list[DeadLetter], yes: bool) -> None:
    """Show the chosen letters, and ask; end the command unless the answer is yes."""
    if letters and not yes:
        err.print(_table(letters[:MAX_SHOWN]), soft_wrap=False)
        if len(letters) > MAX_SHOWN:
            err.print(f"and {len(letters) - MAX_SHOWN} more", style="dim")
    question = f"{verb} {number_of(len(letters), 'dead letter')}"
    if verb == "drop":
        question += " and their prompts, for good"
    confirm(question, yes, len(letters))


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
    """Build the filter; refuse arguments that could mean more letters than the user meant."""
    filtered = LetterFilter(role, error, older_than_s=older_than_s or 0, newer_than_s=newer_than_s)
    if sum((bool(names), filtered != LetterFilter(), all_)) != 1:
        raise typer.BadParameter("give ids, or filters such as --role, or --all")
    if names:
        return LetterFilter(names=frozenset(names))
    return filtered


def _choose(letters: DeadLetters, wanted: LetterFilter) -> Iterator[DeadLetter]:
    """Find the wanted letters now; the id of a task means the task's newest letter."""
    if wanted.names:
        yield from _choose_named(letters, wanted)
    else:
        # A task that dies again meanwhile has a newer letter, which is not chosen twice.
        yield from letters.find(wanted)


def _choose_named(letters: DeadLetters, wanted: LetterFilter) -> list[DeadLetter]:
    missing = set(wanted.names)
    chosen = []
    for letter in letters.find(wanted):
        if not missing.isdisjoint((letter.task_id, letter.id)):
            missing -= {letter.task_id, letter.id}
            chosen.append(letter)
        if not missing:
            return chosen
    return fail(f"no dead letter of {', '.join(map(repr, sorted(missing)))}; nothing was changed")


def _letter_id(name: str) -> str:
    if name and not re.fullmatch(r"\d{1,15}-\d{1,15}", name):
        raise typer.BadParameter(f"{name!r} is not a valid id of a letter, such as 1763700000000-0")
    return name


def _as_dict(letter: DeadLetter) -> dict[str, object]:
    attempts = attempts_as_json(letter.attempts)
    return {**asdict(letter), "attempts": attempts, "at": at_utc(letter.at_ms)}


def _table(letters: Iterable[DeadLetter]) -> Table:
    table = Table("at (UTC)", "id", "role", "error", "message", whole=("id",))
    for letter in letters:
        table.add(at_utc(letter.at_ms), letter.name, letter.role, letter.error, letter.message)
    return table
