"""
deploy/kubernetes/scaledobject.yaml, simulated: prompts come, the autoscaler looks, workers answer.

Sources: kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale (the algorithm, its
tolerance, policies, stabilization); keda.sh/docs/2.18/reference/scaledobject-spec (metric types).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import yaml

from tests.support.queries import SCALING

SPEC = yaml.safe_load(SCALING.read_text())["spec"]
AIM = {trigger["name"]: float(trigger["metadata"]["threshold"]) for trigger in SPEC["triggers"]}
BEHAVIOR = SPEC["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
LOOKS_EVERY_S, TOLERANCE = 15, 0.1
READY_S = 30
"""From the decision to a worker that consumes."""
SLOTS, CALL_S = 100, 10
MINUTE = 60 // LOOKS_EVERY_S


@dataclass
class Fleet:
    """Workers, and what waits for them; time goes by in looks of the autoscaler."""

    workers: int = SPEC["minReplicaCount"]
    waiting: float = 0.0
    running: float = 0.0
    age_s: float = 0.0
    stuck: int = 0
    """Workers that live and take nothing."""
    wanted: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    def work(self, prompts_s: float, parked: bool = False) -> None:
        """Let prompts come, and be taken by the workers that are ready."""
        ready = min([self.workers, *self.counts[-READY_S // LOOKS_EVERY_S :]])
        slots = 0 if parked else (ready - self.stuck) * SLOTS
        due = self.waiting + prompts_s * LOOKS_EVERY_S
        taken = min(due, slots / CALL_S * LOOKS_EVERY_S)
        self.waiting, self.running = due - taken, min(taken / LOOKS_EVERY_S * CALL_S, slots)
        self.age_s = self.waiting / max(taken / LOOKS_EVERY_S, prompts_s) if self.waiting > 1 else 0

    def scale(self, age_s: float) -> None:
        """Look once, as the autoscaler does."""
        now = self.workers
        by_calls = self.running / (AIM["running"] * now)
        by_age = age_s / AIM["age"]
        wanted = max(
            now if abs(ratio - 1) <= TOLERANCE else math.ceil(now * ratio)
            for ratio in (by_calls, by_age)
        )
        self.wanted.append(wanted)
        self.counts.append(now)
        up, down = BEHAVIOR["scaleUp"]["policies"][0], BEHAVIOR["scaleDown"]["policies"][0]
        if wanted > now:
            base = min(self.counts[-up["periodSeconds"] // LOOKS_EVERY_S :])
            wanted = min(wanted, math.ceil(base * (1 + up["value"] / 100)))
        else:
            window = BEHAVIOR["scaleDown"]["stabilizationWindowSeconds"] // LOOKS_EVERY_S
            base = max(self.counts[-down["periodSeconds"] // LOOKS_EVERY_S :])
            wanted = max(*self.wanted[-window:], math.floor(base * (1 - down["value"] / 100)))
            wanted = min(wanted, now)
        self.workers = max(SPEC["minReplicaCount"], min(SPEC["maxReplicaCount"], wanted))


def run(
    fleet: Fleet, minutes: int, prompts_s: Callable[[int], float], *, parked: bool = False
) -> None:
    """Go on for so long; a parked queue's age is not counted, as the query has it."""
    for look in range(minutes * MINUTE):
        fleet.work(prompts_s(look), parked)
        fleet.scale(0.0 if parked else fleet.age_s)


def test_ten_times_the_prompts_are_served_within_minutes_and_the_fleet_comes_to_rest() -> None:
    """A thousand calls in flight need ten workers, and thirteen to have some room."""
    fleet = Fleet()
    run(fleet, 30, lambda _: 10)
    small = fleet.workers

    run(fleet, 10, lambda _: 100)
    after_ten_minutes = fleet.waiting
    run(fleet, 60, lambda _: 100)

    assert small == 2
    assert after_ten_minutes == 0
    assert 12 <= fleet.workers <= 14
    assert len(set(fleet.counts[-30 * MINUTE :])) == 1


def test_a_load_that_goes_up_and_down_does_not_make_workers_come_and_go() -> None:
    """A worker that ends has its calls finish within the grace period, or paid for again."""
    fleet = Fleet()
    run(fleet, 60, lambda look: 60 + 20 * math.sin(look / MINUTE))

    settled = fleet.counts[30 * MINUTE :]

    assert max(settled) - min(settled) <= 1
    assert fleet.waiting == 0


def test_when_the_load_ends_workers_end_late_and_a_few_at_a_time() -> None:
    """Ten minutes, and then a quarter each time."""
    fleet = Fleet()
    run(fleet, 60, lambda _: 100)
    busy = fleet.workers

    run(fleet, 9, lambda _: 1)
    soon = fleet.workers
    run(fleet, 60, lambda _: 1)

    assert soon == busy
    assert fleet.workers == SPEC["minReplicaCount"]
    steps = zip(fleet.counts[-60 * MINUTE :], fleet.counts[-60 * MINUTE + 1 :], strict=False)
    assert all(after >= math.floor(before * 0.75) for before, after in steps)


def test_an_outage_of_the_providers_calls_no_workers() -> None:
    """They could do nothing; what has waited is served when it is over."""
    fleet = Fleet()
    run(fleet, 30, lambda _: 50)
    before = fleet.workers

    run(fleet, 10, lambda _: 50, parked=True)
    during = fleet.workers
    run(fleet, 30, lambda _: 50)

    assert during <= before
    assert fleet.waiting == 0


def test_prompts_that_wait_although_few_calls_run_call_workers() -> None:
    """Calls in flight alone would say that there is room: here in workers that take nothing."""
    fleet = Fleet()
    run(fleet, 60, lambda _: 100)

    fleet.stuck = 8
    run(fleet, 10, lambda _: 100)

    assert fleet.running > 500
    assert fleet.waiting == 0


def test_more_than_the_limit_is_never_asked_for() -> None:
    """The providers' limits are what it stands for."""
    fleet = Fleet()
    run(fleet, 60, lambda _: 10_000)

    assert max(fleet.counts) == SPEC["maxReplicaCount"]
