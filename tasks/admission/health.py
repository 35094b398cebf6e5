"""
The gate of health: a provider that fails is not called, and neither is a model it does not know.

Each provider has a circuit breaker. A model that a provider does not know, or that the account may
not use, says nothing about the provider's other models. So the pair of provider and model gets a
breaker of its own, named `PROVIDER/MODEL`, once a call has failed so. A pair without one costs no
round trip: `Breakers.exists` answers from the changes that this process has received.

Only this module turns an error's verdict into a report to a breaker.
"""

import re
from functools import lru_cache

from breaker import BreakerOpen, Breakers, BreakerState, Permit, SharedCircuitBreaker
from breaker.redis_storage import events_key
from breakwater.errors import ProviderError, WorkerLost
from tasks.admission.gate import Ask, GateState, Outcome, Refused
from tasks.config import BreakerSettings, Settings, Target
from tasks.telemetry.observers import TRANSITIONS

UNKNOWN_WAIT_S = 2.0
"""The wait where none can be known: all probes of a half-open breaker run, or it is forced open."""

_NOT_IN_A_NAME = re.compile(r"[\s{}\x00-\x1f]")


class HealthGate:
    """
    The breakers of one roles file: one for each provider, one for each pair that was held.

    Args:
        settings: Name the providers, and the rules of their breakers.
        breakers: Of the fleet.
    """

    def __init__(self, settings: Settings, breakers: Breakers) -> None:
        self._settings = settings
        self._breakers = breakers
        self._by_provider = {
            name: make_breaker(breakers, name, provider.breaker)
            for name, provider in settings.providers.items()
        }

    def admit(self, ask: Ask) -> "HealthPass":
        """
        Admit one call of a target.

        Raises:
            Refused: The breaker of the provider, or of the pair, admits no call now.
        """
        permits: list[tuple[SharedCircuitBreaker, Permit]] = []
        try:
            for breaker in reversed(self._breakers_of(ask.target)):
                permits.append((breaker, breaker.admit()))
        except BreakerOpen as refusal:
            for breaker, permit in permits:
                breaker.record(permit, "neutral")
            why = _why_refused(refusal, ask.target)
            raise Refused("breaker", refusal.retry_in_s, why, BreakerOpen.__name__) from None
        return HealthPass(self, ask.target, permits)

    def look(self, target: Target) -> GateState:
        """Read the breakers of a target: one round trip each, and nothing is written."""
        views = [(breaker.peek(), breaker.rules) for breaker in self._breakers_of(target)]
        closed = [view for view, rules in views if not view.admits(rules)]
        return GateState(
            opens_in_s=max((_wait_s(view) for view in closed), default=0.0),
            reasons=tuple(_describe(view) for view in closed),
            admits_all=all(view.admits_all for view, _ in views),
        )

    def opens_in_s(self, target: Target) -> float:
        """Return the seconds until a call may be admitted; 0: now."""
        return self.look(target).opens_in_s

    def signals(self, target: Target) -> tuple[str, ...]:
        """Return the event streams of a target's breakers; that of the pair may not exist yet."""
        return events_key(target.provider), events_key(pair_name(target))

    def breaker(self, provider: str) -> SharedCircuitBreaker:
        """Return the breaker of a provider, with the rules of its settings."""
        return self._by_provider[provider]

    def available_providers(self) -> dict[str, BreakerState]:
        """Return the providers whose breakers admit calls now, with the state of each breaker."""
        views = {name: breaker.peek() for name, breaker in self._by_provider.items()}
        return {
            name: view for name, view in views.items() if view.admits(self._by_provider[name].rules)
        }

    def hold(self, target: Target, error: ProviderError) -> None:
        """Hold a pair: it is called again when its breaker admits a probe."""
        breaker = make_breaker(
            self._breakers, pair_name(target), self._settings.providers[target.provider].breaker
        )
        try:
            permit = breaker.admit()
        except BreakerOpen:
            return  # held already
        _record_model(breaker, permit, error)

    def report_success(self, provider: str) -> None:
        """Report a call that was made without admission, and succeeded."""
        self._report(provider, None)

    def report_failure(self, provider: str, error: Exception) -> None:
        """
        Report a call that was made without admission, and failed.

        It counts against the provider only if it is a ProviderError whose verdict says so.
        """
        if isinstance(error, ProviderError) and error.verdict.holds_model:
            self.hold(Target(provider, self._settings.providers[provider].model), error)
            return
        self._report(provider, error)

    def report_lost_worker(self, provider: str) -> None:
        """Count a failure of the provider during whose call a worker was lost."""
        breaker = self._by_provider[provider]
        try:
            breaker.record(breaker.admit(), "failure", reason=WorkerLost.__name__)
        except BreakerOpen:
            return  # an open breaker counts nothing

    def _report(self, provider: str, error: Exception | None) -> None:
        breaker = self._by_provider[provider]
        try:
            permit = breaker.admit()
        except BreakerOpen:
            return  # an open breaker counts nothing
        _record_provider(breaker, permit, error)

    def _breakers_of(self, target: Target) -> list[SharedCircuitBreaker]:
        """Return the breakers that a call of a target has to pass, the provider's first."""
        provider = self._by_provider[target.provider]
        pair = pair_name(target)
        if not self._breakers.exists(pair):
            return [provider]
        rules = self._settings.providers[target.provider].breaker
        return [provider, make_breaker(self._breakers, pair, rules)]


