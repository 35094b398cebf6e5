"""
One breaker, shared by every process that uses its name: pybreaker's face, Redis' memory.

`call`, `calling` and the decorator guard a function; `admit` and `record` are the two halves for
whoever wants to look at the outcome first. Where this differs from pybreaker, docs/breaker.md
says why.
"""

import inspect
import secrets
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from functools import wraps
from types import TracebackType
from typing import Any

import pybreaker
import structlog

from breaker.failover import FailoverStorage
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

CALL_ASYNC = "__pybreaker_call_async"

Neutral = type[BaseException] | Callable[[Any], bool]

log = structlog.get_logger("breaker")


class BreakerOpen(pybreaker.CircuitBreakerError):
    """
    The breaker lets no call through now; or this very call has tripped it.

    Args:
        name: The breaker's name.
        state: closed (held back by Retry-After), open or half-open.
        retry_in_s: When to ask again, in seconds.
        reason: Why: the class of the error that tripped it, throttled, manual, forced.
    """

    def __init__(self, name: str, state: State, retry_in_s: float, reason: str) -> None:
        super().__init__(name, state, retry_in_s, reason)
        self.name = name
        self.state = state
        self.retry_in_s = retry_in_s
        self.reason = reason

    def __str__(self) -> str:
        """Say which, why and until when."""
        why = f" ({self.reason})" if self.reason else ""
        return f"breaker {self.name!r} is {self.state}{why}; ask again in {self.retry_in_s:.1f} s"


