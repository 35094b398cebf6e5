"""Google's Gemini API (`generate_content`), through `google-genai`."""

import json
import math
import time
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import lru_cache
from mimetypes import guess_type
from typing import Any, ClassVar, TypeAlias, TypeVar

import httpx2
from google import genai
from google.genai import errors, types

from breakwater.attempt import UNCOUNTED, Usage
from breakwater.content import Media, Message, Tool, ToolCall
from breakwater.errors import (
    AuthenticationFailed,
    GarbledAnswer,
    UnfinishedAnswer,
    UnsupportedInput,
)
from tasks.config import ProviderSettings
from tasks.providers.adapter import (
    CHECK_S,
    Adapter,
    RawAnswer,
    RawToolCall,
    instructions,
    is_present,
    non_empty,
    parameters,
)
from tasks.providers.alternatives import Alternatives
from tasks.providers.base import Completion, Request
from tasks.providers.errors.bodies import is_error
from tasks.providers.google_caches import Caches, Prefix
from tasks.providers.http.call_limits import call_limits
from tasks.providers.json_values import JsonBody, JsonFields, as_list, as_object
from tasks.providers.round_trip import new_call_id
from tasks.providers.streams.relay import ReadError, StreamObject, StreamRelay
from tasks.providers.token_counts import read_count, read_part, sum_counts
from tasks.providers.usage import Counts, to_usage

SERVER_TIMEOUT_S = 10
"""
The shortest deadline the API accepts in X-Server-Timeout; to a shorter one it answers 400.

Source: "Minimum allowed deadline is 10s", github.com/livekit/agents/issues/3723.
"""


CREATE_S = 5.0
"""How long creating a cache may take, and no more than a quarter of the call's time."""
UNSIGNED = b"skip_thought_signature_validator"
"""
Stands for the signature of a call that Gemini did not make; without one it answers 400.

Source: ai.google.dev/gemini-api/docs/thought-signatures.
"""
UNSPECIFIED = "FINISH_REASON_UNSPECIFIED"
"""The enum's zero, which some gateways send in place of no reason."""
_ANY = types.FunctionCallingConfigMode.ANY
_NO_AUTOMATIC_CALLS = types.AutomaticFunctionCallingConfig(disable=True)
_TYPES = {
    "image": frozenset({"image/png", "image/jpeg", "image/webp", "image/heic", "image/heif"}),
    "document": frozenset({"application/pdf"}),
}
_OBJECT = {"type", "properties", "required", "additionalProperties", "title", "description"}
_CacheableParts: TypeAlias = tuple[str | None, list[Any] | None, types.ToolConfig | None]
_CACHED: _CacheableParts = (None, None, None)
"""In place of the cached parts, which a request with a cache must not repeat."""
_A = TypeVar("_A")


class _StreamStarted(Exception):  # noqa: N818 - not an error
    """A stream has begun; the adapter reads it in place of the SDK."""

    def __init__(self, response: httpx2.Response) -> None:
        super().__init__()
        self.response = response


class _StreamInterceptingClient(httpx2.Client):
    """
    The HTTP client under the SDK; it hands streams to the adapter.

    The SDK treats comments and events' names in a stream as broken JSON, and a chunk that does not
    fit its models as an error.
    """

    def build_request(self, method: str, url: httpx2.URL | str, **options: Any) -> httpx2.Request:
        """Build a request; parse each URL once, which costs 25 us."""
        return super().build_request(method, _parsed(str(url)), **options)

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """
        Send a request.

        Raises:
            _StreamStarted: The answer is a stream that begins well.
        """
        response = super().send(request, **options)
        if options.get("stream") and response.is_success:
            raise _StreamStarted(response)
        return response


_parsed = lru_cache(maxsize=256)(httpx2.URL)
"""Addresses differ by their models alone."""


class _FastContains:
    """
    A model of the SDK whose `name in model` is always false, at once.

    So it is without this class, too. But the SDK evaluates it for every field, and pydantic walks
    over all fields each time: a quarter of a call's CPU (`benchmarks.adapters`).
    """

    def __contains__(self, name: object) -> bool:
        return False


class _Config(_FastContains, types.GenerateContentConfig):
    """The configuration of a call."""


class _Part(_FastContains, types.Part):
    """A piece of a turn."""


