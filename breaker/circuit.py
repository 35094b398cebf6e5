"""
One breaker, shared by each process that uses its name: pybreaker's interface, with state in Redis.

`call`, `calling` and the decorator guard a function. A caller that judges the outcome itself uses
the two halves, `admit` and `record`. docs/breaker.md lists the differences from pybreaker, with
reasons.
"""

import inspect
import secrets
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from functools import wraps
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast, overload

import pybreaker
import structlog

from breaker.listener import StateSnapshot, TransitionLog
from breaker.probes import Probes
from breaker.state import (
    BreakerState,
    Forced,
    Outcome,
    Report,
    Rules,
    State,
    StorageReply,
    check_name,
)
from breaker.storage import FleetStorage

P = ParamSpec("P")
T = TypeVar("T")

CALL_ASYNC = "__pybreaker_call_async"

Stream = Generator[object, Any, object]
AsyncStream = AsyncGenerator[object, Any]
Neutral = type[BaseException] | Callable[[Any], bool]
"""An exception class, or a predicate of an exception, for errors that are not the provider's."""

log = structlog.get_logger("breaker")


class BreakerOpen(pybreaker.CircuitBreakerError):
    """
    The breaker admits no call now, or the failure of this call has tripped it.

    Args:
        name: The breaker's name.
        state: closed (held back by Retry-After), open or half-open.
        retry_in_s: Seconds until the next call may be admitted.
        reason: The class of the error that tripped it, or throttled, manual, forced.
    """

    def __init__(self, name: str, state: State, retry_in_s: float, reason: str) -> None:
        super().__init__(name, state, retry_in_s, reason)
        self.name = name
        self.state = state
        self.retry_in_s = retry_in_s
        self.reason = reason

    def __str__(self) -> str:
        """Return a message with the name, the state, the reason and the wait."""
        state: str = self.state
        if self.reason:
            state = f"{state} ({self.reason})"
        return f"breaker {self.name!r} is {state}; ask again in {self.retry_in_s:.1f} s"


class Permit:
    """
    Permission for one call, whose outcome is to be recorded once.

    A permit that is dropped without an outcome releases the lease of its probe.

    Args:
        view: The state of the breaker at the admission.
        token: Identifies the call, and its lease.
        probes: Keeps the lease; None if the call is not a probe.
    """

    __slots__ = ("_probes", "_unsettled", "token", "view")

    def __init__(self, view: BreakerState, token: str, probes: Probes | None) -> None:
        self.view = view
        self.token = token
        self._probes = probes
        self._unsettled = [True]

    @property
    def name(self) -> str:
        """The breaker's name."""
        return self.view.name

    @property
    def state(self) -> State:
        """The state at the admission: closed, or half-open for a probe; open if forced closed."""
        return self.view.state

    def report(
        self,
        outcome: Outcome,
        reason: str = "",
        retry_after_s: float | None = None,
        *,
        trip: bool = False,
    ) -> Report:
        """Build the report of how the call ended; its generation shows whether it is stale."""
        view = self.view
        return Report(
            self.token, view.generation, outcome, reason, retry_after_s, trip, view.source
        )

    def settle(self) -> bool:
        """Return True once: the thread that gets it records the outcome."""
        try:
            return self._unsettled.pop()
        except IndexError:
            return False

    def end(self) -> None:
        """Stop renewing the lease: the outcome is recorded."""
        if self._probes:
            self._probes.done(self.token)

    def forget(self) -> None:
        """Drop the call without an outcome; takes no lock, does no I/O, is safe in a finalizer."""
        if self._unsettled and self._probes:
            self._probes.forget(self.token)
        self._unsettled.clear()

    def __del__(self) -> None:
        """Release the slot of a probe that was dropped."""
        self.forget()


