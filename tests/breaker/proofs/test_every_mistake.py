"""
Mutation of the Lua: every small mistake one could make in a script is noticed.

A mutant is killed by a story that it tells differently from the reference model. One that is told
the same by hundreds of stories is equivalent, and stands below with the reason.
"""

import random
from collections.abc import Iterator
from dataclasses import fields

import pytest
import redis

from breaker import redis_storage
from breaker.changes import CHANNEL
from breaker.redis_storage import RedisStorage, Scripts
from breaker.state import Report, Rules
from tests.breaker.conftest import CLOCK, TIME
from tests.support.breaker_model import Numbers
from tests.support.breaker_pair import START_US, DisagreementError, Story, tell
from tests.support.lua_mutants import Mutant, mutants
from tests.support.valkey import Server

STORIES = [(60, 40), (150, 120)]
"""How many, and how long; the second kind is told where the first notices nothing."""
NOTICED = (DisagreementError, redis.RedisError, ValueError, KeyError, IndexError, TypeError)

ONLY_WRITES = "writes what is there already"
SAME_STATE = "`from` is the state until a transition, and there has been none yet"
A_FLAG = "the client reads it as true or false"
NOT_READ = "nobody reads the verdict of a peek"
EQUIVALENT = {
    ("breaker", "local relieved = true"): ONLY_WRITES,
    ("breaker", "if n and n >= 0 and n <= 2 ^ 53 then return math.floor(n) end"): "no number is 2^53 exactly",
    ("breaker", "if n and n >= 0 and n < 2 ^ 53 then return math.ceil(n) end"): "only whole numbers are written",
    ("breaker", "if n and n >= 0 and n < 3 ^ 53 then return math.floor(n) end"): "no number is between 2^53 and 3^53",
    ("breaker", "if b[deadline] - now >= b[planned] then"): ONLY_WRITES,
    ("breaker", "if from ~= 'half-open' or expiry <= now then"): SAME_STATE,
    ("breaker", "if expiry - now >= lease_ms then"): ONLY_WRITES,
    ("breaker", "if b.held_until_ms >= 0 and b.held_until_ms <= now then"): ONLY_WRITES,
    ("breaker", "if b.held_until_ms > 1 and b.held_until_ms <= now then"): "no deadline is in 1970",
    ("breaker", "if token then read_lease(token, natural(value, 1)) end"): "1 has expired as long as 0",
    ("breaker", "redis.call('XADD', events, 'MAXLEN', '~', 1024, '*', 'from', b.state, 'to', to, 'reason', reason,"): "the stream's length is about 1,000",
    ("breaker", "from, transitioned, dirty = b.state, 2, true"): A_FLAG,
    ("breaker", "b.seq = b.seq + 2"): "it orders views, by any steps",
    ("breaker", "rebuilt = 2"): A_FLAG,
    ("breaker", "local entry = redis.call('XREVRANGE', events, '+', '-', 'COUNT', 2)[1]"): "the first of two is the first of one",
    ("breaker", "b.generation = natural(last.generation, 1)"): "Redis' time in µs is more than 1",
    ("breaker", "b.reason = b.held_until_ms > 1 and 'throttled' or ''"): "no deadline is in 1970",
    ("admit", "if b.held_until_ms >= now then return answer(0, b.held_until_ms - now) end"): "a hold that ends now was forgotten when read",
    ("record", "if generation ~= b.generation or from == 'open' or (b.state == 'half-open' and not leases[token]) then"): SAME_STATE,
    ("record", "if generation ~= b.generation or b.state == 'open' or (from == 'half-open' and not leases[token]) then"): SAME_STATE,
    ("record", "if from == 'closed' then b.reason = 'throttled' end"): SAME_STATE,
    ("record", "if from == 'half-open' or proof or b.failures >= fail_max then"): SAME_STATE,
    ("record", "if from == 'closed' then"): SAME_STATE,
    ("record", "elseif outcome == 'success' and from == 'half-open' then"): SAME_STATE,
    ("record", "b.trips = math.max(0, b.trips - math.floor(math.max(1, now - b.since_ms) / stable_ms))"): "a ms is a stable time only if that is 1 ms",
    ("record", "elseif outcome == 'success' and (b.failures >= 0 or relieved) then"): ONLY_WRITES,
    ("peek", "return view(1, 1)"): NOT_READ,
    ("peek", "return view(0, 0)"): NOT_READ,
    ("peek", "return view(2, 0)"): NOT_READ,
}  # fmt: skip