class GoogleProvider(Adapter):
    """Gemini."""

    BASE_URL = "https://generativelanguage.googleapis.com"
    PARAM_PATHS: ClassVar = {
        "max_output_tokens": "max_output_tokens",
        "temperature": "temperature",
        "top_p": "top_p",
        "stop": "stop_sequences",
        "seed": "seed",
        "reasoning_effort": "thinking_config.thinking_level",
    }
    EFFORTS: ClassVar = {"none": "minimal", "max": "xhigh"}
    # All of the SDK's `FinishReason`; `blocked` is ours, for a prompt without an answer.
    FINISH: ClassVar = {
        "stop": "stop",
        "max_tokens": "length",
        "continuation": "length",
        **dict.fromkeys(
            (
                "safety", "recitation", "language", "blocklist", "prohibited_content", "spii",
                "image_safety", "image_prohibited_content", "image_recitation", "escalation",
                "model_armor", "blocked",
            ),
            "content_filter",
        ),
        **dict.fromkeys(
            (
                "malformed_function_call", "malformed_response", "unexpected_tool_call",
                "too_many_tool_calls", "other", "no_image", "image_other",
            ),
            GarbledAnswer,
        ),
        "missing_thought_signature": UnsupportedInput,
        "pup_limited_disabled": AuthenticationFailed,
        "finish_reason_unspecified": UnfinishedAnswer,
    }  # fmt: skip

    HTTP: ClassVar = _StreamInterceptingClient
    SDK_HEADERS = ("user-agent",)

    def _build_client(self, settings: ProviderSettings, key: str, http: httpx2.Client) -> None:
        self._prompt_cache = settings.prompt_cache
        self._client = genai.Client(
            api_key=key,
            vertexai=False,
            http_options=types.HttpOptions(
                base_url=self.base_url, api_version="v1", httpx_client=http,
                timeout=_milliseconds(settings.timeout.total_s),
                retry_options=types.HttpRetryOptions(attempts=1),
            ),
        )  # fmt: skip
        self._caches = Caches(self._client)

    def _call(self, request: Request) -> RawAnswer:
        def ask(body: JsonBody) -> RawAnswer:
            http = self._client.models.generate_content(**body).sdk_http_response
            return RawAnswer(json.loads((http and http.body) or ""))

        return self._with_cache(request, ask)

    def _call_streaming(self, request: Request, relay: StreamRelay) -> RawAnswer:
        def listen(body: JsonBody) -> RawAnswer:
            with self._streamed(body) as response:
                objects = relay.objects(response.iter_bytes())
                return RawAnswer(
                    _merge_chunks(objects, relay, self._error_in_body, self._is_whole_reason)
                )

        return self._with_cache(request, listen)

    @contextmanager
    def _streamed(self, body: JsonBody) -> Iterator[httpx2.Response]:
        """Send the request through the SDK; yield the response, which the SDK has not read."""
        try:
            for _ in self._client.models.generate_content_stream(**body):
                raise AssertionError("the SDK must not read the stream")
        except _StreamStarted as started:
            with closing(started.response):
                yield started.response

    def _with_cache(self, request: Request, ask: Callable[[JsonBody], _A]) -> _A:
        """Call with the prefix's cache, if there is one; again without it, if Google forgot it."""
        if not self._prompt_cache:
            return ask(self._body(request))
        began = time.monotonic()
        prefix = Prefix(request.model, *self._cacheable_parts(request))
        # Without the stream's timeouts, and with a small part of the call's time.
        with call_limits(request.before_sending):
            name = self._caches.name_for(
                prefix, _http_options(min(CREATE_S, request.timeout_s / 4))
            )
        left_s = max(0.001, request.timeout_s - (time.monotonic() - began))
        request = replace(request, timeout_s=left_s)
        if name is None:
            return ask(self._body(request))
        try:
            return ask(self._body(request, name))
        except errors.ClientError as error:
            if not _is_forgotten(error):
                raise
        self._caches.forget(name)
        return ask(self._body(request))

    def _cacheable_parts(self, request: Request) -> _CacheableParts:
        """Return what many requests share: system prompt, tools, and the choice of a tool."""
        if not request.tools:
            return instructions(request), None, None
        tools = [types.Tool(function_declarations=[_declaration(tool) for tool in request.tools])]
        return instructions(request), tools, _tool_config(request.tool_choice)

    def _body(self, request: Request, cache: str | None = None) -> JsonBody:
        system, tools, tool_config = _CACHED
        if not cache:
            system, tools, tool_config = self._cacheable_parts(request)
        shape: JsonBody = {}
        if request.schema is not None:
            shape["response_mime_type"] = "application/json"
            shape["response_json_schema"] = dict(request.schema)
        return {
            "model": request.model,
            "contents": list(self._contents(request)),
            "config": _Config(
                **self._params(request.params),
                **shape,
                system_instruction=system,
                tools=tools,
                tool_config=tool_config,
                cached_content=cache,
                # Either could turn one call into several billed ones.
                automatic_function_calling=_NO_AUTOMATIC_CALLS,
                automatic_continuation=False,
                # The raw answer: to build a model of it takes a sixth of the CPU.
                should_return_http_response=not request.on_delta,
                http_options=_http_options(request.timeout_s),
            ),
        }

    def _contents(self, request: Request) -> Iterator[JsonBody]:
        # Dicts of models: from a model of a turn the SDK builds a dict, and from that a model.
        results: list[types.Part] = []
        for message in request.messages:
            if message.role == "tool":
                results.append(self._tool_result(message))
                continue
            if results:  # one turn holds the results of all calls of the turn before
                yield {"role": "user", "parts": results}
                results = []
            if message.role == "system":
                continue
            # The API refuses empty turns, and empty texts.
            if message.role == "assistant":
                role, parts = "model", self._model_parts(message)
            else:
                role, parts = "user", self._user_parts(message)
            if parts:
                yield {"role": role, "parts": parts}
        if results:
            yield {"role": "user", "parts": results}

    def _user_parts(self, message: Message) -> list[types.Part]:
        parts: list[types.Part] = []
        for part in message.parts:
            if isinstance(part, Media):
                parts.append(self._media(part))
            elif part.strip():
                parts.append(_Part(text=part))
        return parts

    def _model_parts(self, message: Message) -> list[types.Part]:
        text = self._only_text(message)
        parts: list[types.Part] = []
        if text.strip():
            parts.append(_Part(text=text))
        # Gemini signs the first call of a turn, and insists on a signature there alone.
        default: bytes | None = UNSIGNED
        for call in message.tool_calls:
            function = types.FunctionCall(id=call.id, name=call.name, args=dict(call.arguments))
            signature = _signature(call) or default
            parts.append(_Part(function_call=function, thought_signature=signature))
            default = None
        return parts

    def _tool_result(self, message: Message) -> types.Part:
        returned = {"output": self._only_text(message)}
        return _Part(
            function_response=types.FunctionResponse(
                id=message.tool_call_id, name=message.name, response=returned
            )
        )

    def _media(self, media: Media) -> types.Part:
        if media.url is not None:
            kind = media.media_type or guess_type(media.url.partition("?")[0])[0]
            return _Part(file_data=types.FileData(file_uri=media.url, mime_type=kind))
        if media.kind == "image" or not (media.media_type or "").startswith("text/"):
            self._check_media_type(media, _TYPES[media.kind], "PNG, JPEG, WebP, HEIC; PDF and text")
        blob = types.Blob(data=self._bytes(media), mime_type=media.media_type)
        return _Part(inline_data=blob)

    def _parse(self, answer: RawAnswer, request: Request) -> Completion:
        body = answer.body
        if is_error(body.get("error")):
            raise self._error_in_body(body)
        reason: object = None
        parts: list[JsonBody] = []
        if candidates := Alternatives().select(body.get("candidates")):
            parts = _parts(candidates[0].get("content"))
            reason = candidates[0].get("finishReason")
        elif (body.get("promptFeedback") or {}).get("blockReason"):
            reason = "blocked"
        else:
            raise self._error_without_answer(body)
        return self._completion(
            text="".join(_text_of(part) for part in parts),
            model=non_empty(body.get("modelVersion")) or request.model,
            reason=reason,
            usage=_read_usage(body.get("usageMetadata")),
            request_id=non_empty(body.get("responseId")),
            response_id=non_empty(body.get("responseId")),
            called=[_raw_tool_call(part) for part in parts if part.get("functionCall")],
        )

    def _list_models(self) -> Iterable[str]:
        listed = self._client.models.list(
            config=types.ListModelsConfig(
                page_size=1000, query_base=True, http_options=_http_options(CHECK_S)
            )
        )
        return ((model.name or "").removeprefix("models/") for model in listed)


