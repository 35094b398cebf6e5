"""One call to a simulated vendor: log it, apply the faults, compose the reply, deliver it."""

import asyncio
import hashlib
import json
import time
from dataclasses import dataclass, replace
from typing import Any

from simulator.answers import answer_of
from simulator.connection import JSON, Connection, Request, json_bytes
from simulator.delivery import Pace, Reply, deliver
from simulator.faults import BODIES, Fault, retry_after_headers
from simulator.hits import Hit, HitLog
from simulator.labels import Label, Labels
from simulator.wires import find_wire
from simulator.wires.answer import Answer
from simulator.wires.asked import Asked
from simulator.wires.base import Rejected, Wire

HEALTHY = Fault()
REQUESTS_PER_MINUTE = 4_000
"""Sent in the rate-limit headers; only a fault limits anything."""


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
        await self.label.wait(latency)
        if fault.kind not in ("hang", "reset"):
            self.hit.status = reply.status
        pace = Pace(fault.interval_s, settings.interval_s, settings.first_token_s)
        await deliver(reply, fault.kind, pace, connection)

    def _compose(self, request: Request, body: bytes) -> Reply:
        """Return the fault's reply if the fault replaces the content, else the vendor's."""
        asked, rejected = None, None
        try:
            # Parsed even before a fault, so that the log has the model and the summary.
            if self.hit.call == "generate":
                asked = self._read(request, _json_object(body))
        except Rejected as refusal:
            rejected = refusal
        if fault := self._faulty(streams=asked is not None and asked.stream):
            return fault
        try:
            if rejected:
                raise rejected
            if self.hit.call == "caches":
                return self._caches(request, body)
            return self._healthy(asked)
        except Rejected as refusal:
            return self._error(refusal.kind, refusal.message)

    def _read(self, request: Request, body: dict[str, Any]) -> Asked:
        held_tokens = 0
        if self.wire.name == "google" and body.get("cachedContent"):
            body, held_tokens = self.label.contents.opened(body)
        asked = replace(self.wire.read(request, body), held_tokens=held_tokens)
        self.hit.model, self.hit.stream, self.hit.asked = asked.model, asked.stream, asked.summary
        return asked

    def _caches(self, request: Request, body: bytes) -> Reply:
        self.wire.check_key(self.key, self.label.settings.keys)
        created = _json_object(body) if request.method == "POST" else {}
        self.hit.model = str(created.get("model", "")).removeprefix("models/")
        name = f"cachedContents/{request.path.rpartition('/')[2]}"
        least_tokens = self.label.settings.prompt_cache_min_tokens
        return self._plain(self.label.contents.ask(request.method, name, created, least_tokens))

    def _faulty(self, *, streams: bool) -> Reply | None:
        fault = self.fault
        if fault.kind in BODIES:
            kind, body = BODIES[fault.kind]
            return Reply.plain(200, {**self._headers(), "content-type": kind}, body)
        # Without this error the vendor answers, with that finish reason; a stream begins well.
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
        if asked.media and not settings.media:
            raise Rejected("invalid", self.wire.blind)
        answer = answer_of(self.label, self.wire, self.fault.kind, asked, self.hit.seq)
        usage = answer.usage
        self.hit.input_tokens, self.hit.output_tokens = usage.input_tokens, usage.output_tokens
        return self._streamed(answer) if asked.stream else self._whole(answer)

    def _whole(self, answer: Answer) -> Reply:
        reply = self._plain(self.wire.plain(answer))
        if self.fault.kind == "cut":
            whole = reply.parts[0]
            return Reply.plain(200, {**self._headers(), **JSON}, whole[: len(whole) // 2])
        return reply

    def _streamed(self, answer: Answer) -> Reply:
        events = self.wire.events(answer)
        if self.fault.kind in ("cut", "stream_error"):
            del events[len(events) // 2 :]
        if self.fault.kind == "stream_error" and self.fault.error_kind:
            events += self.wire.error_events(self.wire.errors[self.fault.error_kind], answer)
        return Reply.stream(self._headers(), events, self.wire.opening, self.wire.ping)

    def _error(
        self, kind: str | None, message: str | None = None, status: int | None = None
    ) -> Reply:
        row = self.wire.errors[kind or "server_error"]
        words = (message or row.message).replace("{model}", self.hit.model or "unknown")
        # OpenAI repeats a wrong key with all but its ends masked: a trap for logs, kept here.
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
