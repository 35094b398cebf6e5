"""
What a fleet did to one breaker, put in order and judged by the laws.

The server is the witness: MONITOR tells each script it ran, in order, with the microsecond the
script took for its time, and each write the script made, so the hash is known after every step.
What the clients were told stands in their own logs (`breaker_stress.Worker`), and the event
stream is read by itself. All three must tell one story, and no step of it may break a law.
"""

import hashlib
import json
import re
import socket
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import redis

from breaker.redis_storage import Scripts
from tests.support.breaker_laws import Action, Books, broken
from tests.support.breaker_model import Breaker, Event, Model, Numbers, Step
from tests.support.breaker_pair import FIELDS
from tests.support.breaker_stress import KEY, RULES, THREADS
from tests.support.waiting import wait_until

# MONITOR reads its clock just after the script's time is fixed; a busy machine may come between.
BETWEEN_US = 20_000

NUMBERS = Numbers(
    fail_max=RULES["fail_max"], threshold=RULES["success_threshold"],
    max_probes=RULES["max_probes"], reset_ms=round(RULES["reset_timeout"] * 1000),
    lease_ms=round(RULES["lease_s"] * 1000), stable_ms=300_000,
)  # fmt: skip
KINDS = {
    hashlib.sha1(getattr(Scripts.packaged(), kind).encode()).hexdigest(): kind
    for kind in Scripts.__slots__
}
LINE = re.compile(rb"\+(\d+)\.(\d{6}) \[\d+ (\S+)\] (.*)")
WORD = re.compile(rb'"((?:[^"\\]|\\.)*)"')
ESCAPE = re.compile(rb"\\(x[0-9a-f]{2}|.)")


class Trace:
    """All that a server does between entering and leaving the context, as MONITOR tells it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._parts: list[bytes] = []

    def __enter__(self) -> "Trace":
        address = urlsplit(self._url)
        self._socket = socket.create_connection((address.hostname, address.port))
        self._socket.sendall(b"MONITOR\r\n")
        assert self._socket.recv(5) == b"+OK\r\n"
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread, as closing would not
        self._socket.close()

    def lines(self) -> list[bytes]:
        """Return all that has been done so far."""
        mark = f"mark {len(self._parts)} {id(self)}"
        redis.Redis.from_url(self._url).echo(mark)
        wait_until(lambda: mark.encode() in b"".join(self._parts[-50:]))
        return b"".join(self._parts).split(b"\r\n")

    def _listen(self) -> None:
        try:
            while part := self._socket.recv(1 << 20):
                self._parts.append(part)
        except OSError:
            return


@dataclass(frozen=True, slots=True)
class Taken:
    """
    One step the server took.

    Args:
        now_us: Its time.
        who: host:pid of the client.
        action: What was asked.
        after: The whole hash afterwards; the very same object if nothing was written.
        entries: What went into the stream.
    """

    now_us: int
    who: str
    action: Action
    after: Mapping[str, str]
    entries: tuple[Mapping[str, str], ...] = ()

    @property
    def pid(self) -> int:
        """The client's process."""
        return int(self.who.rpartition(":")[2])


def steps(lines: Iterable[bytes]) -> Iterator[Taken]:
    """Read what was done to the breaker; the hash must have been missing at the beginning."""
    stored: dict[str, str] = {}
    asked: tuple[int, str, Action] | None = None
    ran = False
    entries: list[dict[str, str]] = []

    def finished() -> Iterator[Taken]:
        if asked and ran:  # a script the server does not know yet is asked twice, and runs once
            yield Taken(*asked, stored, tuple(entries))

    for line in lines:
        if not (match := LINE.fullmatch(line)):
            continue
        if match[3] != b"lua":
            yield from finished()
            asked, ran, entries = None, False, []
            if match[4].startswith((b'"EVALSHA"', b'"EVAL"')):
                asked = _asked(int(match[1]) * 1_000_000 + int(match[2]), _words(match[4]))
        elif match[4].startswith(b'"HGETALL"'):
            ran = True
        elif not match[4].startswith(b'"TIME"'):
            stored, entry = _written(stored, _words(match[4]))
            entries += entry
    yield from finished()