def _signature(call: ToolCall) -> bytes | None:
    try:
        return b64decode(call.signature or "", validate=True) or None
    except ValueError:  # made by another vendor, or by a caller
        return None


def _declaration(tool: Tool) -> types.FunctionDeclaration:
    schema: JsonBody | None = parameters(tool)
    if schema and schema.keys() <= _OBJECT and not schema["properties"]:
        schema = None  # Gemini refuses an object without properties
    return types.FunctionDeclaration(
        name=tool.name, description=tool.description or None, parameters_json_schema=schema
    )


def _tool_config(choice: str) -> types.ToolConfig | None:
    if choice == "auto":
        return None
    if choice == "none":
        config = types.FunctionCallingConfig(mode=types.FunctionCallingConfigMode.NONE)
    elif choice == "required":
        config = types.FunctionCallingConfig(mode=_ANY)
    else:
        config = types.FunctionCallingConfig(mode=_ANY, allowed_function_names=[choice])
    return types.ToolConfig(function_calling_config=config)


def _is_forgotten(error: errors.ClientError) -> bool:
    """Return whether a request failed for its cache: unknown, expired, or of another account."""
    status = getattr(error.response, "status_code", 200)  # without one: inside a stream
    return status in {403, 404} or (status == 400 and "ached content" in str(error.message))


