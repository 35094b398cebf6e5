"""One call to a simulated vendor: log it, ask the faults, compose the reply, have it delivered."""

import asyncio
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from simulator.connection import JSON, Connection, Request, json_bytes
from simulator.delivery import Reply, deliver
from simulator.faults import BODIES, Fault, draw_latency, retry_after_headers
from simulator.hits import Hit, HitLog
from simulator.labels import Label, Labels
from simulator.wires import find_wire
from simulator.wires.base import FINISHES, Answer, Asked, Rejected, Usage, Wire

HEALTHY = Fault()
REFUSAL = "I can't help with that."
REQUESTS_PER_MINUTE = 4_000
"""Told in the rate-limit headers; nothing is limited unless a fault says so."""


class Vendor:
    """Answers the calls to all labels."""

    def __init__(self, labels: Labels, hits: HitLog) -> None:
        self._labels = labels
        self._hits = hits

    async def answer(self, name: str, path: str, request: Request, connection: Connection) -> None:
        """Answer one call to the label `name`."""
        wire, call = find_wire(request, path)
        key = _key_of(request)
        with self._hits.arrival(name, wire.name, call, key) as hit:
            label = self._labels[name]
            struck = label.strike()
            hit.fault = struck.name if struck else None
            try:
                await _Call(label, wire, key, hit, struck or HEALTHY).run(request, connection)
            except asyncio.CancelledError:
                hit.client_gone = True
                raise


@dataclass(frozen=True, slots=True)
class _Call:
    label: Label
    wire: Wire
    key: str
    hit: Hit
    fault: Fault

    async def run(self, request: Request, connection: Connection) -> None:
        settings, fault = self.label.settings, self.fault
        if fault.kind == "reset_early":
            connection.reset()
            return
        body = await request.body
        self.hit.body_sha256 = hashlib.sha256(body).hexdigest()
        reply = self._compose(request, body)
        latency = settings.latency if fault.latency is None else fault.latency
        if latency is not None:
            await asyncio.sleep(draw_latency(latency, self.label.random))
        if fault.kind not in ("hang", "reset"):
            self.hit.status = reply.status
        await deliver(reply, fault.kind, fault.interval_s, settings.interval_s, connection)

    def _compose(self, request: Request, body: bytes) -> Reply:
        """Reply with the fault if it is one of content, else as the vendor would."""
        asked, rejected = None, None
        try:
            # Read even where a fault follows, so that the log tells the model.
            if self.hit.call == "generate":
                asked = self.wire.read(request, _json_object(body))
                self.hit.model, self.hit.stream = asked.model, asked.stream
        except Rejected as refusal:
            rejected = refusal
        if fault := self._faulty(streams=asked is not None and asked.stream):
            return fault
        try:
            if rejected:
                raise rejected
            return self._healthy(asked)
        except Rejected as refusal:
            return self._error(refusal.kind, refusal.message)

    def _faulty(self, *, streams: bool) -> Reply | None:
        fault = self.fault
        if fault.kind in BODIES:
            kind, body = BODIES[fault.kind]
            return Reply.plain(200, {**self._headers(), "content-type": kind}, body)
        # A vendor without such an error answers, with that finish; a stream begins well.
        if fault.error_kind not in self.wire.errors or (streams and fault.kind == "stream_error"):
            return None
        return self._error(fault.error_kind, status=fault.status)

    def _healthy(self, asked: Asked | None) -> Reply:
        settings = self.label.settings
        self.wire.check_key(self.key, settings.keys)
        if self.hit.call == "models":
            return self._plain(self.wire.models(settings.models or ("sim-1", "sim-2")))
        if asked is None:
            raise Rejected("model_not_found", "Not found")
        if settings.models is not None and asked.model not in settings.models:
            raise Rejected("model_not_found")
        answer = self._answer(asked)
        if not asked.stream:
            reply = self._plain(self.wire.plain(answer))
            if self.fault.kind == "cut":
                whole = reply.parts[0]
                return Reply.plain(200, {**self._headers(), **JSON}, whole[: len(whole) // 2])
            return reply
        events = self.wire.events(answer)
        if self.fault.kind in ("cut", "stream_error"):
            del events[len(events) // 2 :]
        if self.fault.kind == "stream_error" and self.fault.error_kind:
            events += self.wire.error_events(self.wire.errors[self.fault.error_kind], answer)
        return Reply.stream(self._headers(), events)

    def _answer(self, asked: Asked) -> Answer:
        settings, kind = self.label.settings, self.fault.kind
        finish = kind if kind in FINISHES else settings.finish
        if kind == "content_filtered":
            finish = "content_filter"
        digest = hashlib.sha256(asked.text.encode()).hexdigest()[:8]
        usual = REFUSAL if finish == "refusal" else f"[{self.label.name}] answer to {digest}"
        text = asked.text if settings.answer == "echo" else settings.answer or usual
        if kind == "no_text" or finish == "content_filter":
            text = ""
        usage = _usage(asked, text, settings.usage)
        self.hit.input_tokens, self.hit.output_tokens = usage.input_tokens, usage.output_tokens
        return Answer(self.hit.seq, int(time.time()), asked, text, finish, usage)

    def _error(
        self, kind: str | None, message: str | None = None, status: int | None = None
    ) -> Reply:
        row = self.wire.errors[kind or "server_error"]
        words = message or row.message.replace("{model}", self.hit.model or "unknown")
        # OpenAI repeats a wrong key with all but its ends masked: a trap for logs, so kept.
        words = words.replace("{key}", f"{self.key[:7]}{'*' * 12}{self.key[-4:]}")
        error = replace(row, status=status or row.status, message=words)
        wait_s, told_s = self.fault.retry_after, None
        headers = {**self._headers(), **JSON}
        if wait_s is not None:
            form = self.fault.retry_after_form or self.wire.retry_form(wait_s)
            headers |= retry_after_headers(form, wait_s, time.time())
            told_s = wait_s if form == "retry_info" else None
        body = json_bytes(self.wire.error_body(error, self.hit.request_id, told_s))
        return Reply.plain(error.status, headers, body)

    def _plain(self, value: object) -> Reply:
        return Reply.plain(200, {**self._headers(), **JSON}, json_bytes(value))

    def _headers(self) -> dict[str, str]:
        remaining = max(0, REQUESTS_PER_MINUTE - self.hit.in_flight)
        return self.wire.headers(self.hit.request_id, REQUESTS_PER_MINUTE, remaining)


def _key_of(request: Request) -> str:
    headers = request.headers
    bearer = headers.get("authorization", "").partition(" ")[2].strip()
    named = (headers.get(name, "") for name in ("x-api-key", "x-goog-api-key", "api-key"))
    return bearer or next(filter(None, named), request.query.get("key", ""))


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Rejected("invalid", "We could not parse the JSON body of your request.")
    return value


def _usage(asked: Asked, text: str, given: Mapping[str, int]) -> Usage:
    """Estimate four characters a token, and add what the settings say."""
    cached = given.get("cached_input_tokens", 0) + given.get("cache_write_tokens", 0)
    estimated = {
        "input_tokens": asked.size // 4 + 1 + cached,
        "output_tokens": len(text) // 4 + 1 + given.get("reasoning_tokens", 0),
    }
    return Usage(**{**estimated, **given})