class Permit:
    """
    One call may go out; its outcome is to be recorded once.

    A permit that is dropped without a word gives its probe's lease back.

    Args:
        view: How the breaker stood at the grant.
        token: The call's, also the lease's.
        probes: Where the lease is kept, None if the call is no probe.
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
    def admission(self) -> tuple[str, int]:
        """Token and generation, by which the outcome is told from a stale one."""
        return self.token, self.view.generation

    @property
    def state(self) -> State:
        """The state at the grant: closed, or half-open for a probe; open if forced closed."""
        return self.view.state

    def settle(self) -> bool:
        """Tell True once, to one thread: the outcome is now being recorded."""
        try:
            return self._unsettled.pop()
        except IndexError:
            return False

    def end(self) -> None:
        """Stop renewing the lease: the outcome is recorded."""
        if self._probes:
            self._probes.done(self.token)

    def forget(self) -> None:
        """Give up the call without an outcome; no lock, no I/O here, safe from a finalizer."""
        if self._unsettled and self._probes:
            self._probes.forget(self.token)
        self._unsettled.clear()

    def __del__(self) -> None:
        """A probe nobody finished must not keep its slot."""
        self.forget()


class SharedCircuitBreaker(pybreaker.CircuitBreaker):
    """
    A pybreaker.CircuitBreaker whose state is the fleet's; get one from `Breakers.get`.

    Args:
        name: Its name; no spaces, no braces.
        storage: Redis, or this process alone while Redis is away.
        probes: Keeps leases alive.
        rules: The numbers it goes by.
        exclude: Exception classes, or predicates of an exception, that are not the provider's
            fault: neutral.
        listeners: pybreaker's; called outside locks, their errors are logged and change nothing.
        throw_new_error_on_trip: The tripping call raises BreakerOpen from its error, else the
            error itself.
    """

    def __init__(
        self,
        name: str,
        storage: FailoverStorage,
        probes: Probes,
        rules: Rules,
        *,
        exclude: Iterable[Neutral] = (),
        listeners: Iterable[pybreaker.CircuitBreakerListener] = (),
        throw_new_error_on_trip: bool = True,
    ) -> None:
        # Not super().__init__: it makes a store in memory and asks for the state, a round trip.
        # These four are what pybreaker's methods that we keep work with.
        self._lock = threading.RLock()
        self._name = name
        self._names = {name}
        self._excluded_exceptions: list[Any] = list(exclude)
        self._listeners: list[Any] = list(listeners)
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
        Guard by another name from now on; calls that are out still count for the earlier one.

        The name is the state's key in Redis, so the state is the one that this name has there.

        Raises:
            ValueError: The name has spaces or braces.
        """
        check_name(name)
        self._names = self._names | {name}
        self._name = name

    @property
    def listeners(self) -> tuple[Any, ...]:
        """The listeners that were added; the one that writes the log is not among them."""
        return tuple(each for each in self._listeners if not isinstance(each, TransitionLog))

    def admit(self) -> Permit:
        """
        Ask for one call to go out.

        Returns:
            The permit, to be handed to `record` with the outcome.

        Raises:
            BreakerOpen: Not now.
        """
        rules, token = self.rules, secrets.token_hex(8)
        answer = self._storage.admit(self.name, rules, token)
        self._notify_transition(answer)
        view = answer.view
        if not answer.accepted:
            raise BreakerOpen(
                self.name, view.state, answer.wait_s or rules.reset_timeout_s, _why(view)
            )
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
        Tell how the call ended; a second word about the same permit is ignored.

        Args:
            permit: From `admit` of this breaker.
            outcome: success, failure, or neutral: not the provider's doing.
            reason: The class of the error.
            retry_after_s: How long the provider asks to be left alone; counts with any outcome.
            trip: This failure is proof: open at once.

        Returns:
            How the breaker stands now.
        """
        answer = self._settle(
            permit, Report(*permit.admission, outcome, reason, retry_after_s, trip)
        )
        self._notify_transition(answer)
        return answer.view if answer else permit.view

    def peek(self) -> BreakerState:
        """Read how the breaker stands, changing nothing; one round trip."""
        return self._storage.peek(self.name, self.rules)

    def call(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """
        Call a function, once and without a lock, and record how it ended.

        A generator, an async generator or an awaitable that it returns is watched to its end:
        its exhaustion is the success, and closing it early is neutral.

        Raises:
            BreakerOpen: It was not called; or its failure tripped the breaker
                (unless `throw_new_error_on_trip` is off), then `__cause__` is the failure.
        """
        permit = self.admit()
        self._tell("before_call", func, *args, **kwargs)
        try:
            result = func(*args, **kwargs)
        except BaseException as error:
            self._failed(permit, error)
            raise
        if inspect.isgenerator(result):
            return self._streamed(permit, result)
        if inspect.isasyncgen(result):
            return self._async_streamed(permit, result)
        if inspect.isawaitable(result):
            return self._awaited(permit, result)
        self._succeeded(permit)
        return result

    def call_async(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Do as `call`, which takes awaitables; pybreaker's name for its Tornado form."""
        return self.call(func, *args, **kwargs)

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Guard the body of a `with` statement as `call` guards a function."""
        permit = self.admit()
        self._tell("before_call", self.calling)
        with _Watch(self, permit):
            yield

    def __call__(  # type: ignore[override] # pybreaker's takes anything
        self, func: Callable[..., Any] | None = None, **how: bool
    ) -> Callable[..., Any]:
        """
        Decorate a function, with or without parentheses; an `async def` stays one.

        Args:
            func: What is guarded.
            how: `__pybreaker_call_async`, pybreaker's word for what returns an awaitable; here
                awaitables are awaited and counted without it, and without Tornado.

        Raises:
            TypeError: There is another word in `how`.
        """
        if how.keys() - {CALL_ASYNC}:
            raise TypeError(f"unknown arguments {sorted(how)}; there is only {CALL_ASYNC}")
        if func is None:
            return self
        guarded: Callable[..., Any]
        if inspect.iscoroutinefunction(func):

            @wraps(func)
            async def guarded(*args: Any, **kwargs: Any) -> Any:
                return await self.call(func, *args, **kwargs)
        else:

            @wraps(func)
            def guarded(*args: Any, **kwargs: Any) -> Any:
                return self.call(func, *args, **kwargs)

        return guarded

    @property  # type: ignore[override] # pybreaker's states have the rules inside
    def state(self) -> StateSnapshot:
        """The state as an object with a `name` and a `view`; one round trip."""
        view = self.peek()
        return StateSnapshot(self, view.state, view)

    @state.setter
    def state(self, state: str) -> None:
        ways = {"open": self.open, "half-open": self.half_open, "closed": self.close}
        if state not in ways:
            raise ValueError(f"unknown state {state!r}; it must be one of {', '.join(ways)}")
        ways[state]()

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
        """How long it stays open, in seconds."""
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
        Open it for everybody, for one open time from now.

        Returns:
            `throw_new_error_on_trip`, as pybreaker does.

        Raises:
            RedisError: Redis does not answer; this and the other manual ways change nothing then.
        """
        self._manual(to="open")
        return self._throw_new_error_on_trip

    def half_open(self) -> None:
        """Let probes through now."""
        self._manual(to="half-open")

    def close(self) -> None:
        """Close it for everybody, and forget failures, trips and Retry-After."""
        self._manual(to="closed")

    def force(self, forced: Forced | None) -> BreakerState:
        """Override it until further notice: admit nothing (open), all (closed); None ends it."""
        return self._manual(forced=forced or "none")

    def reset(self) -> BreakerState:
        """Close it and end an override, in one step."""
        return self._manual(to="closed", forced="none")

    def is_system_error(self, exception: BaseException) -> bool:
        """Tell whether an error is the provider's fault; pybreaker's takes some classes wrongly."""
        return isinstance(exception, Exception) and not any(
            isinstance(exception, rule) if isinstance(rule, type) else rule(exception)
            for rule in self._excluded_exceptions
        )

    def _manual(self, *, to: State | None = None, forced: Forced | str = "") -> BreakerState:
        answer = self._storage.force(self.name, self.rules, to=to, forced=forced)
        self._notify_transition(answer)
        return answer.view

    def _settle(self, permit: Permit, report: Report) -> StorageReply | None:
        """Send the report, unless one was sent, or Redis is back and knows nothing of the call."""
        if permit.name not in self._names:
            raise ValueError(f"a permit of breaker {permit.name!r} came to {self.name!r}")
        if not permit.settle():
            return None
        try:
            if permit.view.source == "local":
                return self._storage.record_local(permit.name, self.rules, report)
            return self._storage.record(permit.name, self.rules, report)
        finally:
            permit.end()

    def _succeeded(self, permit: Permit) -> None:
        answer = self._settle(permit, Report(*permit.admission, "success"))
        self._notify_transition(answer)
        self._tell("success")

    def _failed(self, permit: Permit, error: BaseException) -> None:
        """Record what the error means; raises BreakerOpen if it tripped the breaker."""
        if isinstance(error, GeneratorExit):
            permit.forget()  # perhaps in a finalizer: no I/O here
            return
        failure = self.is_system_error(error)
        report = Report(
            *permit.admission,
            "failure" if failure else "neutral",
            type(error).__name__,
            getattr(error, "retry_after_s", None),
        )
        answer = self._settle(permit, report)
        if failure:
            self._tell("failure", error)
        self._notify_transition(answer)
        if (
            answer
            and answer.transitioned
            and answer.view.state == "open"
            and self._throw_new_error_on_trip
        ):
            view = answer.view
            raise BreakerOpen(self.name, view.state, view.open_for_s, view.reason) from error

    def _streamed(
        self, permit: Permit, stream: Generator[Any, Any, Any]
    ) -> Generator[Any, Any, Any]:
        with _Watch(self, permit):
            return (yield from stream)

    async def _async_streamed(
        self, permit: Permit, stream: AsyncGenerator[Any, Any]
    ) -> AsyncGenerator[Any, None]:
        with _Watch(self, permit):
            async with aclosing(stream):
                async for item in stream:
                    yield item

    async def _awaited(self, permit: Permit, awaitable: Awaitable[Any]) -> Any:
        with _Watch(self, permit):
            return await awaitable

    def _notify_transition(self, answer: StorageReply | None) -> None:
        if answer and answer.transitioned:
            view = answer.view
            self._tell(
                "state_change",
                StateSnapshot(self, answer.before, view),
                StateSnapshot(self, view.state, view),
            )

    def _tell(self, event: str, *args: Any, **kwargs: Any) -> None:
        for listener in tuple(self._listeners):
            try:
                getattr(listener, event)(self, *args, **kwargs)
            except Exception as error:  # noqa: BLE001 - whatever a listener does, the call goes on
                log.error("breaker.listener_failed", to=event, error=type(error).__name__)


class _Watch:
    """Record how the body of a `with` statement ended; its exception passes unchanged."""

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
            self._breaker._succeeded(self._permit)
        else:
            self._breaker._failed(self._permit, error)


def _why(view: BreakerState) -> str:
    if view.forced:
        return "forced"
    return "throttled" if view.held_for_s else view.reason
