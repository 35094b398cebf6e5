"""
The base of the four adapters: HTTP client, translation of errors, mapping of parameters.

Each adapter holds one vendor's request and one vendor's answer. Everything else is here, so that
the four can be compared side by side.
"""

import json
import re
from abc import ABC, abstractmethod
from base64 import b64decode
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from mimetypes import guess_extension
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, NoReturn, TypeAlias

import httpx2
import structlog

from breakwater.attempt import Usage
from breakwater.calls.schema import MAX_DEPTH, depth_of
from breakwater.content import FinishReason, Media, Message, Tool, ToolCall
from breakwater.errors import (
    FINISH_REASON,
    ContentFiltered,
    ContextWindowExceeded,
    GarbledAnswer,
    ProviderError,
    TruncatedAnswer,
    UnfinishedAnswer,
    UnknownError,
    UnsupportedInput,
)
from tasks import catalogue
from tasks.config import ProviderSettings
from tasks.providers.base import Completion, Request
from tasks.providers.errors.bodies import read_error
from tasks.providers.errors.translation import error_from_body, error_from_response, translate_error
from tasks.providers.http.bounded import ENCODINGS
from tasks.providers.http.call_limits import call_limits
from tasks.providers.http.transport import Transport
from tasks.providers.json_values import JsonBody
from tasks.providers.models import is_listed
from tasks.providers.round_trip import (
    UniqueCallIds,
    portable_json,
    valid_tool_name,
    well_formed,
    with_unique_call_ids,
)
from tasks.providers.schemas import rooted
from tasks.providers.streams.relay import StreamRelay
from tasks.providers.usage import without_zero_counts

if TYPE_CHECKING:
    import anthropic
    import openai

MAX_MODELS = 10_000
"""Names read from a list of models, page by page; the longest list has some hundred."""
CHECK_S = 10.0
"""How long `check` waits for the list of models."""

StreamClass: TypeAlias = Any
"""`Stream[object]` of the client's SDK; the two SDKs share no type."""

_REASON = re.compile(
    r"(?=.{1,64}$)[A-Za-z]{1,20}[0-9]{0,3}([_. :-]{1,2}[A-Za-z]{1,20}[0-9]{0,3}){0,5}"
)
_ANSWERS = frozenset({"choices", "output", "candidates", "content", "metadata", "tools", "text"})
"""Parts of an answer beside its error: words of the model or the caller decide no verdict."""
IMAGES = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif"})

catalogue.hold_loggers(catalogue.loggers())

_log = structlog.get_logger()


class RawToolCall(NamedTuple):
    """A tool call as a vendor sends it."""

    id: str | None
    name: str | None
    arguments: object
    """JSON text, or the object itself."""
    signature: str | None = None


class RawAnswer(NamedTuple):
    """A whole answer as a vendor sends it."""

    body: JsonBody
    request_id: str | None = None
    """The vendor's id of the request, if it is in a header."""


@dataclass(frozen=True, slots=True)
class _Paid:
    """What an error keeps of an answer that has to be paid for."""

    usage: Usage
    request_id: str | None

    def fail(
        self, error: type[ProviderError], message: str, details: dict[str, str] | None = None
    ) -> ProviderError:
        """Build an error that carries the counts of the answer."""
        return error(
            message, {**(details or {})}, request_id=self.request_id, usage=self.usage.as_dict()
        )


