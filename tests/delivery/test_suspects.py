"""What a worker dies of is found by letting it run apart; what ran beside it is not held against."""

import json
from collections import Counter
from importlib.resources import files

import pytest

from breakwater.messaging.settlement import Settlement
from tasks.delivery import delivery_store
from tasks.delivery.delivery_store import LEASE_MS, MAX_ALONE, MAX_LOST
from tasks.delivery.lease_keeper import DeliveryKeeper
from tasks.delivery.waits import Delay, Park
from tests.delivery.conftest import OTHER, QUEUE, Bench

CALL = '{"provider": "x", "model": "m"}'


def message(task_id: str) -> str:
    return json.dumps({"body": 'a body with \\"id\\": "no"', "headers": {"id": task_id}})


def pass_kept(bench: Bench, keeper: DeliveryKeeper) -> None:
    """Let a lease pass in which a worker looks."""
    for _ in range(LEASE_MS // 2000 + 2):
        bench.tick(2000)
        keeper._tend()


class Fleet:
    """
    Workers that take, begin and settle, and die of poison.

    Args:
        threads: How many tasks each runs at once.
        queues: That they consume.
        begins: Whether poison kills after its task has begun, or before.
    """

    def __init__(
        self, bench: Bench, threads: int, poison: set[str], *, begins: bool = True
    ) -> None:
        self.bench = bench
        self.threads = threads
        self.poison = poison
        self.begins = begins
        self.number = 0
        self.calls: Counter[str] = Counter()
        self.deaths = 0
        self.keeper = DeliveryKeeper(bench.store)

    def run(self, workers: int = 1, rounds: int = 200) -> None:
        """Let workers run until nothing is left."""
        names: list[str] = []
        for _ in range(rounds):
            while len(names) < workers:
                self.number += 1
                names.append(f"w{self.number}")
                self.bench.store.heartbeat(names[-1], "{}", [QUEUE, OTHER])
            alive = [name for name in names if not self._turn(name)]
            if len(alive) < len(names):
                self.deaths += len(names) - len(alive)
                for name in names:
                    if name not in alive:
                        self.bench.redis.zadd("workers:until", {name: 0})
                names = alive
                pass_kept(self.bench, self.keeper)
            left = self.bench.redis.exists("taken", "apart", "delayed", QUEUE, OTHER)
            if not left:
                return
        raise AssertionError(f"left: {self.bench.redis.hgetall('apart')}")

    def _turn(self, name: str) -> bool:
        """Take what there is and run it; return whether the worker died of it."""
        held: list[tuple[str, str]] = []
        while len(held) < self.threads:
            self.number += 1
            taken = self.bench.store.take(
                [QUEUE, OTHER], min(8, self.threads - len(held)), f"{name}.{self.number}", len(held)
            )
            if not taken:
                break
            held += [(tag, json.loads(raw)["headers"]["id"]) for tag, _, raw in taken]
        dies = any(task_id in self.poison for _, task_id in held)
        for tag, task_id in held:
            if task_id in self.poison and not self.begins:
                continue
            begun = self.bench.store.begin(task_id, tag)
            if begun.verdict != "run":
                self.bench.store.acknowledge([tag])
                continue
            lost, alone = (int(begun.task.get(name, 0)) for name in ("lost", "lost_alone"))
            if lost >= MAX_LOST and alone >= MAX_ALONE:
                self.bench.settle(begun, tag, task_id, dead={"error": "WorkerLost"})
                self.bench.store.acknowledge([tag])
                dies = any(one in self.poison for _, one in held if one != task_id)
                continue
            self.bench.store.call(task_id, begun.fence, call=CALL, number=1, numbered=1)
            self.calls[task_id] += 1
        if dies:
            return True
        for tag, task_id in held:
            fence = self.bench.redis.hget(f"task:{task_id}", "fence")
            if fence:
                self.bench.store.settle(
                    Settlement(task_id, '"ok"', fence=fence.decode(), tag=tag, expires_s=3600)
                )
            self.bench.store.acknowledge([tag])
        return False

    def buried(self) -> list[str]:
        """The tasks that were given up, each with a result and one dead letter."""
        found = sorted(key for key in self.results() if self.results()[key] != b'"ok"')
        assert self.bench.counted("dead") == len(found)
        return found

    def answered(self) -> int:
        return sum(result == b'"ok"' for result in self.results().values())

    def results(self) -> dict[str, bytes]:
        keys = self.bench.redis.keys("celery-task-meta-*")
        return {key.decode()[len("celery-task-meta-") :]: self.bench.redis.get(key) for key in keys}


@pytest.mark.parametrize("begins", [True, False], ids=["at its call", "before its begin"])
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(("threads", "poison"), [(21, 1), (8, 3), (1, 1)])
def test_only_poison_is_buried(
    bench: Bench, begins: bool, workers: int, threads: int, poison: int
) -> None:
    """Whatever runs beside it is answered, and called at most twice without need."""
    guilty = {f"p{number}" for number in range(poison)}
    innocent = [f"i{number}" for number in range(20)]
    fleet = Fleet(bench, threads, guilty, begins=begins)
    for task_id in [*innocent[:10], *sorted(guilty), *innocent[10:]]:
        bench.push(message(task_id))

    fleet.run(workers)

    assert fleet.buried() == sorted(guilty)
    assert fleet.answered() == 20
    assert max(fleet.calls[task_id] for task_id in innocent) <= 3
    assert all(fleet.calls[task_id] <= MAX_LOST + 1 for task_id in guilty)
    assert fleet.deaths <= poison * (MAX_LOST + 1)
    assert not bench.redis.exists("apart", "apart:order")
    depths = bench.redis.hgetall("delayed:queues")
    assert all(int(depth) == 0 for depth in depths.values())


def test_poison_in_each_of_two_roles(bench: Bench) -> None:
    """Each is found, and the innocents of both roles are answered."""
    fleet = Fleet(bench, 20, {"p0", "p1"})
    for number in range(10):
        bench.push(message(f"a{number}"))
        bench.push(message(f"b{number}"), queue=OTHER)
    bench.push(message("p0"))
    bench.push(message("p1"), queue=OTHER)

    fleet.run()

    assert fleet.buried() == ["p0", "p1"]
    assert fleet.answered() == 20


def kill(bench: Bench, tags: list[str]) -> None:
    """Lose the worker of these."""
    bench.pass_tended(LEASE_MS + 2000)
    assert not any(bench.redis.hexists("taken", tag) for tag in tags)


def lose(bench: Bench, task_ids: str, times: int) -> None:
    """Queue tasks, and lose a worker with all of them so often."""
    for task_id in task_ids:
        bench.push(message(task_id))
    for number in range(times):
        taken = bench.store.take([QUEUE, OTHER], 8, f"lost{number}.1")
        assert len(taken) == len(task_ids)
        for tag, _, raw in taken:
            bench.store.begin(json.loads(raw)["headers"]["id"], tag)
        kill(bench, [tag for tag, _, _ in taken])


def take(bench: Bench, worker: str, held: int = 0) -> list[str]:
    """Take for a worker; the tasks."""
    bench.store.heartbeat(worker, "{}", [QUEUE])
    number = bench.redis.incr("test:takes")
    taken = bench.store.take([QUEUE], 8, f"{worker}.{number}", held)
    return [json.loads(raw)["headers"]["id"] for _, _, raw in taken]


def test_after_one_loss_all_run_together_at_once(bench: Bench) -> None:
    """A killed worker's tasks start elsewhere without delay; most deaths are nobody's fault."""
    lose(bench, "abc", 1)

    assert sorted(take(bench, "v")) == ["a", "b", "c"]


def test_after_two_each_runs_alone(bench: Bench) -> None:
    """The worker takes nothing else meanwhile, and the next one when its hands are empty."""
    lose(bench, "abc", 2)
    bench.push(message("new"))

    found = [take(bench, "v"), take(bench, "v", held=1), take(bench, "v"), take(bench, "v")]

    assert sorted(one for some in found for one in some) == ["a", "b", "c"]
    assert found[1] == []
    assert take(bench, "v") == ["new"]


def test_a_busy_worker_empties_its_hands_first(bench: Bench) -> None:
    """One of two does; the other goes on taking what is new."""
    take(bench, "v"), take(bench, "w")
    lose(bench, "ab", 2)
    for number in range(3):
        bench.push(message(f"new{number}"))

    assert take(bench, "v", held=3) == []
    assert take(bench, "w", held=3) == ["new0", "new1", "new2"]
    assert take(bench, "v", held=1) == []
    assert len(take(bench, "v", held=0)) == 1


def test_who_has_emptied_its_hands_in_vain_takes_again(bench: Bench) -> None:
    """Another worker was quicker."""
    lose(bench, "a", 2)
    assert take(bench, "v", held=2) == []
    bench.redis.delete("apart", "apart:order")
    bench.push(message("new"))

    assert take(bench, "v", held=2) == ["new"]


def test_a_worker_that_died_over_it_does_not_count_among_those_that_serve(bench: Bench) -> None:
    """Or nobody else would empty its hands."""
    lose(bench, "a", 2)
    assert take(bench, "v") == ["a"]
    bench.pass_tended(LEASE_MS + 2000)

    assert take(bench, "w") == ["a"]
    bench.store.forget_worker("w")
    assert not bench.redis.hexists("apart:workers", "w")


def test_suspects_of_a_paused_role_hold_up_no_others(bench: Bench) -> None:
    """However many there are."""
    lose(bench, "a", 2)
    (tag,) = bench.redis.hkeys("apart")
    entry = bench.redis.hget("apart", tag)
    for number in range(250):
        bench.redis.hset("apart", f"x{number}", entry)
        bench.redis.zadd("apart:order", {f"x{number}": number})
    bench.redis.hset("apart", tag, entry.replace(QUEUE.encode(), OTHER.encode(), 1))
    bench.redis.hset("paused", QUEUE, "{}")
    bench.store.heartbeat("v", "{}", [QUEUE, OTHER])

    found = [bench.store.take([QUEUE, OTHER], 8, f"v.{number}") for number in range(4)]

    assert [len(taken) for taken in found][:2] == [0, 0]
    assert [listed for taken in found for _, listed, _ in taken] == [OTHER]


@pytest.mark.parametrize("hold", ["paused", "parked", "not consumed"])
def test_what_may_not_be_taken_is_not_waited_for(bench: Bench, hold: str) -> None:
    """A role that is paused or parked, or another worker's, empties nobody's hands."""
    lose(bench, "a", 2)
    bench.push(message("other"), queue=OTHER)
    match hold:
        case "paused":
            bench.redis.hset("paused", QUEUE, "{}")
        case "parked":
            state = {"until_ms": bench.ms + 5000, "for_ms": 5000, "few": 1, "passed": 0}
            bench.redis.hset("parked", QUEUE, json.dumps(state))
    queues = [OTHER] if hold == "not consumed" else [QUEUE, OTHER]

    taken = bench.store.take(queues, 8, "v.1", 3)

    assert [json.loads(raw)["headers"]["id"] for _, _, raw in taken] == ["other"]


def test_of_a_large_company_a_few_run_together(bench: Bench) -> None:
    """A thousand calls that were killed twice are not made one by one."""
    lose(bench, "abcd", 2)
    for task_id in "abcd":
        bench.redis.hset(f"task:{task_id}", "company", 50)

    assert len(take(bench, "v")) == 3


def test_losses_in_company_are_held_against_nobody(bench: Bench) -> None:
    """However many workers an operator or a full host kills."""
    lose(bench, "abc", 2)
    for number in range(2 * MAX_LOST):
        for task_id in "abc":
            bench.redis.hset(f"task:{task_id}", "company", 1000)
        assert len(take(bench, f"v{number}")) == 3
        bench.pass_tended(LEASE_MS + 2000)

    task = bench.redis.hgetall("task:a")
    assert int(task[b"lost"]) > MAX_LOST
    assert task[b"lost_alone"] == b"0"


def test_a_child_of_a_prefork_has_one_task(bench: Bench) -> None:
    """The one that it ran is the suspect, and needs no worker of its own."""
    bench.push(message("a"))
    for number in range(MAX_LOST):
        ((tag, _, _),) = bench.store.take([QUEUE], 1, f"w.{number}")
        begun = bench.store.begin("a", tag)
        bench.store.call("a", begun.fence, call=CALL, number=1, numbered=1)
        bench.store.return_lost([tag])
        assert not bench.redis.exists("apart")
    task = bench.redis.hgetall("task:a")

    assert (task[b"lost"], task[b"lost_alone"]) == (b"5", b"5")
    assert bench.begin(bench.take_one(), "a").verdict == "run"


@pytest.mark.parametrize(("times", "accused"), [(1, False), (2, True), (3, False)])
def test_a_task_accuses_once_at_the_second_lonely_loss(
    bench: Bench, times: int, accused: bool
) -> None:
    """Two prompts that kill would else open the breaker of a healthy provider."""
    bench.push(message("a"))
    for number in range(times):
        ((tag, _, _),) = bench.store.take([QUEUE], 1, f"w.{number}")
        begun = bench.store.begin("a", tag)
        bench.store.call("a", begun.fence, call=CALL, number=1, numbered=1)
        bench.store.return_lost([tag])
    ((tag, _, _),) = bench.store.take([QUEUE], 1, "w.9")

    fields = [bench.store.begin("a", tag).task for _ in range(2)]

    assert ["accused" in each for each in fields] == [accused, False]


@pytest.mark.parametrize("how", ["delayed", "parked", "head", "paused", "given back"])
def test_a_suspect_that_had_to_wait_runs_alone_again(bench: Bench, how: str) -> None:
    """A provider that was away, or a deployment, puts no neighbour beside it."""
    lose(bench, "p", 2)
    bench.push(message("x"), message("y"))
    bench.store.heartbeat("v", "{}", [QUEUE])
    ((tag, _, _),) = bench.store.take([QUEUE], 8, "v.1")
    if how == "paused":
        bench.redis.hset("paused", QUEUE, "{}")
        assert bench.store.begin("p", tag, QUEUE).verdict == "paused"
        assert take(bench, "v") == []
        bench.redis.delete("paused")
    else:
        begun = bench.begin(tag, "p")
        match how:
            case "delayed":
                bench.wait(begun, tag, "p", wait=Delay(500))
            case "parked":
                bench.wait(begun, tag, "p", wait=Park(500, trial_count=3))
            case "head":
                bench.wait(begun, tag, "p")
            case "given back":
                bench.store.return_all([tag])
        bench.tick(1000)

    found = [sorted(take(bench, "v")) for _ in range(2)]
    # A queue that was parked is tried with what is not suspected of anything.
    assert found == ([["x", "y"], ["p"]] if how == "parked" else [["p"], ["x", "y"]])
    assert int(bench.redis.hget("delayed:queues", QUEUE)) == 0


def test_a_loss_after_the_result_is_held_against_nobody(bench: Bench) -> None:
    """Its worker was killed before it could acknowledge."""
    bench.push(message("a"))
    tag = bench.take_one()
    bench.settle(bench.begin(tag, "a"), task_id="a")
    bench.pass_tended(LEASE_MS + 2000)

    assert not bench.redis.exists("task:a")
    assert bench.begin(bench.take_one(), "a").verdict == "settled"


@pytest.mark.parametrize(
    "raw",
    ["no JSON", '{"headers": {}}', '{"headers": {"id": ""}}', "x" * 10_000, '"headers":"id":',
     '{"headers": {"id": "\\ud800"}}', "\x00"],
)  # fmt: skip
def test_a_message_without_an_id_is_counted_too(bench: Bench, raw: str) -> None:
    """It kills whoever reads it, and ends as a dead letter."""
    bench.push(raw)
    keeper = DeliveryKeeper(bench.store)
    for number in range(MAX_LOST):
        bench.store.heartbeat(f"w{number}", "{}", [])
        taken = bench.store.take([QUEUE], 8, f"w{number}.1")
        assert len(taken) == 1, number
        pass_kept(bench, keeper)
        bench.store.heartbeat("other", "{}", [])

    assert bench.counted("dead") == 1
    assert not bench.redis.exists("taken", "apart", QUEUE)


def test_both_sides_count_alike() -> None:
    """The numbers stand in the script and in Python."""
    lua = (files("breakwater.messaging") / "scripts" / "delivery.lua").read_text()

    assert (
        f"local MAX_LOST, MAX_ALONE = {delivery_store.MAX_LOST}, {delivery_store.MAX_ALONE}" in lua
    )
