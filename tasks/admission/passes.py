"""
Leave to call one target: its provider's breaker agrees, and its model's, where the model was held.

A model that a provider does not know, or that the account may not use, says nothing against the
provider's other models. So the pair of provider and model gets a breaker of its own, named
`PROVIDER/MODEL`, once a call has failed so. A pair without one costs no round trip:
`Breakers.exists` answers from what this process has heard.
"""

import re
from functools import lru_cache

from breaker import BreakerOpen, Breakers, BreakerState, Permit, SharedCircuitBreaker
from breaker.state import State
from breakwater.errors import ProviderError
from tasks.config import BreakerSettings, Settings, Target
from tasks.telemetry.observers import TRANSITIONS

_NOT_IN_A_NAME = re.compile(r"[\s{}\x00-\x1f]")


class Gates:
    """The breakers of one roles file: one for each provider, one for each pair that was held."""

    def __init__(self, settings: Settings, breakers: Breakers) -> None:
        self._settings = settings
        self._breakers = breakers
        self._of_providers = {
            name: make_breaker(breakers, name, own.breaker)
            for name, own in settings.providers.items()
        }

    def provider(self, name: str) -> SharedCircuitBreaker:
        """Return a provider's breaker."""
        return self._of_providers[name]

    def model(self, target: Target) -> SharedCircuitBreaker:
        """Return the breaker of a pair, whether or not it was ever held."""
        rules = self._settings.providers[target.provider].breaker
        return make_breaker(self._breakers, pair_name(target), rules)

    def of(self, target: Target) -> list[SharedCircuitBreaker]:
        """Return the breakers that a call of a target has to pass."""
        if self._breakers.exists(pair_name(target)):
            return [self.provider(target.provider), self.model(target)]
        return [self.provider(target.provider)]

    def admit(self, target: Target) -> "Pass":
        """
        Ask for one call of a target to go out.

        Raises:
            BreakerOpen: The provider, or the pair, lets no call through now.
        """
        permits: list[tuple[SharedCircuitBreaker, Permit]] = []
        try:
            for breaker in reversed(self.of(target)):
                permits.append((breaker, breaker.admit()))
        except BreakerOpen:
            for breaker, permit in permits:
                breaker.record(permit, "neutral")
            raise
        return Pass(self, target, permits)

    def hold(self, target: Target, error: ProviderError) -> None:
        """Hold a pair: nobody is sent to it until its breaker lets a probe through."""
        breaker = self.model(target)
        try:
            permit = breaker.admit()
        except BreakerOpen:
            return  # held already
        _record_model(breaker, permit, error)


class Pass:
    """
    One call may go out; how it ended is to be told once.

    Args:
        permits: Each with its breaker; the provider's is the last.
    """

    def __init__(
        self, gates: Gates, target: Target, permits: list[tuple[SharedCircuitBreaker, Permit]]
    ) -> None:
        self._gates = gates
        self._target = target
        self._permits = permits

    @property
    def state(self) -> State:
        """Half-open for a call that probes the provider or the pair; else the provider's state."""
        states = [permit.state for _, permit in self._permits]
        return "half-open" if "half-open" in states else states[-1]

    def settle(self, error: BaseException | None) -> bool:
        """
        Tell the breakers how the call ended, as its error's verdict has it.

        Returns:
            Whether all of them are closed and hold nothing back: others may come as they like.
        """
        *models, (provider, permit) = self._permits
        views = [_record_model(breaker, held, error) for breaker, held in models]
        views.append(settle(provider, permit, error))
        if not models and isinstance(error, ProviderError) and error.verdict.holds_model:
            self._gates.hold(self._target, error)
        return all(view.state == "closed" and not view.held_for_s for view in views)


def _record_model(
    breaker: SharedCircuitBreaker, permit: Permit, error: BaseException | None
) -> BreakerState:
    if error is None:
        return breaker.record(permit, "success")
    if isinstance(error, ProviderError) and error.verdict.holds_model:
        return breaker.record(permit, "failure", reason=type(error).__name__, trip=True)
    return breaker.record(permit, "neutral")


def settle(
    breaker: SharedCircuitBreaker, permit: Permit, error: BaseException | None
) -> BreakerState:
    """Tell a provider's breaker how an admitted call ended, as its error's verdict has it."""
    if error is None:
        return breaker.record(permit, "success")
    if isinstance(error, ProviderError) and not error.verdict.holds_model:
        return breaker.record(
            permit,
            "failure" if error.verdict.trips else "neutral",
            reason=type(error).__name__,
            retry_after_s=error.retry_after_s,
            trip=error.verdict.trips_at_once,
        )
    return breaker.record(permit, "neutral")


@lru_cache(maxsize=4096)  # asked for each call, and roles files have few targets
def pair_name(target: Target) -> str:
    """Return the name of a pair's breaker; what a breaker's name cannot have becomes `_`."""
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