def _written(
    stored: dict[str, str], words: list[str]
) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Do to a copy of the hash what the script did to it."""
    match words:
        case ["DEL", key] if key == KEY:
            return {}, []
        case ["HDEL", _, *gone]:
            return {name: value for name, value in stored.items() if name not in gone}, []
        case ["HSET", _, *pairs]:
            return {**stored, **dict(zip(pairs[::2], pairs[1::2], strict=True))}, []
        case ["XADD", _, "MAXLEN", "~", "1000", "*", *pairs]:
            return stored, [dict(zip(pairs[::2], pairs[1::2], strict=True))]
    return stored, []


def _asked(at_us: int, words: list[str]) -> tuple[int, str, Action] | None:
    """Understand the arguments, as the head of each script explains them."""
    script, (_, key, _, arguments) = words[1], words[2:]
    args = json.loads(arguments)
    if words[0] == "EVAL":
        script = hashlib.sha1(script.encode()).hexdigest()
    kind = KINDS.get(script)
    if key != KEY or kind in (None, "peek"):
        return None
    match kind:
        case "admit":
            action = Action("admit", args["token"])
        case "record":
            action = Action(
                "record", args["token"], args["generation"], args["outcome"],
                args["retry_after_ms"], args["is_proof"],
            )  # fmt: skip
        case "force":
            action = Action("force", to=args["to"], forced=args["forced"])
        case _:
            action = Action("renew")
    return at_us, args["who"], action


def _words(raw: bytes) -> list[str]:
    return [_unescaped(word).decode() for word in WORD.findall(raw)]


def _unescaped(word: bytes) -> bytes:
    if b"\\" not in word:
        return word
    names = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b"}
    return ESCAPE.sub(
        lambda m: bytes([int(m[1][1:], 16)]) if len(m[1]) == 3 else names.get(m[1], m[1]), word
    )


@dataclass(frozen=True, slots=True)
class History:
    """
    One breaker's life, from three sides.

    Args:
        taken: The server's steps, in order.
        stream: The event stream, in order, without the ids.
        logs: What each process wrote down: `grant`, `run`, `tell`, `told`, `drop`, `refused`.
        killed: Processes that did not end by themselves: their last words may be missing.
        numbers: What the breaker goes by.
    """

    taken: Sequence[Taken]
    stream: Sequence[Mapping[str, str]]
    logs: Mapping[int, Sequence[str]]
    killed: frozenset[int] = frozenset()
    numbers: Numbers = NUMBERS


@dataclass
class Judgement:
    """Faults found, each beginning with its law; and what there was to judge."""

    faults: list[str] = field(default_factory=list)
    figures: Counter[str] = field(default_factory=Counter)


def judge(history: History) -> Judgement:
    """Hold every step to the laws, and what clients and stream say to the steps."""
    found = Judgement()
    claims = Claims.read(history.logs)
    told = {step.action.token for step in history.taken if step.action.kind == "record"}
    granted = {*claims.grants, *told}  # only who was let through has a result to tell
    _hold_to_laws(history, granted, found)
    _compare_logs(history, claims, granted, found)
    written = [dict(entry) for step in history.taken for entry in step.entries]
    for number, entry in enumerate(written):
        if number >= len(history.stream) or dict(history.stream[number]) != entry:
            found.faults.append(f"I17 entry {number} of the stream is not {entry}")
            break
    if len(history.stream) > len(written):
        found.faults.append("I17 the stream has entries nobody wrote")
    return found


def _hold_to_laws(history: History, granted: set[str], found: Judgement) -> None:
    model = Model(history.numbers)
    stored: Mapping[str, str] = {}
    b, books = Breaker(), Books()
    for number, step in enumerate(history.taken):
        after, events = b, tuple(map(_event, step.entries))
        if step.after is not stored:
            after = _breaker(
                step.after, (events[-1].to, events[-1].generation) if events else b.told
            )
        for now_us in _times(history.numbers, step, b, after):
            before = model.seen(b, now_us)
            seen = model.seen(after, now_us) if after is b else after
            verdict = int(step.action.kind == "admit" and _let_through(step, granted))
            answer = Step(after, seen, verdict, 0, events, b.lost and not after.lost)
            law, kept = broken(history.numbers, step.action, before, answer, now_us // 1000, books)
            faults = [fault for fault in (law, _outside(step, before, seen, stored)) if fault]
            if not faults:
                break
        found.faults += [f"{fault} (step {number}, {step.who}: {step.action})" for fault in faults]
        books = kept
        _count(found.figures, step, before, seen, verdict)
        b, stored = after, step.after


def _times(numbers: Numbers, step: Taken, b: Breaker, after: Breaker) -> list[int]:
    """Tell what time the script may have seen: exactly, if what it wrote says so."""
    for entry in step.entries:
        return [int(entry["at_ms"]) * 1000]
    if step.action.kind == "admit" and step.action.token in after.leases.keys() - b.leases.keys():
        return [(after.leases[step.action.token] - numbers.lease_ms) * 1000]
    return [step.now_us, step.now_us - BETWEEN_US]


def _outside(step: Taken, before: Breaker, seen: Breaker, stored: Mapping[str, str]) -> str:
    """Judge what the laws leave to the store: nothing is written unseen, no lease comes back."""
    if step.after is not stored and int(step.after["seq"]) != int(stored.get("seq", "0")) + 1:
        return f"seq went from {stored.get('seq')} to {step.after['seq']}: a write is missing"
    fresh = seen.leases.keys() - before.leases.keys()
    if fresh - ({step.action.token} if step.action.kind == "admit" else set()):
        return "I5 a lease came back to life"
    return ""


def _count(
    figures: Counter[str], step: Taken, before: Breaker, seen: Breaker, accepted: int
) -> None:
    figures["steps"] += 1
    figures["admissions"] += accepted
    figures["results"] += step.action.kind == "record"
    figures["renewals"] += step.action.kind == "renew"
    figures["stale"] += seen.stale - before.stale
    figures["probes"] += step.action.kind == "admit" and step.action.token in seen.leases
    figures["probes at once"] = max(figures["probes at once"], len(seen.leases))
    for entry in step.entries:
        figures[f"{entry['from']}→{entry['to']}"] += 1


@dataclass
class Claims:
    """What the processes wrote down."""

    grants: dict[str, tuple[int, int, str]] = field(default_factory=dict)
    tells: dict[str, tuple[int, str]] = field(default_factory=dict)
    answers: dict[str, tuple[int, str]] = field(default_factory=dict)
    drops: set[str] = field(default_factory=set)
    runs: Counter[int] = field(default_factory=Counter)
    refusals: Counter[int] = field(default_factory=Counter)

    @classmethod
    def read(cls, logs: Mapping[int, Sequence[str]]) -> "Claims":
        """Read all logs."""
        claims = cls()
        for pid, lines in logs.items():
            for line in lines:
                match line.split():
                    case ["grant", token, generation, state]:
                        claims.grants[token] = pid, int(generation), state
                    case ["tell", token, outcome]:
                        claims.tells[token] = pid, outcome
                    case ["told", token, generation, state]:
                        claims.answers[token] = int(generation), state
                    case ["drop", token]:
                        claims.drops.add(token)
                    case ["run"]:
                        claims.runs[pid] += 1
                    case ["refused"]:
                        claims.refusals[pid] += 1
                    case _:
                        raise ValueError(f"{pid} wrote {line!r}")
        return claims


def _compare_logs(history: History, claims: Claims, granted: set[str], found: Judgement) -> None:
    """Hold what the processes wrote down against what the server did for them."""
    admits = [step for step in history.taken if step.action.kind == "admit"]
    records = [step for step in history.taken if step.action.kind == "record"]
    admitted = {step.action.token: step for step in admits}
    recorded = {step.action.token for step in records}
    found.faults += [
        *(fault for step in admits if (fault := _misled(step, claims, granted, history.killed))),
        *(fault for step in records if (fault := _misreported(step, claims, admitted))),
        *(f"I3 nobody granted {token}" for token in claims.grants.keys() - admitted.keys()),
        *(
            f"I13 what {token} told was lost"
            for token, (pid, _) in claims.tells.items()
            if token not in recorded and pid not in history.killed
        ),
        *(["I13 a token was admitted twice"] * (len(admits) - len(admitted))),
        *(["I13 a call told two results"] * (len(records) - len(recorded))),
    ]
    calls: dict[int, Counter[bool]] = defaultdict(Counter)
    for step in admits:
        calls[step.pid][_let_through(step, granted)] += 1
    dropped = Counter(claims.grants[token][0] for token in claims.drops)
    for pid, count in calls.items():
        lost = THREADS if pid in history.killed else 0  # one in each thread
        if abs(count[True] - dropped[pid] - claims.runs[pid]) > lost:
            found.faults.append(f"I18 {pid} ran {claims.runs[pid]} of {count[True]} calls")
        if abs(count[False] - claims.refusals[pid]) > lost:
            found.faults.append(f"I3 {pid} saw {claims.refusals[pid]} of {count[False]} refusals")


def _let_through(step: Taken, granted: set[str]) -> bool:
    """One killed before it could say so still has its lease."""
    return step.action.token in granted or f"probe:{step.action.token}" in step.after


def _misled(step: Taken, claims: Claims, granted: set[str], killed: frozenset[int]) -> str:
    """Compare what an admission was with what its process heard."""
    token, stands = step.action.token, (int(step.after["generation"]), step.after["state"])
    if token in claims.grants and claims.grants[token] != (step.pid, *stands):
        return f"I11 {token} was granted {claims.grants[token]}, it was {stands}"
    if token not in granted and stands[1] == "closed" and step.pid not in killed:
        return f"I14 closed did not let {token} through"
    return ""


def _misreported(step: Taken, claims: Claims, admitted: Mapping[str, Taken]) -> str:
    """Compare a result with its admission, with what was meant, and with what was heard."""
    token, stands = step.action.token, (int(step.after["generation"]), step.after["state"])
    asked = admitted.get(token)
    if not asked or asked.pid != step.pid:
        return f"I13 {token} told a result, and was never admitted"
    if step.action.generation != int(asked.after["generation"]):
        return f"I6 {token} is not of generation {step.action.generation}"
    meant = claims.tells.get(token, (0, "neutral" if token in claims.drops else ""))[1]
    if token in claims.grants and meant != step.action.outcome:
        return f"I13 {token} told {step.action.outcome}, meant {meant}"
    if claims.answers.get(token, stands) != stands:
        return f"I11 {token} heard {claims.answers[token]}, it was {stands}"
    return ""


def _breaker(stored: Mapping[str, str], told: tuple[str, int] | None) -> Breaker:
    """Read a hash into the model's words."""
    numbers: dict[str, Any] = {name: int(stored[field]) for name, field in FIELDS.items()}
    leases = {
        field.removeprefix("probe:"): int(expiry)
        for field, expiry in stored.items()
        if field.startswith("probe:")
    }
    return Breaker(
        state=stored["state"], reason=stored["reason"], who=stored["who"],
        forced=stored.get("forced", ""), leases=leases, lost=False, told=told, **numbers,
    )  # fmt: skip


def _event(entry: Mapping[str, str]) -> Event:
    return Event(
        entry["from"], entry["to"], entry["reason"], int(entry["failures"]),
        int(entry["successes"]), int(entry["generation"]), int(entry["open_until_ms"]),
        int(entry["trips"]), int(entry["at_ms"]),
    )  # fmt: skip