class Adapter(ABC):
    """
    One vendor through its SDK; a `Provider`.

    Args:
        settings: The provider's entry in the roles file.
    """

    calls_before_sending_hook: Literal[True] = True
    BASE_URL: ClassVar[str]
    """The vendor's own; always passed to the SDK, which would else read the environment."""
    PARAM_PATHS: ClassVar[Mapping[str, str]]
    """By parameter of ours, its place in the vendor's request; a dot goes one level down."""
    EFFORTS: ClassVar[Mapping[str, str]] = {}
    """By `reasoning_effort`, the vendor's nearest word, where it is another."""
    HTTP: ClassVar[type[httpx2.Client]] = httpx2.Client
    SDK_HEADERS: ClassVar[tuple[str, ...]] = ("accept", "user-agent")
    """Default headers of HTTP that the SDK replaces in each call, which costs 5 us for each."""
    FINISH: ClassVar[Mapping[str, FinishReason | type[ProviderError]]]
    """
    What the vendor's finish reasons mean, in lower case; each with its source.

    A word that is not here does not prove that the answer is whole: the attempt fails with
    UnfinishedAnswer.
    """

    def __init__(self, settings: ProviderSettings) -> None:
        self.name = settings.name
        self.model = settings.model
        self.base_url = settings.base_url or self.BASE_URL
        self.known_models: frozenset[str] | None = None
        """The provider's own list, as `check` last read it; None before."""
        self._dropped: set[str] = set()
        self._transport = Transport(self.base_url, settings.timeout.connect_s)
        # No redirects: most do not keep a POST, and Google's key header would be sent along.
        http = self.HTTP(
            transport=self._transport,
            timeout=settings.timeout.total_s,
            headers={"accept-encoding": ENCODINGS},
            event_hooks={"response": [self._check_readable]},
        )
        for name in self.SDK_HEADERS:
            del http.headers[name]
        # Given an empty key, an SDK looks for one in the environment.
        key = "none"
        if settings.api_key:
            key = settings.api_key.get_secret_value()
        self._build_client(settings, key, http)

    @abstractmethod
    def _build_client(self, settings: ProviderSettings, key: str, http: httpx2.Client) -> None:
        """Build the SDK's client over this HTTP client, with the SDK's retries off."""

    @abstractmethod
    def _call(self, request: Request) -> RawAnswer:
        """Send the request through the SDK; the caller translates what it raises."""

    @abstractmethod
    def _call_streaming(self, request: Request, relay: StreamRelay) -> RawAnswer:
        """
        Request a stream, forward its pieces, and return the answer that they make.

        The stream is always closed. A stream that breaks off makes an answer without a finish
        reason.
        """

    @abstractmethod
    def _parse(self, answer: RawAnswer, request: Request) -> Completion:
        """Read the answer; a missing part, or one of another type, makes it garbled."""

    @abstractmethod
    def _list_models(self) -> Iterable[str]:
        """List the names of the models this key may use."""

    def complete(self, request: Request) -> Completion:
        """Call the provider and wait for the whole answer; see `Provider.complete`."""
        request = prepared(request)
        if request.on_delta:
            answer = self._answer_of_stream(request, StreamRelay(request.on_delta, request))
        else:
            answer = self._answer(request)
        try:
            return self._parse(answer, request)
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            RecursionError,
            TypeError,
            ValueError,
        ):
            raise GarbledAnswer(f"{self.name}: the answer has the wrong shape") from None

    def _answer(self, request: Request) -> RawAnswer:
        try:
            with call_limits(request.before_sending):
                return self._call(request)
        except Exception as error:  # noqa: BLE001 - an SDK may raise anything
            failure = translate_error(self.name, error)
        raise _without_frames(failure)

    def _answer_of_stream(self, request: Request, relay: StreamRelay) -> RawAnswer:
        try:
            with call_limits(request.before_sending, relay.timeouts):
                return self._call_streaming(request, relay)
        except Exception as error:
            if error is relay.listener_error:
                raise
            failure = translate_error(self.name, error)
        raise _without_frames(failure)

    def check(self) -> str:
        """Prove the key by listing the models; see `Provider.check`."""
        self.known_models = self.listed()
        listing = "is not in the list of models"
        if is_listed(self.model, self.known_models):
            listing = "is listed"
        return f"{self.base_url} accepts the key; {self.model} {listing}"

    def listed(self) -> frozenset[str]:
        """
        List the models that this key may use.

        Raises:
            ProviderError: As `complete` does.
        """
        try:
            return frozenset(islice(self._list_models(), MAX_MODELS))
        except Exception as error:  # noqa: BLE001 - an SDK may raise anything
            failure = translate_error(self.name, error)
        raise _without_frames(failure)

    def close(self) -> None:
        """Close the connections; calls in flight end as Cancelled."""
        self._transport.close()

    def _check_readable(self, response: httpx2.Response) -> None:
        """Translate an error whose body the SDK could not read: the SDK would lose its status."""
        if 200 <= response.status_code < 300:  # is_success costs 0.9 us
            return
        try:
            json.loads(response.read())
        except json.JSONDecodeError:
            return
        # Not UTF-8, an endless number, nested too deeply, too long, cut off, or encoded in another
        # way than its header says. Its status is known all the same.
        except (
            ValueError, RecursionError, GarbledAnswer, TruncatedAnswer, httpx2.DecodingError,
        ):  # fmt: skip
            raise error_from_response(self.name, response) from None

    def _error_in_body(self, body: Mapping[str, object]) -> ProviderError:
        """Read an error inside an answer, or in an event, with status 200."""
        return error_from_body(self.name, _without_answers(body))

    def _error_without_answer(self, body: Mapping[str, object]) -> ProviderError:
        """Read a body without an answer: MiniMax and others send an error there, with a 200."""
        error = self._error_in_body(body)
        codes = read_error(_without_answers(body)).codes
        has_number = any(code.isdigit() and int(code) >= 400 for code in codes)
        # Without an error's number it may be an answer of another shape, with words of the model.
        if isinstance(error, UnknownError) or not has_number:
            return GarbledAnswer(f"{self.name}: there is no answer in what it sent")
        return error

    def _refuse(self, why: str) -> NoReturn:
        """Fail before anything is sent; the next target may take the request."""
        raise UnsupportedInput(f"{self.name}: {why}")

    def _check_media_type(self, media: Media, allowed: Container[str], accepted: str) -> None:
        """Refuse bytes of a type to which the vendor would answer 400."""
        if media.data is not None and media.media_type not in allowed:
            self._refuse(f"{media.kind} of type {media.media_type}; it takes {accepted}")

    def _bytes(self, media: Media) -> bytes:
        try:
            return b64decode(media.data or "", validate=True)
        except ValueError:
            self._refuse(f"{media.kind} that is not base64")

    def _only_text(self, message: Message) -> str:
        """Return the text of a turn in which the vendor takes nothing else."""
        if any(isinstance(part, Media) for part in message.parts):
            self._refuse(f"it takes no image or document in a turn of {message.role}")
        return message.text

    def _params(self, params: Mapping[str, object]) -> JsonBody:
        """Map our parameters; drop, with one warning, what the vendor does not take."""
        mapped: JsonBody = {}
        for name, value in params.items():
            if name not in self.PARAM_PATHS:
                self._drop(name)
                continue
            *outer, last = self.PARAM_PATHS[name].split(".")
            inner = mapped
            for key in outer:
                inner = inner.setdefault(key, {})
            if name == "reasoning_effort":
                value = self.EFFORTS.get(str(value), value)  # noqa: PLW2901 - in the vendor's words
            inner[last] = value
        return mapped

    def _drop(self, name: str) -> None:
        if name not in self._dropped:
            self._dropped.add(name)
            _log.warning("provider.param_dropped", provider=self.name, param=name)

    def _completion(
        self,
        *,
        text: str,
        model: str,
        reason: object,
        usage: Usage,
        request_id: str | None,
        response_id: str | None,
        called: Iterable[RawToolCall] = (),
        native_reason: object = None,
    ) -> Completion:
        """
        Build the completion, or raise the error that the answer amounts to.

        | the vendor sends | with text or tool calls | without |
        |---|---|---|
        | stop, tool_calls | success; with calls, `tool_calls` | GarbledAnswer: no answer |
        | length           | success, `length` | ContextWindowExceeded: no room for an answer |
        | content_filter, refusal | success, so named | ContentFiltered |
        | a failure of the model | the class that FINISH has for it | the same |
        | another word     | UnfinishedAnswer | UnfinishedAnswer |
        | no reason        | TruncatedAnswer | TruncatedAnswer |
        """
        paid = _Paid(usage, request_id)
        finish = self._finish_reason(reason, native_reason, paid)
        text = well_formed(text)
        calls = self._tool_calls(called, paid, is_cut=finish == "length")
        if calls and finish == "stop":  # Google and Responses have no word of their own for it
            finish = "tool_calls"
        if not calls and not text.strip():
            raise self._empty(finish, paid)
        return Completion(
            text, model, finish, without_zero_counts(usage), request_id, response_id, calls
        )

    def _empty(self, finish: FinishReason, paid: _Paid) -> ProviderError:
        """Return the error of an answer without text and without tool calls."""
        if finish == "length":
            spent = paid.usage.reasoning_tokens
            tokens = str(spent)
            if spent is None:
                tokens = "unknown"
            message = (
                f"{self.name}: max_output_tokens or the window was spent before the first word"
                f" ({tokens} tokens on reasoning)"
            )
            return paid.fail(ContextWindowExceeded, message)
        if finish in {"content_filter", "refusal"}:
            return paid.fail(ContentFiltered, f"{self.name}: it refuses to answer")
        return paid.fail(GarbledAnswer, f"{self.name}: the answer is empty")

    def _finish_reason(self, reason: object, native: object, paid: _Paid) -> FinishReason:
        """
        Return what a finish reason means.

        Raises:
            ProviderError: It does not mean a whole answer.
        """
        if not is_present(reason):
            message = f"{self.name}: the answer has no finish reason: it is cut off"
            raise paid.fail(TruncatedAnswer, message)
        word = _lower(reason)
        kind = word.partition(":")[0].rstrip()  # Gemini's endpoints write "content_filter: SAFETY"
        finish = self.FINISH.get(word) or self.FINISH.get(kind, UnfinishedAnswer)
        if finish in ("stop", "tool_calls") and word not in self.FINISH:
            finish = UnfinishedAnswer  # anything may follow the colon
        if isinstance(finish, str):
            return finish
        words = describe_reason(reason)
        if is_present(native):
            words += f" ({describe_reason(native)})"
        why = "that word is unknown, so it may be cut"
        if word in self.FINISH or kind in self.FINISH:
            why = "the answer is not whole"
        message = f"{self.name} ended the answer with {words}: {why}"
        raise paid.fail(finish, message, {FINISH_REASON: describe_reason(reason)})

    def _is_whole_reason(self, reason: object) -> bool:
        """Return whether a finish reason means that the answer is whole."""
        return self.FINISH.get(_lower(reason)) in ("stop", "tool_calls")

    def _tool_calls(
        self, called: Iterable[RawToolCall], paid: _Paid, *, is_cut: bool
    ) -> tuple[ToolCall, ...]:
        calls: list[ToolCall] = []
        call_ids = UniqueCallIds()
        for call in called:
            arguments = _arguments_object(call.arguments)
            name = (call.name or "").strip()
            if arguments is not None and name:
                signature = call.signature
                if not (isinstance(signature, str) and signature.isascii()):
                    signature = None
                calls.append(
                    ToolCall(
                        call_ids.unique(call.id),
                        valid_tool_name(name),
                        portable_json(arguments),
                        signature,
                    )
                )
            elif not is_cut:  # a call that the length cut off in its middle is left out
                message = f"{self.name}: the arguments of a tool call are not a JSON object"
                raise paid.fail(GarbledAnswer, message)
        return tuple(calls)