class HealthPass:
    """
    Leave of the breakers to make one call.

    A dropped pass is neutral: `Permit` gives a probe's slot back when it is dropped.

    Args:
        permits: Each with its breaker; the provider's is the last.
    """

    __slots__ = ("_gate", "_permits", "_target", "_unsettled")

    def __init__(
        self, gate: HealthGate, target: Target, permits: list[tuple[SharedCircuitBreaker, Permit]]
    ) -> None:
        self._gate = gate
        self._target = target
        self._permits = permits
        self._unsettled = [True]

    @property
    def is_probe(self) -> bool:
        """Whether the call probes the provider, or the pair."""
        return any(permit.state == "half-open" for _, permit in self._permits)

    def settle(self, outcome: Outcome) -> bool:
        """
        Report to the breakers how the call ended, by its error's verdict.

        Returns:
            Whether they admit every call now.
        """
        try:
            self._unsettled.pop()
        except IndexError:
            return False
        error = outcome.error
        *models, (provider, permit) = self._permits
        views = [_record_model(breaker, held, error) for breaker, held in models]
        views.append(_record_provider(provider, permit, error))
        if not models and isinstance(error, ProviderError) and error.verdict.holds_model:
            self._gate.hold(self._target, error)
        return all(view.admits_all for view in views)


def _record_model(
    breaker: SharedCircuitBreaker, permit: Permit, error: BaseException | None
) -> BreakerState:
    if error is None:
        return breaker.record(permit, "success")
    if isinstance(error, ProviderError) and error.verdict.holds_model:
        return breaker.record(permit, "failure", reason=type(error).__name__, trip=True)
    return breaker.record(permit, "neutral")


def _record_provider(
    breaker: SharedCircuitBreaker, permit: Permit, error: BaseException | None
) -> BreakerState:
    if error is None:
        return breaker.record(permit, "success")
    if not isinstance(error, ProviderError) or error.verdict.holds_model:
        return breaker.record(permit, "neutral")
    return breaker.record(
        permit,
        "failure" if error.verdict.trips else "neutral",
        reason=type(error).__name__,
        retry_after_s=error.retry_after_s,
        trip=error.verdict.trips_at_once,
    )


def _why_refused(refusal: BreakerOpen, target: Target) -> str:
    which = "" if refusal.name == target.provider else f"its model {target.model} is "
    if refusal.reason == "forced":
        return f"{which}forced open by an operator"
    reason = f" ({refusal.reason})" if refusal.reason else ""
    return f"{which}{refusal.state}{reason}, ask again in {refusal.retry_in_s:.1f} s"


def _wait_s(view: BreakerState) -> float:
    return max(view.open_for_s, view.held_for_s) or UNKNOWN_WAIT_S


def _describe(view: BreakerState) -> str:
    if view.forced:
        return f"{view.name} is forced {view.forced}"
    reason = f" ({view.reason})" if view.reason else ""
    return f"{view.name} is {view.state}{reason}"


@lru_cache(maxsize=4096)  # used for each call, and roles files have few targets
def pair_name(target: Target) -> str:
    """Return the name of a pair's breaker; characters that a name cannot have become `_`."""
    return _NOT_IN_A_NAME.sub("_", f"{target.provider}/{target.model}")


def make_breaker(breakers: Breakers, name: str, rules: BreakerSettings) -> SharedCircuitBreaker:
    """Return the breaker of a name, with the rules of a provider's entry."""
    return breakers.replace(
        name,
        fail_max=rules.fail_max,
        reset_timeout=rules.reset_timeout_s,
        success_threshold=rules.success_threshold,
        max_probes=rules.max_probes or rules.success_threshold,
        retry_after_max_s=rules.retry_after_max_s,
        open_factor=rules.open_factor,
        open_max_s=rules.open_max_s,
        open_jitter=rules.open_jitter,
        stable_s=rules.stable_s,
        listeners=(TRANSITIONS,),
    )
