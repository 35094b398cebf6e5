"""
Traces and metrics by OpenTelemetry's conventions, and all names that these define.

The newest names are the default. `gen_ai/dup` in OTEL_SEMCONV_STABILITY_OPT_IN adds the names of
1.36, which most backends still use. Spans and metrics never contain a prompt or an answer.
Source: open-telemetry/semantic-conventions-genai, docs/gen-ai/client-inference.md (2026-10), and
semantic-conventions, docs/messaging/messaging-spans.md.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from opentelemetry import metrics, propagate, trace
from opentelemetry.trace import Link, SpanKind
from opentelemetry.util.types import AttributeValue

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

if TYPE_CHECKING:
    from celery.app.task import Context

    from breakwater.attempt import Attempt, Usage
    from tasks.config import ProviderSettings
    from tasks.providers.base import Completion
    from tasks.telemetry.sinks import FinishedAttempt

Attributes = dict[str, AttributeValue]

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
"""The prefix of the token counters' names; the rest is as in the spans."""
DURATION_S = tuple(0.01 * 2**n for n in range(14))
TOKENS = tuple(4**n for n in range(14))

OLD_SYSTEM = "gen_ai.system"
OLD_CACHE_WRITE = "gen_ai.usage.cache_creation.input_tokens"
OLD_DURATION = "gen_ai.client.operation.duration"
OLD_TOKENS, OLD_TOKEN_TYPE = "gen_ai.client.token.usage", "gen_ai.token.type"

# Attributes for which the conventions have no name.
TARGET = "breakwater.provider"
NUMBER = "breakwater.attempt"
COST = "breakwater.cost_usd"
WHY = "breakwater.why"
REQUEST_ID = "breakwater.request_id"
EVENTS = {"rejected": "breakwater.rejected", "cached": "breakwater.cached"}
"""The events of attempts that did not call a provider, by outcome."""

PORTS = {"http": 80, "https": 443}


class Telemetry(Tracing):
    """Traces and measures through the OpenTelemetry providers that the process has set up."""

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
    def processing(self, request: "Context") -> Iterator[None]:
        """Open the span of one delivery, as a child of its producer's span and linked to it."""
        sent = propagate.extract(request.headers or {})
        origin = trace.get_current_span(sent).get_span_context()
        links = []
        if origin.is_valid:
            links.append(Link(origin))
        queue = (request.delivery_info or {}).get("routing_key") or ""
        role = role_in(request.args, request.kwargs)
        if not isinstance(role, str) or not NAME.fullmatch(role):
            role = ""
        with (
            self._tracer.start_as_current_span(
                f"{PROCESS} {queue}".strip(),
                sent,
                kind=SpanKind.CONSUMER,
                attributes=of_message(PROCESS, role, queue, request.id),
                links=links,
                record_exception=False,
                set_status_on_exception=False,
            ) as span,
            failures(span),
        ):
            yield

    @contextmanager
    def calling(self, provider: "ProviderSettings", attempt: "Attempt") -> Iterator[None]:
        """Open the span of one call to a provider."""
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
            attributes: Attributes = {
                TARGET: attempt.provider, ERROR_TYPE: attempt.error or "", WHY: attempt.why,
            }  # fmt: skip
            span.add_event(EVENTS[attempt.outcome], attributes)
            return
        span.set_attributes(self._of_end(attempt, completion))
        if attempt.error:
            fail(span, attempt.error)
        self._measure(self._of_call(finished.provider, finished.model), attempt, completion)

    def _of_call(self, provider: "ProviderSettings", model: str) -> Attributes:
        """Return the attributes that are known before a call, for its span and its metrics."""
        vendor, address, port = _server(provider.name, provider.adapter, provider.base_url or "")
        attributes: Attributes = {OPERATION: CHAT, PROVIDER: vendor, REQUEST_MODEL: model}
        if address:
            attributes |= {SERVER_ADDRESS: address, SERVER_PORT: port}
        if self._duplicate:
            attributes[OLD_SYSTEM] = vendor
        return attributes

    def _of_end(self, attempt: "Attempt", completion: "Completion | None") -> Attributes:
        """Return the attributes that are known after a call, for its span."""
        counts = _counts(attempt.usage)
        attributes: Attributes = {name: count for name, count in counts.items() if count}
        if self._duplicate and attempt.usage.cache_write_tokens:
            attributes[OLD_CACHE_WRITE] = attempt.usage.cache_write_tokens
        if completion:
            attributes[RESPONSE_MODEL] = completion.model
            attributes[FINISH_REASONS] = [completion.finish_reason]
        if completion and completion.response_id is not None:
            attributes[RESPONSE_ID] = completion.response_id
        if attempt.request_id is not None:
            attributes[REQUEST_ID] = attempt.request_id
        if attempt.status is not None:
            attributes[STATUS_CODE] = attempt.status
        if attempt.cost.usd is not None:
            attributes[COST] = float(attempt.cost.usd)
        return attributes

    def _measure(
        self, call: Attributes, attempt: "Attempt", completion: "Completion | None"
    ) -> None:
        """
        Measure a call's duration and its tokens.

        Args:
            call: As `_of_call` returns them.
        """
        if completion:
            call = {**call, RESPONSE_MODEL: completion.model}
        outcome = call
        if attempt.error:
            outcome = {**call, ERROR_TYPE: attempt.error}
        counts = _counts(attempt.usage)
        modality = UNKNOWN
        if any(counts.values()):
            modality = TEXT
        self._duration.record(attempt.latency_ms / 1000, outcome)
        for name, count in counts.items():
            if count or name in {INPUT_TOKENS, OUTPUT_TOKENS}:  # failed calls count these two as 0
                self._usage[name].add(count, {**call, MODALITY: modality})
        if self._duplicate:
            self._old_duration.record(attempt.latency_ms / 1000, outcome)
            for kind, name in (("input", INPUT_TOKENS), ("output", OUTPUT_TOKENS)):
                if tokens := counts.get(name):
                    self._old_tokens.record(tokens, {**call, OLD_TOKEN_TYPE: kind})


def _counts(usage: "Usage") -> Mapping[str, int]:
    """Return the counts that the provider sent, by the names of their attributes."""
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
    """
    Return the vendor by its name in the conventions, the host and the port.

    The host is empty and the port 0 if they are unknown.
    """
    spec = spec_of(adapter)
    vendor = spec.otel_provider or name
    if not base_url and not spec.host:
        return vendor, "", 0
    if not base_url:
        return vendor, spec.host, PORTS["https"]
    url = urlsplit(base_url)
    host = url.hostname or ""
    by_host = spec.otel_provider_by_host
    if by_host:
        vendor = next((by_host[end] for end in by_host if host.endswith(end)), name)
    return vendor, host, url.port or PORTS.get(url.scheme, 0)