def _without_answers(body: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in body.items() if name not in _ANSWERS}


def _lower(reason: object) -> str:
    if isinstance(reason, str):
        return reason.strip().lower()
    return ""


def _without_frames(failure: ProviderError) -> ProviderError:
    """
    Remove an error's traceback, and the SDK's error that caused it.

    The variables in those frames hold the key and the prompt, which a traceback or an error tracker
    would show.
    """
    failure.__cause__ = failure.__context__ = None
    return failure.with_traceback(None)


def post_json(
    client: "anthropic.Anthropic | openai.OpenAI", path: str, body: JsonBody, timeout_s: float
) -> RawAnswer:
    """
    Post a request as the SDKs document it for an endpoint that they have no method for.

    Headers, timeouts and errors are the same. The SDKs' own methods look for keys to rename in the
    request and build models of the answer: 30 to 50 % of their CPU (`benchmarks.adapters`).
    """
    http = client.post(path, cast_to=httpx2.Response, body=body, options={"timeout": timeout_s})
    request_id = http.headers.get("request-id") or http.headers.get("x-request-id")
    return RawAnswer(http.json(), request_id)


@contextmanager
def open_stream(
    client: "anthropic.Anthropic | openai.OpenAI",
    stream_cls: StreamClass,
    path: str,
    body: JsonBody,
    timeout_s: float,
) -> Iterator[httpx2.Response]:
    """
    Post a request as `post_json` does, for a stream; close the stream afterwards.

    The events are unread: the SDKs' readers of events do not follow the standard (see `sse`), and
    drop what does not fit their models.
    """
    with client.post(
        path, cast_to=object, body={**body, "stream": True}, options={"timeout": timeout_s},
        stream=True, stream_cls=stream_cls,
    ) as stream:  # fmt: skip
        yield stream.response


