"""
What the four adapters share: the HTTP client, the errors' translation, the parameters' mapping.

An adapter is one vendor's request and one vendor's answer; everything else is here, so that the
four stay comparable side by side.
"""

import json
import re
import sys
from abc import ABC, abstractmethod
from base64 import b64decode
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from mimetypes import guess_extension
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, NoReturn

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
from tasks.providers.http.call_limits import call_limits
from tasks.providers.http.transport import Transport
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
"""Names that are read of a list of models, page by page; the longest has some hundred."""
CHECK_S = 10.0
"""How long `check` waits for the list of models."""

_REASON = re.compile(
    r"(?=.{1,64}$)[A-Za-z]{1,20}[0-9]{0,3}([_. :-]{1,2}[A-Za-z]{1,20}[0-9]{0,3}){0,5}"
)
_ANSWERS = frozenset({"choices", "output", "candidates", "content", "metadata", "tools", "text"})
"""Parts of an answer around an error: the model's and the caller's words choose no verdict."""
IMAGES = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif"})

catalogue.hold_loggers(catalogue.loggers())

_log = structlog.get_logger()


class RawToolCall(NamedTuple):
    """A tool call as a vendor writes it."""

    id: str | None
    name: str | None
    arguments: object
    """JSON text, or what it says."""
    signature: str | None = None


class RawAnswer(NamedTuple):
    """An answer as it came."""

    body: Any
    """Its JSON."""
    request_id: str | None = None
    """The vendor's, where it stands in a header."""


