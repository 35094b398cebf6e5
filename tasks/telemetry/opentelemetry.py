"""
Traces and metrics by OpenTelemetry's conventions, and every name of theirs.

Newest names by default. `gen_ai/dup` in OTEL_SEMCONV_STABILITY_OPT_IN adds those of 1.36, which
most backends still know. Never a prompt, never an answer.
Source: open-telemetry/semantic-conventions-genai, docs/gen-ai/client-inference.md (2026-10), and
semantic-conventions, docs/messaging/messaging-spans.md.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from opentelemetry import metrics, propagate, trace
from opentelemetry.trace import Link, SpanKind

from breakwater.calls.value_types import NAME
from breakwater.messaging.names import role_in
from breakwater.messaging.producer_span import (
    ERROR_TYPE,
    PROCESS,
    SCOPE,
    fail,
    failures,
    of_message,
)
from tasks.catalogue import spec_of
from tasks.telemetry.tracing import Tracing

if TYPE_CHECKING:  # producers import this too
    from breakwater.attempt import Attempt, Usage
    from tasks.config import ProviderSettings
    from tasks.providers.base import Completion
    from tasks.telemetry.sinks import FinishedAttempt

OPT_IN, DUPLICATE = "OTEL_SEMCONV_STABILITY_OPT_IN", "gen_ai/dup"

OPERATION, CHAT = "gen_ai.operation.name", "chat"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_ID = "gen_ai.response.id"
FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHE_READ = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE = "gen_ai.usage.cache_write.input_tokens"
REASONING = "gen_ai.usage.reasoning.output_tokens"
MODALITY, TEXT, UNKNOWN = "gen_ai.token.modality", "text", "unknown"
STATUS_CODE = "http.response.status_code"
SERVER_ADDRESS, SERVER_PORT = "server.address", "server.port"

DURATION = "gen_ai.client.inference.duration"
USAGE = "gen_ai.client.inference.usage."
"""What the names of the counters of tokens begin with; the rest is as in the spans."""
DURATION_S = tuple(0.01 * 2**n for n in range(14))
TOKENS = tuple(4**n for n in range(14))

OLD_SYSTEM = "gen_ai.system"
OLD_CACHE_WRITE = "gen_ai.usage.cache_creation.input_tokens"
OLD_DURATION = "gen_ai.client.operation.duration"
OLD_TOKENS, OLD_TOKEN_TYPE = "gen_ai.client.token.usage", "gen_ai.token.type"

# For what no convention has a name.
TARGET = "breakwater.provider"
NUMBER = "breakwater.attempt"
COST = "breakwater.cost_usd"
WHY = "breakwater.why"
REQUEST_ID = "breakwater.request_id"
EVENTS = {"rejected": "breakwater.rejected", "cached": "breakwater.cached"}
"""Of attempts for which nothing went out, by outcome."""

PORTS = {"http": 80, "https": 443}


class Telemetry(Tracing):
    """What a worker traces and measures, through whatever providers are set up."""

    def __init__(self) -> None:
        self._tracer = trace.get_tracer(SCOPE)
        meter = metrics.get_meter(SCOPE)
        self._duration = meter.create_histogram(
            DURATION, "s", "GenAI operation duration.",
            explicit_bucket_boundaries_advisory=DURATION_S,
        )  # fmt: skip
        self._usage = {
            name: meter.create_counter(
                USAGE + name.removeprefix("gen_ai.usage."), "{token}", "The number of tokens used."
            )
            for name in (INPUT_TOKENS, OUTPUT_TOKENS, CACHE_READ, CACHE_WRITE, REASONING)
        }
        self._duplicate = DUPLICATE in os.environ.get(OPT_IN, "").replace(" ", "").split(",")
        if self._duplicate:
            self._old_duration = meter.create_histogram(
                OLD_DURATION, "s", "GenAI operation duration.",
                explicit_bucket_boundaries_advisory=DURATION_S,
            )  # fmt: skip
            self._old_tokens = meter.create_histogram(
                OLD_TOKENS, "{token}", "Number of input and output tokens used.",
                explicit_bucket_boundaries_advisory=TOKENS,
            )  # fmt: skip

    @contextmanager
    def processing(self, request: Any) -> Iterator[None]:
        """Span one delivery, as a child of the span that sent it, and with a link to it."""
        sent = propagate.extract(request.headers or {})
        origin = trace.get_current_span(sent).get_span_context()
        queue = (request.delivery_info or {}).get("routing_key") or ""
        role = role_in(request.args, request.kwargs)
        role = role if isinstance(role, str) and NAME.fullmatch(role) else ""
        with (
            self._tracer.start_as_current_span(
                f"{PROCESS} {queue}".strip(),
                sent,
                kind=SpanKind.CONSUMER,
                attributes=of_message(PROCESS, role, queue, request.id),
                links=[Link(origin)] if origin.is_valid else None,
                record_exception=False,
                set_status_on_exception=False,
            ) as span,
            failures(span),
        ):
            yield

    @contextmanager
    def calling(self, provider: "ProviderSettings", attempt: "Attempt") -> Iterator[None]:
        """Span one call of a provider."""
        with (
            self._tracer.start_as_current_span(
                f"{CHAT} {attempt.model}",
                kind=SpanKind.CLIENT,
                attributes={
                    **self._of_call(provider, attempt.model),
                    TARGET: provider.name,
                    NUMBER: attempt.number,
                    WHY: attempt.why,
                },
                record_exception=False,
                set_status_on_exception=False,
            ) as span,
            failures(span),
        ):
            yield

    def record(self, finished: "FinishedAttempt") -> None:
        """Describe a call in its span and measure it; an attempt without a call is an event."""
        attempt, completion = finished.attempt, finished.completion
        span = trace.get_current_span()
        if attempt.outcome in EVENTS:
            attributes = {
                TARGET: attempt.provider, ERROR_TYPE: attempt.error or "", WHY: attempt.why,
            }  # fmt: skip
            span.add_event(EVENTS[attempt.outcome], attributes)
            return
        span.set_attributes(self._of_end(attempt, completion))
        if attempt.error:
            fail(span, attempt.error)
        self._measure(self._of_call(finished.provider, finished.model), attempt, completion)

    def _of_call(self, provider: "ProviderSettings", model: str) -> dict[str, Any]:
        vendor, address, port = _server(provider.name, provider.adapter, provider.base_url or "")
        attributes: dict[str, Any] = {OPERATION: CHAT, PROVIDER: vendor, REQUEST_MODEL: model}
        if address:
            attributes |= {SERVER_ADDRESS: address, SERVER_PORT: port}
        if self._duplicate:
            attributes[OLD_SYSTEM] = vendor
        return attributes

    def _of_end(self, attempt: "Attempt", completion: "Completion | None") -> dict[str, Any]:
        used = _counts(attempt.usage)
        told: dict[str, Any] = {name: count for name, count in used.items() if count}
        if self._duplicate and attempt.usage.cache_write_tokens:
            told[OLD_CACHE_WRITE] = attempt.usage.cache_write_tokens
        if completion:
            told |= {RESPONSE_MODEL: completion.model, FINISH_REASONS: [completion.finish_reason]}
        known = {
            RESPONSE_ID: completion.response_id if completion else None,
            REQUEST_ID: attempt.request_id,
            STATUS_CODE: attempt.status,
            COST: attempt.cost.usd and float(attempt.cost.usd),
        }
        return told | {name: value for name, value in known.items() if value is not None}

    def _measure(
        self, about: dict[str, Any], attempt: "Attempt", completion: "Completion | None"
    ) -> None:
        if completion:
            about[RESPONSE_MODEL] = completion.model
        ended = {**about, ERROR_TYPE: attempt.error} if attempt.error else about
        used = _counts(attempt.usage)
        modality = TEXT if any(used.values()) else UNKNOWN
        self._duration.record(attempt.latency_ms / 1000, ended)
        for name, counted in used.items():
            if counted or name in {INPUT_TOKENS, OUTPUT_TOKENS}:  # these two also of failed calls
                self._usage[name].add(counted, {**about, MODALITY: modality})
        if self._duplicate:
            self._old_duration.record(attempt.latency_ms / 1000, ended)
            for kind, name in (("input", INPUT_TOKENS), ("output", OUTPUT_TOKENS)):
                if count := used.get(name):
                    self._old_tokens.record(count, {**about, OLD_TOKEN_TYPE: kind})


def _counts(usage: "Usage") -> Mapping[str, int]:
    """Return what was counted."""
    counts = {
        INPUT_TOKENS: usage.input_tokens,
        OUTPUT_TOKENS: usage.output_tokens,
        CACHE_READ: usage.cached_input_tokens,
        CACHE_WRITE: usage.cache_write_tokens,
        REASONING: usage.reasoning_tokens,
    }
    return {name: count for name, count in counts.items() if count is not None}


@cache
def _server(name: str, adapter: str, base_url: str) -> tuple[str, str, int]:
    """Return the vendor as the conventions call it, host and port; these empty if not known."""
    spec = spec_of(adapter)
    vendor = spec.otel_provider or name
    if not base_url:
        return vendor, spec.host, PORTS["https"] if spec.host else 0
    url = urlsplit(base_url)
    host = url.hostname or ""
    by_host = spec.otel_provider_by_host
    if by_host:
        vendor = next((by_host[end] for end in by_host if host.endswith(end)), name)
    return vendor, host, url.port or PORTS.get(url.scheme, 0)