def is_present(reason: object) -> bool:
    """Return whether a finish reason was sent; SGLang sends "" until the end, Qwen "null"."""
    return reason is not None and reason not in ("", "null")


def describe_reason(reason: object) -> str:
    """Return a finish reason for a message: the vendor's word, if it is only a word."""
    if not isinstance(reason, str):
        return f"a value of type {type(reason).__name__}"
    word = reason.strip()
    if _REASON.fullmatch(word):
        return repr(word)
    return f"a word of {len(word)} characters that may be more than a word"


def non_empty(value: object) -> str | None:
    """Return a string that is not empty; None for anything else."""
    if isinstance(value, str) and value:
        return value
    return None


def _arguments_object(arguments: object) -> JsonBody | None:
    """Read a tool call's arguments; for a tool without parameters they may be missing or empty."""
    if arguments is None:
        return {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            return None
    # A result that nests deeper than a prompt may could not be handed back.
    if isinstance(arguments, dict) and depth_of(arguments) <= MAX_DEPTH:
        return arguments
    return None


def prepared(request: Request) -> Request:
    """Return the request with ids of tool calls that every vendor takes."""
    messages = with_unique_call_ids(request.messages)
    if messages is request.messages:
        return request
    return replace(request, messages=messages)


def instructions(request: Request) -> str | None:
    """Join the request's system prompt and the system messages of its conversation."""
    texts = [request.system, *(m.text for m in request.messages if m.role == "system")]
    return "\n\n".join(text for text in texts if text and text.strip()) or None


def parameters(tool: Tool) -> JsonBody:
    """Return a tool's JSON Schema, complete also for a tool without parameters."""
    return {"type": "object", "properties": {}, **rooted(tool.parameters)}


def data_url(media: Media) -> str:
    """Return bytes as OpenAI takes them."""
    return f"data:{media.media_type};base64,{media.data}"


def file_name(media: Media) -> str:
    """Return a document's name, or one with the suffix of its type, on which OpenAI insists."""
    return media.name or f"document{guess_extension(media.media_type or '') or ''}"