class SharedCircuitBreaker(pybreaker.CircuitBreaker):
    """
    A pybreaker.CircuitBreaker whose state a fleet shares; `Breakers.get` makes it.

    Args:
        name: The name; no spaces, no braces.
        storage: Keeps the state.
        probes: Renews the leases of probes.
        rules: When the breaker opens, probes and closes.
        exclude: Errors that are neutral, because they are not the provider's fault.
        listeners: pybreaker's listeners. They run outside locks; their errors are logged and
            change nothing.
        throw_new_error_on_trip: The tripping call raises BreakerOpen from its error; else it
            raises the error itself.
    """

    def __init__(
        self,
        name: str,
        storage: FleetStorage,
        probes: Probes,
        rules: Rules,
        *,
        exclude: Iterable[Neutral] = (),
        listeners: Iterable[pybreaker.CircuitBreakerListener] = (),
        throw_new_error_on_trip: bool = True,
    ) -> None:
        # Not super().__init__: it makes a store in memory and reads the state, a round trip.
        # pybreaker's methods that are inherited here use these five.
        self._lock = threading.RLock()
        self._name = name
        self._names = {name}
        self._excluded_exceptions: list[Neutral] = list(exclude)  # type: ignore[assignment] # pybreaker's type variable is unbound
        self._listeners: list[pybreaker.CircuitBreakerListener] = list(listeners)  # type: ignore[assignment] # as above
        self._throw_new_error_on_trip = throw_new_error_on_trip
        self._storage = storage
        self._probes = probes
        self.rules = rules

    @property
    def name(self) -> str:
        """The breaker's name."""
        return str(self._name)

    @name.setter
    def name(self, name: str) -> None:
        """
        Use another name from now on; calls in flight still count for the earlier one.

        The name is the key of the state in Redis, so the breaker takes on that name's state.

        Raises:
            ValueError: The name has spaces or braces.
        """
        check_name(name)
        self._names = self._names | {name}
        self._name = name

    @property
    def listeners(  # type: ignore[override] # as above
        self,
    ) -> tuple[pybreaker.CircuitBreakerListener, ...]:
        """The listeners that were added; the one that writes the log is left out."""
        return tuple(each for each in self._listeners if not isinstance(each, TransitionLog))

    def admit(self) -> Permit:
        """
        Admit one call.

        Returns:
            The permit, to be passed to `record` with the outcome.

        Raises:
            BreakerOpen: No call is admitted now.
        """
        rules, token = self.rules, secrets.token_hex(8)
        reply = self._storage.admit(self.name, rules, token)
        self._notify_transition(reply)
        view = reply.view
        if not reply.accepted:
            retry_in_s = reply.wait_s or rules.reset_timeout_s
            raise BreakerOpen(self.name, view.state, retry_in_s, _refusal_reason(view))
        if view.state != "half-open" or view.forced:
            return Permit(view, token, None)
        self._probes.add(token, view, rules)
        return Permit(view, token, self._probes)

    def record(
        self,
        permit: Permit,
        outcome: Outcome,
        *,
        reason: str = "",
        retry_after_s: float | None = None,
        trip: bool = False,
    ) -> BreakerState:
        """
        Record how the call ended; a second outcome of the same permit is ignored.

        Args:
            permit: From `admit` of this breaker.
            outcome: success, failure, or neutral: not the provider's doing.
            reason: The class of the error.
            retry_after_s: The Retry-After of the provider; it counts with any outcome.
            trip: This failure proves that the provider is down: open at once.

        Returns:
            The state of the breaker after that; of the admission if nothing was recorded.
        """
        reply = self._settle(permit, permit.report(outcome, reason, retry_after_s, trip=trip))
        self._notify_transition(reply)
        if reply is None:
            return permit.view
        return reply.view

    def peek(self) -> BreakerState:
        """Read the state of the breaker; nothing changes; one round trip."""
        return self._storage.peek(self.name, self.rules)

    def call(self, func: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """
        Call a function, once and without a lock, and record its outcome.

        A generator, an async generator or an awaitable that the function returns is watched to its
        end: its exhaustion is the success, and closing it early is neutral.

        Raises:
            BreakerOpen: It was not called; or its failure tripped the breaker
                (unless `throw_new_error_on_trip` is off), then `__cause__` is the failure.
        """
        permit = self.admit()
        self._notify("before_call", func, *args, **kwargs)
        try:
            result: object = func(*args, **kwargs)
        except BaseException as error:
            self._record_error(permit, error)
            raise
        if inspect.isgenerator(result):
            return cast("T", self._streamed(permit, result))
        if inspect.isasyncgen(result):
            return cast("T", self._async_streamed(permit, result))
        if inspect.isawaitable(result):
            return cast("T", self._awaited(permit, result))
        self._record_success(permit)
        return cast("T", result)

    def call_async(self, func: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do the same as `call`, which takes awaitables too; pybreaker needs Tornado for this."""
        return self.call(func, *args, **kwargs)

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Guard the body of a `with` statement as `call` guards a function."""
        permit = self.admit()
        self._notify("before_call", self.calling)
        with _RecordOnExit(self, permit):
            yield

    @overload  # type: ignore[override] # pybreaker's takes any positional arguments
    def __call__(self, func: Callable[P, T], **options: bool) -> Callable[P, T]: ...

    @overload
    def __call__(
        self, func: None = None, **options: bool
    ) -> Callable[[Callable[P, T]], Callable[P, T]]: ...

    def __call__(
        self, func: Callable[P, T] | None = None, **options: bool
    ) -> Callable[P, T] | Callable[[Callable[P, T]], Callable[P, T]]:
        """
        Decorate a function, with or without parentheses; an `async def` stays one.

        Args:
            func: The function to guard.
            options: `__pybreaker_call_async`, by which pybreaker marks a function that returns an
                awaitable. Here awaitables are awaited and counted without it, and without Tornado.

        Raises:
            TypeError: `options` has another key.
        """
        if options.keys() - {CALL_ASYNC}:
            raise TypeError(f"unknown arguments {sorted(options)}; there is only {CALL_ASYNC}")
        if func is None:
            return self
        if inspect.iscoroutinefunction(func):

            @wraps(func)
            async def guarded_async(*args: P.args, **kwargs: P.kwargs) -> object:
                return await self.call(func, *args, **kwargs)

            return cast("Callable[P, T]", guarded_async)

        @wraps(func)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            return self.call(func, *args, **kwargs)

        return guarded

    @property  # type: ignore[override] # pybreaker's states contain the rules
    def state(self) -> StateSnapshot:
        """The state as an object with a `name` and a `view`; one round trip."""
        view = self.peek()
        return StateSnapshot(self, view.state, view)

    @state.setter
    def state(self, state: str) -> None:
        changes = {"open": self.open, "half-open": self.half_open, "closed": self.close}
        if state not in changes:
            raise ValueError(f"unknown state {state!r}; it must be one of {', '.join(changes)}")
        changes[state]()

    @property
    def current_state(self) -> State:
        """closed, open or half-open; one round trip."""
        return self.peek().state

    @property
    def fail_counter(self) -> int:
        """The run of failures; one round trip."""
        return self.peek().failures

    @property
    def success_counter(self) -> int:
        """Successful probes of this half-open period; one round trip."""
        return self.peek().successes

    @property
    def fail_max(self) -> int:
        """Consecutive failures that open the breaker."""
        return self.rules.fail_max

    @fail_max.setter
    def fail_max(self, number: int) -> None:
        self.rules = replace(self.rules, fail_max=number)

    @property
    def reset_timeout(self) -> float:
        """Seconds from open to half-open."""
        return self.rules.reset_timeout_s

    @reset_timeout.setter
    def reset_timeout(self, timeout: float) -> None:
        self.rules = replace(self.rules, reset_timeout_s=timeout)

    @property
    def success_threshold(self) -> int:
        """Successful probes that close the breaker."""
        return self.rules.success_threshold

    @success_threshold.setter
    def success_threshold(self, threshold: int) -> None:
        self.rules = replace(self.rules, success_threshold=threshold)

    def open(self) -> bool:
        """
        Open the breaker for the whole fleet, for one open time from now.

        Returns:
            `throw_new_error_on_trip`, as pybreaker does.

        Raises:
            RedisError: Redis does not answer. Then no manual change, here and below, has any
                effect.
        """
        self._manual(to="open")
        return self._throw_new_error_on_trip

    def half_open(self) -> None:
        """Admit probes from now on."""
        self._manual(to="half-open")

    def close(self) -> None:
        """Close the breaker for the whole fleet, and reset failures, trips and Retry-After."""
        self._manual(to="closed")

    def force(self, forced: Forced | None) -> BreakerState:
        """Set an override: admit nothing (open) or everything (closed); None removes it."""
        return self._manual(forced=forced or "none")

    def reset(self) -> BreakerState:
        """Close the breaker and remove an override, in one step."""
        return self._manual(to="closed", forced="none")

    def is_system_error(self, exception: BaseException) -> bool:
        """Return whether an error is the provider's fault; pybreaker's misjudges some classes."""
        if not isinstance(exception, Exception):
            return False
        return not any(_applies(rule, exception) for rule in self._excluded_exceptions)

    def _manual(self, *, to: State | None = None, forced: Forced | str = "") -> BreakerState:
        reply = self._storage.force(self.name, self.rules, to=to, forced=forced)
        self._notify_transition(reply)
        return reply.view

    def _settle(self, permit: Permit, report: Report) -> StorageReply | None:
        """Send the report; None if one was sent before, or the storage drops it."""
        if permit.name not in self._names:
            raise ValueError(f"a permit of breaker {permit.name!r} came to {self.name!r}")
        if not permit.settle():
            return None
        try:
            return self._storage.record(permit.name, self.rules, report)
        finally:
            permit.end()

    def _record_success(self, permit: Permit) -> None:
        reply = self._settle(permit, permit.report("success"))
        self._notify_transition(reply)
        self._notify("success")

    def _record_error(self, permit: Permit, error: BaseException) -> None:
        """
        Record what an error means for the breaker.

        Raises:
            BreakerOpen: The error has tripped the breaker.
        """
        if isinstance(error, GeneratorExit):
            permit.forget()  # perhaps in a finalizer: no I/O here
            return
        is_failure = self.is_system_error(error)
        outcome: Outcome = "neutral"
        if is_failure:
            outcome = "failure"
        retry_after_s = getattr(error, "retry_after_s", None)
        reply = self._settle(permit, permit.report(outcome, type(error).__name__, retry_after_s))
        if is_failure:
            self._notify("failure", error)
        self._notify_transition(reply)
        if reply and reply.transitioned and self._throw_new_error_on_trip:
            view = reply.view
            if view.state == "open":
                raise BreakerOpen(self.name, view.state, view.open_for_s, view.reason) from error

    def _streamed(self, permit: Permit, stream: Stream) -> Stream:
        with _RecordOnExit(self, permit):
            return (yield from stream)

    async def _async_streamed(self, permit: Permit, stream: AsyncStream) -> AsyncStream:
        with _RecordOnExit(self, permit):
            async with aclosing(stream):
                async for item in stream:
                    yield item

    async def _awaited(self, permit: Permit, awaitable: Awaitable[object]) -> object:
        with _RecordOnExit(self, permit):
            return await awaitable

    def _notify_transition(self, reply: StorageReply | None) -> None:
        if reply and reply.transitioned:
            view = reply.view
            self._notify(
                "state_change",
                StateSnapshot(self, reply.before, view),
                StateSnapshot(self, view.state, view),
            )

    def _notify(self, event: str, *args: object, **kwargs: object) -> None:
        for listener in tuple(self._listeners):
            try:
                getattr(listener, event)(self, *args, **kwargs)
            except Exception as error:  # noqa: BLE001 - whatever a listener does, the call goes on
                log.error("breaker.listener_failed", to=event, error=type(error).__name__)


class _RecordOnExit:
    """Record the outcome of the body of a `with` statement; its exception passes unchanged."""

    __slots__ = ("_breaker", "_permit")

    def __init__(self, breaker: SharedCircuitBreaker, permit: Permit) -> None:
        self._breaker = breaker
        self._permit = permit

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        if error is None:
            self._breaker._record_success(self._permit)
        else:
            self._breaker._record_error(self._permit, error)


def _applies(rule: Neutral, error: Exception) -> bool:
    if isinstance(rule, type):
        return isinstance(error, rule)
    return rule(error)


def _refusal_reason(view: BreakerState) -> str:
    if view.forced:
        return "forced"
    if view.held_for_s:
        return "throttled"
    return view.reason