def _parts(content: object) -> list[JsonBody]:
    """Return the parts of a turn; some imitators of the API send plain text as a part."""
    parts: list[JsonBody] = []
    for part in as_list(as_object(content).get("parts")):
        if isinstance(part, str):
            parts.append({"text": part})
        elif isinstance(part, dict):
            parts.append(part)
    return parts


def _text_of(part: JsonFields) -> str:
    if part.get("thought"):
        return ""
    return part.get("text") or ""


def _raw_tool_call(part: JsonFields) -> RawToolCall:
    call = part["functionCall"]
    return RawToolCall(
        non_empty(call.get("id")), non_empty(call.get("name")), call.get("args") or {},
        non_empty(part.get("thoughtSignature")),
    )  # fmt: skip


def _merge_chunks(
    objects: Iterable[StreamObject],
    relay: StreamRelay,
    read_error: ReadError,
    is_whole: Callable[[object], bool],
) -> JsonBody:
    """
    Merge the chunks into the answer that a plain call would have returned.

    The stream ends with its body: Gemini has no event for the end, and has sent STOP in each chunk.
    """
    answer: JsonBody = {}
    parts: list[JsonBody] = []
    reason: object = None
    alternatives = Alternatives()
    for name, chunk in objects:
        if is_error(chunk.get("error")) or name == "error":
            if not chunk.get("error"):
                chunk = {"error": chunk}  # noqa: PLW2901 - in the shape of an error
            raise read_error(chunk)
        # Every chunk has counts; those of the last are complete.
        answer |= {key: value for key, value in chunk.items() if value}
        candidate: JsonFields = next(iter(alternatives.select(chunk.get("candidates"))), {})
        ended = candidate.get("finishReason")
        # A later STOP does not make a cut answer whole.
        if is_present(ended) and ended != UNSPECIFIED and (reason is None or not is_whole(ended)):
            reason = ended
            relay.keep_alive()
        for part in _parts(candidate.get("content")):
            parts.append(part)
            _forward_part(part, sum(bool(p.get("functionCall")) for p in parts) - 1, relay)
    answer.pop("candidates", None)
    if parts or reason is not None:
        answer["candidates"] = [{"content": {"parts": parts}, "finishReason": reason}]
    return answer


def _forward_part(part: JsonBody, call: int, relay: StreamRelay) -> None:
    if (function := part.get("functionCall")) and isinstance(function, dict):
        # The same in the stream and in the result.
        function["id"] = function.get("id") or new_call_id()
        args = function.get("args") or {}
        if not isinstance(args, str):
            args = json.dumps(args)
        relay.send_tool_call(call, function["id"], function.get("name"), args)
    elif text := _text_of(part):
        relay.send_text(text)
    else:
        relay.keep_alive()


def _read_usage(used: object) -> Usage:
    if not isinstance(used, dict) or "promptTokenCount" not in used:
        return UNCOUNTED
    thoughts = read_part(used, "thoughtsTokenCount")
    prompt = sum_counts(
        read_count(used, "promptTokenCount"), read_part(used, "toolUsePromptTokenCount")
    )
    answer, total = read_count(used, "candidatesTokenCount"), read_count(used, "totalTokenCount")
    # proto3's JSON omits zeros; the total shows whether a missing count is a zero.
    if "candidatesTokenCount" not in used and total == sum_counts(prompt, thoughts):
        answer = 0
    cached = read_part(used, "cachedContentTokenCount")
    counts = Counts(prompt, answer, cached, 0, thoughts, total)
    return to_usage(counts, is_reasoning_beside=True)


def _http_options(timeout_s: float) -> types.HttpOptions:
    return types.HttpOptions(
        timeout=_milliseconds(timeout_s),
        headers={"X-Server-Timeout": str(max(SERVER_TIMEOUT_S, math.ceil(timeout_s)))},
    )


def _milliseconds(seconds: float) -> int:
    return max(1, math.ceil(seconds * 1000))
