"""
The invariants I1 to I14, I16 and I17 as one step of a breaker must keep them.

They look at a step from outside (what was asked, how the breaker stood before and after, what
was answered) and keep their own books, so that they can find a fault in the rules themselves.
"""

from dataclasses import dataclass, replace

from tests.support.breaker_model import Breaker, Numbers, Step

NATURAL = {
    ("closed", "open"),
    ("open", "half-open"),
    ("half-open", "open"),
    ("half-open", "closed"),
}


@dataclass(frozen=True, slots=True)
class Action:
    """What was asked; `token` and `generation` are those of the call."""

    kind: str  # admit, record, renew or force
    token: str = ""
    generation: int = 0
    outcome: str = ""
    retry_ms: int = 0
    trip: bool = False
    to: str = ""
    forced: str = ""


@dataclass(frozen=True, slots=True)
class Books:
    """
    What the laws remember themselves.

    Args:
        run: Failures of this generation since it entered closed or had its last success.
        won: Tokens that succeeded under a live lease in this half-open.
        newest: The greatest generation so far.
    """

    run: int = 0
    won: frozenset[str] = frozenset()
    newest: int = 0


def broken(  # noqa: C901 - one law after the other
    numbers: Numbers, action: Action, before: Breaker, step: Step, now: int, books: Books
) -> tuple[str, Books]:
    """
    Judge one step.

    Args:
        numbers: What the breaker goes by.
        action: What was asked.
        before: How the breaker stood at that moment, had it been asked nothing.
        step: What came of it.
        now: Server time in ms.
        books: The laws' own, before the step.

    Returns:
        The law that was broken, with a few words, or an empty string; and the books after it.
    """
    after, events = step.seen, step.events
    record = action.kind == "record"
    current = record and action.generation == before.generation and not before.lost
    leased = current and before.state == "half-open" and action.token in before.leases
    counted = leased or (current and before.state == "closed")
    granted = action.kind == "admit" and bool(step.accepted)
    books = _kept(action, before, step, books, leased=leased)

    if after.state == "closed" and not after.lost and after.failures != books.run:
        return f"I1 shows {after.failures} failures, counted {books.run}", books
    for event in events:
        if event.reason in ("manual", "lost"):
            continue
        if (event.before, event.to) not in NATURAL:
            return f"I2 went from {event.before} to {event.to}", books
        if event.to == "half-open" and now < before.open_until:
            return "I2 left open too early", books
        if event.before == "closed" and not (
            counted
            and action.outcome == "failure"
            and event.failures == before.failures + 1
            and (action.trip or event.failures == numbers.fail_max)
        ):
            return f"I2 opened on {event.failures} failures", books
        if (event.before, event.to) == ("half-open", "closed") and not (
            action.outcome == "success" and leased and len(books.won) == numbers.threshold
        ):
            return f"I5 closed on {len(books.won)} successes", books
    if counted and action.outcome == "failure" and before.failures + 1 >= numbers.fail_max:
        if after.state != "open":
            return "I2 did not open at fail_max", books
    if before.state == "open" and now < before.open_until and action.kind in ("admit", "record"):
        if granted and before.forced != "closed":
            return "I3 granted while open", books
        if replace(after, stale=0) != replace(before, stale=0):
            return "I3 changed while open", books
    if after.state == "half-open":
        room = min(numbers.max_probes, numbers.threshold - after.successes)
        if len(after.leases) > room:
            return f"I4 {len(after.leases)} leases, room for {room}", books
        if granted and not before.forced and action.token not in after.leases:
            return "I4 granted without a lease", books
    if after.successes != (len(books.won) if after.state == "half-open" else 0):
        return f"I5 shows {after.successes} successes, counted {len(books.won)}", books
    if record and not counted and not before.lost:
        if after != replace(before, stale=before.stale + 1):
            return "I6 a stale outcome changed something", books
    if record and action.outcome == "neutral":
        if (after.state, after.failures, after.successes) != (
            before.state, before.failures, before.successes,
        ) and not before.lost:  # fmt: skip
            return "I7 a neutral outcome counted", books
        if action.token in after.leases:
            return "I7 a neutral outcome kept its lease", books
    if leased and action.outcome == "failure":
        if after.state != "open" or after.leases or after.trips != before.trips + 1:
            return "I8 a failed probe did not open", books
    if after.leases and after.state != "half-open":
        return f"I9 leases while {after.state}", books
    if (events or step.rebuilt) and after.generation <= books.newest:
        return f"I10 generation {after.generation} after {books.newest}", books
    if not events and not step.rebuilt and after.generation != before.generation:
        return "I10 a new generation without a transition", books
    if after.open_until - now > after.open_for or after.held_until - now > after.held_for:
        return "I12 a deadline beyond its plan", books
    if any(expiry - now > numbers.lease_ms for expiry in after.leases.values()):
        return "I12 a lease beyond its length", books
    if action.kind == "admit" and action.token in before.leases and not before.forced:
        if not granted or after.leases != before.leases:
            return "I13 the same token was not the same grant", books
    if action.kind == "admit" and before.forced:
        if granted != (before.forced == "closed"):
            return f"I16 forced {before.forced} answered {step.accepted}", books
        if after != before and not before.lost:
            return "I16 an override changed what is underneath", books
    told = before.told[0] if before.told else "closed"
    for event in events:
        if event.before != told:
            return f"I17 an entry from {event.before} after one to {told}", books
        told = event.to
    if after.told and after.told[0] != after.state and not after.lost:
        return f"I17 {after.state}, but the stream says {after.told[0]}", books
    still_held = before.held_until > now and after.state == before.state and action.to != "closed"
    if still_held and after.held_until < before.held_until and not before.lost:
        return "hold: a later deadline was shortened", books
    if granted and before.held_until > now and not before.forced:
        if action.token not in before.leases:
            return "hold: granted while held back", books
    return "", replace(books, newest=max(books.newest, after.generation))


def _kept(action: Action, before: Breaker, step: Step, books: Books, *, leased: bool) -> Books:
    """Count what the step was, from what was asked alone."""
    run, won = books.run, books.won
    current = action.kind == "record" and action.generation == before.generation
    if current and before.state == "closed":
        run = {"failure": run + 1, "success": 0}.get(action.outcome, run)
    if leased and action.outcome == "success":
        won |= {action.token}
    if step.rebuilt:
        run, won = 0, frozenset()
    # The winners stay in the books for the step that closes, which is judged by them.
    if step.after.state == "closed" and before.state != "closed" and step.events:
        run = 0
    if before.state != "half-open" and step.after.state == "half-open" and step.events:
        won = frozenset()
    if step.after.state == "open":
        won = frozenset()
    if action.kind == "force" and action.to == "closed":
        run = 0
    if action.kind == "force" and action.to == "half-open":
        won = frozenset()
    return replace(books, run=run, won=won)
