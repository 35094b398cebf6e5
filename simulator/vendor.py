"""
One call to a simulated vendor: log it, ask the faults, compose a reply, deliver it or break it.
"""

import asyncio
import hashlib
import json
import time
from dataclasses import dataclass, replace
from typing import Any

from simulator.connection import JSON, Connection, Request, json_bytes
from simulator.faults import BODIES, Fault, draw_latency, retry_after_headers
from simulator.hits import Hit, HitLog
from simulator.labels import Label, Labels
from simulator.wires import GOOGLE, find_wire
from simulator.wires.base import Answer, Asked, Rejected, Usage, Wire

EVENT_STREAM = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
HEALTHY = Fault()
REQUESTS_PER_MINUTE = 4_000  # told in the rate-limit headers; no limit unless a fault sets one
LINGER_S = 0.05  # lets the half of an answer arrive before the reset that discards what is unsent


@dataclass(slots=True)
class Reply:
    """What to send; `events` makes it a stream."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    events: list[bytes] | None = None


class Vendor:
    """Answers calls for all labels."""

    def __init__(self, labels: Labels, hits: HitLog) -> None:
        self._labels = labels
        self._hits = hits

    async def answer(self, name: str, path: str, request: Request, connection: Connection) -> None:
        """Answer one call to the label `name`."""
        wire, call = find_wire(request, path)
        key = _key_of(request)
        with self._hits.arrival(name, wire.name, call, key) as hit:
            try:
                await self._play(self._labels[name], wire, key, hit, request, connection)
            except asyncio.CancelledError:
                hit.client_gone = True
                raise

    async def _play(
        self, label: Label, wire: Wire, key: str, hit: Hit, request: Request, connection: Connection
    ) -> None:
        struck = label.strike()
        fault = struck or HEALTHY
        hit.fault = struck.name if struck else None
        if fault.kind == "reset_early":
            connection.reset()
            return
        body = await request.body
        hit.body_sha256 = hashlib.sha256(body).hexdigest()
        reply = _Composer(label, wire, hit, fault).compose(request, key, body)
        latency = fault.latency if fault.latency is not None else label.settings.latency
        if latency is not None:
            await asyncio.sleep(draw_latency(latency, label.random))
        if fault.kind == "hang":
            await asyncio.get_running_loop().create_future()
        if fault.kind == "reset":
            connection.reset()
            return
        hit.status = reply.status
        await _deliver(reply, fault, label.settings.interval_s, connection)


@dataclass(slots=True)
class _Composer:
    label: Label
    wire: Wire
    hit: Hit
    fault: Fault

    def compose(self, request: Request, key: str, body: bytes) -> Reply:
        asked: Asked | None = None
        try:
            # Read even where a fault follows, so that the log tells the model.
            if self.hit.call == "generate":
                asked = self.wire.read(request, _json_object(body))
                self.hit.model, self.hit.stream = asked.model, asked.stream
        except Rejected as rejected:
            return self._struck() or self._refuse(rejected, key)
        if reply := self._struck(asked):
            return reply
        try:
            self.wire.check_key(key, self.label.settings.keys)
            known = self.label.settings.models
            if self.hit.call == "models":
                return self._reply(json_bytes(self.wire.models(known or ("sim-1", "sim-2"))))
            if asked is None or (known is not None and asked.model not in known):
                raise Rejected("model_not_found", None if asked else "Not found")
        except Rejected as rejected:
            return self._refuse(rejected, key)
        return self._say(asked)

    def _struck(self, asked: Asked | None = None) -> Reply | None:
        """Return the fault's reply, None if it is about delivery or finish alone."""
        fault = self.fault
        if fault.kind in BODIES:
            kind, body = BODIES[fault.kind]
            return Reply(200, {"content-type": kind, **self._headers()}, body)
        kind = fault.error_kind
        if kind not in self.wire.errors or (
            fault.kind == "stream_error" and asked and asked.stream
        ):
            return None
        return self._error(kind, status=fault.status)

    def _say(self, asked: Asked) -> Reply:
        settings, fault = self.label.settings, self.fault
        digest = hashlib.sha256(asked.text.encode()).hexdigest()[:8]
        text = settings.answer or f"[{self.label.name}] answer to {digest}"
        text = asked.text if text == "echo" else text
        finish = settings.finish
        if fault.kind in ("refusal", "content_filter", "length"):
            finish = fault.kind
        elif fault.kind == "content_filtered":  # only where the vendor has no error for it
            finish = "content_filter"
        if fault.kind == "no_text" or finish == "content_filter":
            text = ""
        usage = _usage(asked, text, dict(settings.usage))
        self.hit.input_tokens, self.hit.output_tokens = usage.input_tokens, usage.output_tokens
        answer = Answer(self.hit.request_id, int(time.time()), asked.model, text, finish, usage)
        if not asked.stream:
            return self._reply(json_bytes(self.wire.plain(answer)))
        events = self.wire.events(answer)
        if fault.kind in ("cut", "stream_error"):
            events = events[: len(events) // 2]
        if fault.kind == "stream_error" and fault.error_kind:
            events += self.wire.error_events(self.wire.errors[fault.error_kind], answer)
        return Reply(200, {**EVENT_STREAM, **self._headers()}, events=events)

    def _refuse(self, rejected: Rejected, key: str) -> Reply:
        return self._error(rejected.kind, message=rejected.message, key=key)

    def _error(
        self, kind: str, *, status: int | None = None, message: str | None = None, key: str = ""
    ) -> Reply:
        row = self.wire.errors[kind]
        words = message or row.message.replace("{model}", self.hit.model or "unknown")
        # OpenAI repeats a wrong key with all but its ends masked: a trap for logs, so kept.
        words = words.replace("{key}", f"{key[:7]}{'*' * 12}{key[-4:]}")
        error = replace(row, status=status or row.status, message=words)
        wait_s, form = self.fault.retry_after, self.fault.retry_after_form
        headers: dict[str, str] = {}
        if wait_s is not None:
            usual = "seconds" if float(wait_s).is_integer() else "fraction"
            form = form or ("retry_info" if self.wire is GOOGLE else usual)
            headers = retry_after_headers(form, wait_s, time.time())
        told_s = wait_s if form == "retry_info" else None
        body = json_bytes(self.wire.error_body(error, self.hit.request_id, told_s))
        return Reply(error.status, {**JSON, **self._headers(), **headers}, body)

    def _reply(self, body: bytes) -> Reply:
        return Reply(200, {**JSON, **self._headers()}, body)

    def _headers(self) -> dict[str, str]:
        remaining = max(0, REQUESTS_PER_MINUTE - self.hit.in_flight)
        return self.wire.headers(self.hit.request_id, REQUESTS_PER_MINUTE, remaining)


async def _deliver(reply: Reply, fault: Fault, interval_s: float, connection: Connection) -> None:
    body = reply.body
    if reply.events is not None:
        body = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in reply.events)
    elif fault.kind == "cut":
        body = body[: len(body) // 2]
    headers = reply.headers
    if reply.events is None:
        headers = {**headers, "content-length": str(len(body))}
    half = body[: len(body) // 2]
    if fault.kind == "trickle":
        connection.send_head(reply.status, headers)
        for at in range(len(body)):
            await asyncio.sleep(fault.interval_s)
            connection.send_raw(body[at : at + 1])
    elif fault.kind == "truncate":
        connection.send_head(reply.status, headers, half)
        connection.close()
        return
    elif fault.kind == "reset_midway":
        connection.send_head(reply.status, headers, half)
        await asyncio.sleep(LINGER_S)
        connection.reset()
        return
    elif reply.events is not None and interval_s:
        connection.send_head(reply.status, headers)
        for event in reply.events:
            connection.send_chunk(event)
            await asyncio.sleep(interval_s)
    else:
        connection.send_head(reply.status, headers, body)
    if reply.events is not None:
        connection.send_chunk(b"")


def _key_of(request: Request) -> str:
    headers = request.headers
    bearer = headers.get("authorization", "").partition(" ")[2].strip()
    return (
        bearer or headers.get("x-api-key") or headers.get("x-goog-api-key")
        or headers.get("api-key") or request.query.get("key") or ""
    )  # fmt: skip


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Rejected("invalid", "We could not parse the JSON body of your request.")
    return value


def _usage(asked: Asked, text: str, given: dict[str, int]) -> Usage:
    """Estimate four characters a token, and add what the settings say."""
    cached = given.get("cached_input_tokens", 0) + given.get("cache_write_tokens", 0)
    estimated = {
        "input_tokens": asked.size // 4 + 1 + cached,
        "output_tokens": len(text) // 4 + 1 + given.get("reasoning_tokens", 0),
    }
    return Usage(**{**estimated, **given})