def _key(mutant: Mutant) -> tuple[str, str]:
    return mutant.file, mutant.after.strip()


@pytest.fixture(scope="module")
def server() -> Iterator[redis.Redis]:
    """Its own: a mutant may leave it in any state, or busy for ever."""
    with Server(appendonly="no") as running:
        client = redis.Redis(port=running.port, decode_responses=True, socket_timeout=30)
        yield client
        client.close()


def _clocked(scripts: Scripts) -> Scripts:
    sources = {field.name: getattr(scripts, field.name) for field in fields(Scripts)}
    return Scripts(**{name: s.replace("redis.call('TIME')", TIME) for name, s in sources.items()})


def _numbers(dice: random.Random) -> Numbers:
    return Numbers(
        fail_max=dice.randint(1, 4), threshold=dice.randint(1, 3), max_probes=dice.randint(1, 4),
        reset_ms=dice.randint(1, 60), lease_ms=dice.randint(2, 60),
        open_factor=dice.randint(1, 3), open_max_ms=dice.randint(60, 200),
        stable_ms=dice.choice([dice.randint(2, 30), dice.randint(30, 300)]),
    )  # fmt: skip


def _is_noticed(client: redis.Redis, scripts: Scripts) -> bool:
    """Tell stories until one is told differently."""
    try:
        _look_at_jitter(client, scripts)
        _listen(client, scripts)
        for round_, (stories, length) in enumerate(STORIES):
            for seed in range(stories):
                dice = random.Random(f"{round_}.{seed}")
                tell(Story(client, scripts, _numbers(dice)), seed, length)
    except NOTICED:
        return True
    return False


def _look_at_jitter(client: redis.Redis, scripts: Scripts) -> None:
    """The one number that the model does not know: an open time of 3 ms, half as long again."""
    client.flushall()
    client.set(CLOCK, START_US)
    rules = Rules(fail_max=1, reset_timeout_s=0.003, open_jitter=1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redis_storage.random, "random", lambda: 0.5)
        store = RedisStorage(client, scripts)
        generation = store.admit("x", rules, "t").view.generation
        store.record("x", rules, Report("t", generation, "failure"))
    if client.hget("breaker:{x}", "open_for_ms") != "4":
        raise DisagreementError("an open time of 3 ms with jitter 1.5 is 4 ms")


def _listen(client: redis.Redis, scripts: Scripts) -> None:
    """No story hears what is published: a write is, under the breaker's name."""
    with client.pubsub() as channel:
        channel.subscribe(CHANNEL)
        channel.get_message(timeout=60)
        RedisStorage(client, scripts).force("x", Rules(), to="open")
        client.publish(CHANNEL, "what comes after it")
        message = channel.get_message(timeout=60)
    if not message or message["data"] != "x":
        raise DisagreementError("a write is published under the breaker's name")


def _check(client: redis.Redis, chosen: list[Mutant]) -> None:
    survivors = [str(m) for m in chosen if not _is_noticed(client, _clocked(m.scripts()))]
    print(f"{len(chosen)} mutants, {len(survivors)} survived")
    assert not survivors, "\n".join(survivors)


def _to_be_killed() -> list[Mutant]:
    return [mutant for mutant in mutants() if _key(mutant) not in EQUIVALENT]


def test_the_scripts_themselves_tell_the_same(server: redis.Redis) -> None:
    """Or every mutant would be killed by the model's mistakes."""
    assert not _is_noticed(server, _clocked(Scripts.packaged()))


@pytest.mark.slow
def test_a_sample_of_mistakes_is_noticed(server: redis.Redis) -> None:
    """One in eight, of every script."""
    sample = _to_be_killed()[::8]

    assert len(sample) >= 40
    assert {mutant.file for mutant in sample} >= {"breaker", "admit", "record", "renew", "force"}
    _check(server, sample)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_mistake_is_noticed(server: redis.Redis) -> None:
    """All of them."""
    _check(server, _to_be_killed())


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_nothing_notices_what_is_called_equivalent(server: redis.Redis) -> None:
    """No mistake hides behind a wrong excuse."""
    excused = [mutant for mutant in mutants() if _key(mutant) in EQUIVALENT]

    noticed = [str(m) for m in excused if _is_noticed(server, _clocked(m.scripts()))]

    assert not noticed, "\n".join(noticed)


def test_what_is_called_equivalent_exists() -> None:
    """A line that has changed takes its excuse along."""
    assert EQUIVALENT.keys() <= {_key(mutant) for mutant in mutants()}