class Adapter(ABC):
    """
    One vendor through its SDK; a `Provider`.

    Args:
        settings: The provider's entry in the roles file.
    """

    calls_before_sending_hook: Literal[True] = True
    BASE_URL: ClassVar[str]
    """The vendor's own; given to the SDK in any case, or else it would ask the environment."""
    PARAM_PATHS: ClassVar[Mapping[str, str]]
    """Our parameters, and where each goes in the vendor's request; a dot goes one level down."""
    EFFORTS: ClassVar[Mapping[str, str]] = {}
    """The vendor's nearest word for a `reasoning_effort`, where it is another."""
    HTTP: ClassVar[type[httpx2.Client]] = httpx2.Client
    FINISH: ClassVar[Mapping[str, FinishReason | type[ProviderError]]]
    """
    What the vendor's finish reasons mean, in lower case; with a source for each.

    A word that is not here is no proof of an end: the attempt fails with UnfinishedAnswer.
    """

    def __init__(self, settings: ProviderSettings) -> None:
        self.name = settings.name
        self.model = settings.model
        self.base_url = settings.base_url or self.BASE_URL
        self._dropped: set[str] = set()
        self._transport = Transport(self.base_url, settings.timeout.connect_s)
        # No redirects: a POST does not survive most, and Google's key header would go along.
        http = self.HTTP(
            transport=self._transport, timeout=settings.timeout.total_s,
            event_hooks={"response": [self._check_readable]},
        )  # fmt: skip
        # The SDKs take an empty key for none, and then look for one in the environment.
        key = settings.api_key.get_secret_value() if settings.api_key else "none"
        self._build_client(settings, key, http)

    @abstractmethod
    def _build_client(self, settings: ProviderSettings, key: str, http: httpx2.Client) -> None:
        """Build the SDK's client over the HTTP client, without retries of its own."""

    @abstractmethod
    def _call(self, request: Request) -> RawAnswer:
        """Send the request through the SDK; whatever it raises is translated."""

    @abstractmethod
    def _call_streaming(self, request: Request, relay: StreamRelay) -> RawAnswer:
        """
        Ask for a stream, tell its pieces on, and return the answer they make.

        The stream is closed whatever happens. One that ended before its own end makes an answer
        without a finish reason.
        """

    @abstractmethod
    def _parse(self, answer: RawAnswer, request: Request) -> Completion:
        """Read the answer; what is missing or of another type makes it garbled."""

    @abstractmethod
    def _list_models(self) -> Iterable[str]:
        """List the names of the models this key may use."""

    def complete(self, request: Request) -> Completion:
        """Ask the provider and wait for the whole answer; see `Provider.complete`."""
        request = prepared(request)
        relay = StreamRelay(request.on_delta, request) if request.on_delta else None
        failure: ProviderError | None = None
        try:
            with call_limits(request.before_sending, relay.timeouts if relay else None):
                answer = self._call_streaming(request, relay) if relay else self._call(request)
        except Exception as error:
            if relay and error is relay.listener_error:
                raise
            failure = translate_error(self.name, error)
        if failure:
            raise _without_frames(failure)
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

    known_models: frozenset[str] | None = None
    """The provider's own list, as `check` last read it; None before."""

    def check(self) -> str:
        """Prove the key by listing the models; see `Provider.check`."""
        self.known_models = self.listed()
        listed = is_listed(self.model, self.known_models)
        listing = "is listed" if listed else "is not in the list of models"
        return f"{self.base_url} accepts the key; {self.model} {listing}"

    def listed(self) -> frozenset[str]:
        """
        List the models that this key may use.

        Raises:
            ProviderError: As `complete` does.
        """
        failure: ProviderError | None = None
        try:
            return frozenset(islice(self._list_models(), MAX_MODELS))
        except Exception as error:  # noqa: BLE001 - as above
            failure = translate_error(self.name, error)
        raise _without_frames(failure)

    def close(self) -> None:
        """Close the connections; calls in flight end as Cancelled."""
        self._transport.close()

    def _check_readable(self, response: httpx2.Response) -> None:
        """Translate an error here whose body an SDK would stumble over, and lose its status."""
        if response.is_success:
            return
        try:
            json.loads(response.read())
        except json.JSONDecodeError:
            return
        # Not UTF-8, an endless number, too deep; too long, cut off, or encoded in another way than
        # it says: its status is known.
        except (
            ValueError, RecursionError, GarbledAnswer, TruncatedAnswer, httpx2.DecodingError,
        ):  # fmt: skip
            raise error_from_response(self.name, response) from None

    def _error_in_body(self, body: Mapping[str, Any]) -> ProviderError:
        """Read an error that came inside an answer, or as an event, with status 200."""
        return error_from_body(
            self.name, {name: body[name] for name in body if name not in _ANSWERS}
        )

    def _error_without_answer(self, body: Mapping[str, Any]) -> ProviderError:
        """Read a body that is no answer: MiniMax and others put an error at its top, with a 200."""
        error = self._error_in_body(body)
        codes = read_error({name: body[name] for name in body if name not in _ANSWERS}).codes
        # Without an error's number it may be an answer of another shape, with words of the model.
        if isinstance(error, UnknownError) or not any(
            code.isdigit() and int(code) >= 400 for code in codes
        ):
            return GarbledAnswer(f"{self.name}: there is no answer in what it sent")
        return error

    def _refuse(self, what: str) -> NoReturn:
        """Give up before anything is sent; the next target may take it."""
        raise UnsupportedInput(f"{self.name}: {what}")

    def _check_media_type(self, media: Media, kinds: Container[str], accepted: str) -> None:
        """Refuse bytes of a type to which the vendor would answer 400."""
        if media.data is not None and media.media_type not in kinds:
            self._refuse(f"{media.kind} of type {media.media_type}; it takes {accepted}")

    def _bytes(self, media: Media) -> bytes:
        try:
            return b64decode(media.data or "", validate=True)
        except ValueError:
            self._refuse(f"{media.kind} that is not base64")

    def _only_text(self, message: Message) -> str:
        """Return a turn's text where the vendor takes nothing else."""
        if any(isinstance(part, Media) for part in message.parts):
            self._refuse(f"it takes no image or document in a turn of {message.role}")
        return message.text

    def _params(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Map our parameters; what the vendor does not take is dropped with one warning."""
        mapped: dict[str, Any] = {}
        for name, value in params.items():
            if name not in self.PARAM_PATHS:
                self._drop(name)
                continue
            *outer, last = self.PARAM_PATHS[name].split(".")
            inner = mapped
            for key in outer:
                inner = inner.setdefault(key, {})
            inner[last] = self.EFFORTS.get(value, value) if name == "reasoning_effort" else value
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
        Say what an answer is worth.

        | the vendor says  | with text or tool calls | without |
        |---|---|---|
        | stop, tool_calls | success; with calls, `tool_calls` | GarbledAnswer: that is no answer |
        | length           | success, `length` | ContextWindowExceeded: no room to say anything |
        | content_filter, refusal | success, so named | ContentFiltered |
        | a failure of the model | the class that FINISH has for it | the same |
        | another word     | UnfinishedAnswer | UnfinishedAnswer |
        | nothing          | TruncatedAnswer | TruncatedAnswer |
        """
        paid: dict[str, Any] = {"request_id": request_id, "usage": usage.as_dict()}
        finish = self._finish_reason(reason, native_reason, paid)
        text = well_formed(text)
        calls = self._tool_calls(called, cut=finish == "length", paid=paid)
        if calls and finish == "stop":  # Google and Responses have no word of their own for it
            finish = "tool_calls"
        if not text.strip() and not calls:
            if finish == "length":
                spent = usage.reasoning_tokens
                raise ContextWindowExceeded(
                    f"{self.name}: max_output_tokens or the window was spent before the first word"
                    f" ({'unknown' if spent is None else spent} tokens on reasoning)",
                    **paid,
                )
            if finish in {"content_filter", "refusal"}:
                raise ContentFiltered(f"{self.name}: it refuses to answer", **paid)
            raise GarbledAnswer(f"{self.name}: the answer is empty", **paid)
        return Completion(
            text, model, finish, without_zero_counts(usage), request_id, response_id, calls
        )

    def _finish_reason(
        self, reason: object, native: object, paid: Mapping[str, Any]
    ) -> FinishReason:
        """Return what a finish reason means; one that is no whole answer raises."""
        if not is_present(reason):
            what = f"{self.name}: the answer has no finish reason: it is cut off"
            raise TruncatedAnswer(what, **paid)
        word = reason.strip().lower() if isinstance(reason, str) else ""
        kind = word.partition(":")[0].rstrip()  # Gemini's endpoints write "content_filter: SAFETY"
        finish = self.FINISH.get(word) or self.FINISH.get(kind, UnfinishedAnswer)
        if finish in ("stop", "tool_calls") and word not in self.FINISH:
            finish = UnfinishedAnswer  # what stands behind the colon may say anything
        if isinstance(finish, str):
            return finish
        words = describe_reason(reason) + (
            f" ({describe_reason(native)})" if is_present(native) else ""
        )
        is_known = word in self.FINISH or kind in self.FINISH
        why = "the answer is not whole" if is_known else "that word is unknown, so it may be cut"
        message = f"{self.name} ended the answer with {words}: {why}"
        raise finish(message, {FINISH_REASON: describe_reason(reason)}, **paid)

    def _is_whole_reason(self, reason: object) -> bool:
        """Tell a finish reason that says the answer is whole."""
        word = reason.strip().lower() if isinstance(reason, str) else ""
        return self.FINISH.get(word) in ("stop", "tool_calls")

    def _tool_calls(
        self, called: Iterable[RawToolCall], *, cut: bool, paid: Mapping[str, Any]
    ) -> tuple[ToolCall, ...]:
        calls, call_ids = [], UniqueCallIds()
        for call in called:
            arguments, name = _arguments_object(call.arguments), (call.name or "").strip()
            if arguments is not None and name:
                id_, signature = call_ids.unique(call.id), call.signature
                calls.append(
                    ToolCall(
                        id_,
                        valid_tool_name(name),
                        portable_json(arguments),
                        signature if isinstance(signature, str) and signature.isascii() else None,
                    )
                )
            elif not cut:  # a call that the length cut off in its middle is none
                what = f"{self.name}: the arguments of a tool call are no JSON object"
                raise GarbledAnswer(what, **paid)
        return tuple(calls)


def _without_frames(failure: ProviderError) -> ProviderError:
    """
    Take from an error the frames that it came through, and the SDK's error behind it.

    Their variables hold the key and the prompt, which a traceback or an error tracker would show.
    """
    failure.__cause__ = failure.__context__ = None
    return failure.with_traceback(None)


def post_json(
    client: "anthropic.Anthropic | openai.OpenAI", path: str, body: dict[str, Any], timeout_s: float
) -> RawAnswer:
    """
    Ask by the SDK's way to an endpoint that it has no method for.

    Headers, time limits and errors are the same. Its methods look for keys to rename in what is
    asked, and make models of what is answered: 30 to 50 % of its CPU (`benchmarks.adapters`).
    """
    http = client.post(path, cast_to=httpx2.Response, body=body, options={"timeout": timeout_s})
    return RawAnswer(
        http.json(), http.headers.get("request-id") or http.headers.get("x-request-id")
    )


def is_present(reason: object) -> bool:
    """Tell a finish reason from none; SGLang sends an empty one till the end, Qwen "null"."""
    return reason is not None and reason not in ("", "null")


def describe_reason(reason: object) -> str:
    """Return a finish reason for a message: the vendor's word, if it is no more than one."""
    if not isinstance(reason, str):
        return f"a value of type {type(reason).__name__}"
    word = reason.strip()
    if _REASON.fullmatch(word):
        return repr(word)
    return f"a word of {len(word)} characters that may be more than a word"


def non_empty(value: object) -> str | None:
    """Return a text that is not empty; None for anything else."""
    return value if isinstance(value, str) and value else None


@contextmanager
def open_stream(
    client: "anthropic.Anthropic | openai.OpenAI", path: str, body: dict[str, Any], timeout_s: float
) -> Iterator[httpx2.Response]:
    """
    Ask as `asked` does, for a stream, and close it afterwards; its events are not read yet.

    The SDKs' readers of events do not follow the standard (see `sse`), and drop what does not fit
    their models.
    """
    module = sys.modules[type(client).__module__.partition(".")[0]]
    with client.post(
        path, cast_to=object, body={**body, "stream": True}, options={"timeout": timeout_s},
        stream=True, stream_cls=module.Stream[object],
    ) as stream:  # fmt: skip
        yield stream.response


def _arguments_object(arguments: object) -> Mapping[str, Any] | None:
    """Read a tool call's arguments; a tool that takes none may be called with no text at all."""
    if arguments is None:
        return {}
    try:
        read = json.loads(arguments or "{}") if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        return None
    # What nests deeper than a prompt may could not be handed back.
    return read if isinstance(read, dict) and depth_of(read) <= MAX_DEPTH else None


def prepared(request: Request) -> Request:
    """Return the request with the ids of its tool calls as every vendor takes them."""
    return replace(request, messages=with_unique_call_ids(request.messages))


def instructions(request: Request) -> str | None:
    """Join the request's system prompt and the system messages of its conversation."""
    texts = [request.system, *(m.text for m in request.messages if m.role == "system")]
    return "\n\n".join(part for part in texts if part and part.strip()) or None


def parameters(tool: Tool) -> dict[str, Any]:
    """Return a tool's JSON Schema, whole also where it has no parameters."""
    return {"type": "object", "properties": {}, **rooted(tool.parameters)}


def data_url(media: Media) -> str:
    """Write bytes as OpenAI takes them."""
    return f"data:{media.media_type};base64,{media.data}"


def file_name(media: Media) -> str:
    """Return a document's name, or one that tells its type as OpenAI wants it."""
    return media.name or f"document{guess_extension(media.media_type or '') or ''}"
