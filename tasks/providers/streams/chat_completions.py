"""
A stream of Chat Completions, put together to what a plain call would have answered.

What counts as its end: `[DONE]`; or the end of the body, if a finish reason came (some servers send
no `[DONE]`); or a chunk of counts alone behind a finish reason, the last that OpenAI's reference
knows. A finish reason by itself ends nothing: gateways send one in every chunk.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from breakwater.errors import ProviderError
from tasks.providers.alternatives import Alternatives
from tasks.providers.errors.bodies import is_error
from tasks.providers.streams.relay import StreamObject, StreamRelay
from tasks.providers.streams.tool_calls import ToolCalls, tool_call_pieces

ReadError = Callable[[Mapping[str, Any]], ProviderError]
"""Reads a body that is an error."""

_NOT_REASONING = {"role", "content", "tool_calls", "function_call"}


class ChatStream:
    """
    One answer, as its chunks make it.

    Args:
        relay: Takes its pieces.
        failed: Reads an error among the chunks.
        is_good: Tells a finish reason that says the answer is whole.
    """

    def __init__(
        self, relay: StreamRelay, read_error: ReadError, is_whole: Callable[[object], bool]
    ) -> None:
        self._relay = relay
        self._read_error = read_error
        self._is_whole = is_whole
        self._calls = ToolCalls(relay.send_tool_call, relay.tool_names)
        self._envelope: dict[str, Any] = {}
        self._text = self._refusal = ""
        self._alternatives = Alternatives()
        self._choice: dict[str, Any] = {}
        self._has_choices = False
        self._last: dict[str, Any] = {}

    def read(self, objects: Iterable[StreamObject]) -> dict[str, Any]:
        """Read the chunks until the stream ends, and return the answer."""
        for name, chunk in objects:
            if error := error_in(name, chunk):
                raise self._read_error(error)
            self._take(chunk)
        if not self._has_choices:
            return self._last  # no answer; an error, perhaps
        message = {"content": self._text, "refusal": self._refusal}
        choice = {**self._choice, "message": {**message, "tool_calls": self._calls.close()}}
        return {**self._envelope, "choices": [choice]}

    def _take(self, chunk: Mapping[str, Any]) -> None:
        self._has_choices = self._has_choices or bool(chunk.get("choices"))
        self._last = dict(chunk)
        for name in ("id", "model"):
            self._envelope.setdefault(name, chunk.get(name))
            self._envelope[name] = self._envelope[name] or chunk.get(name)  # Azure's first is empty
        usage = usage_of(chunk)
        if usage:
            self._envelope["usage"] = usage
        for choice in self._alternatives.select(chunk.get("choices")):
            self._add(choice)
        if usage and not chunk.get("choices") and self._choice:
            self._relay.mark_complete()

    def _add(self, choice: Mapping[str, Any]) -> None:
        if is_error(error := choice.get("error")):
            raise self._read_error({"error": error})
        delta, message = choice.get("delta"), choice.get("message")
        if isinstance(delta, dict) and delta:
            self._extend(delta)
        elif isinstance(message, dict):  # a whole one, or what is new in it
            text = text_of(message.get("content"))
            without_calls = {"tool_calls": None, "function_call": None} if self._calls else {}
            self._extend({**message, "content": text.removeprefix(self._text), **without_calls})
        reason = finish_reason_of(choice)
        # An early reason may be followed by the true one; that an answer was cut is not taken back.
        before = self._choice.get("finish_reason")
        if reason is not None and (
            before is None or self._is_whole(before) or not self._is_whole(reason)
        ):
            self._choice = {
                "finish_reason": reason, "native_finish_reason": choice.get("native_finish_reason"),
            }  # fmt: skip
            self._relay.keep_alive()

    def _extend(self, delta: Mapping[str, Any]) -> None:
        text = text_of(delta.get("content"))
        self._text += text
        self._relay.send_text(text)
        refusal = delta.get("refusal")
        self._refusal += refusal if isinstance(refusal, str) else ""
        for piece in tool_call_pieces(delta):
            self._calls.take(piece)
            self._relay.keep_alive()
        # vLLM, DeepSeek and OpenRouter put their reasoning beside the text, each under its name.
        if any(value for name, value in delta.items() if name not in _NOT_REASONING):
            self._relay.keep_alive()


def error_in(name: str, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what is an error in place of an answer or of an event: nested, a text, or flat."""
    if is_error(body.get("error")):
        return body
    if name == "error" or body.get("object") == "error" or body.get("type") == "error":
        return {"error": body}
    return None


def usage_of(chunk: Mapping[str, Any]) -> object:
    """Return the counts; Groq's are in an object of its own."""
    groq = chunk.get("x_groq")
    return chunk.get("usage") or (groq.get("usage") if isinstance(groq, dict) else None)


def finish_reason_of(choice: Mapping[str, Any]) -> object:
    """
    Return why an answer ended, None while it goes on.

    Gemini's compatible endpoint has written `finishReason`, Azure's vision models an object.
    """
    reason, details = choice.get("finish_reason"), choice.get("finish_details")
    if reason is None:
        reason = choice.get("finishReason")
    if reason is None and isinstance(details, dict):
        reason = details.get("type")
    return None if reason in ("", "null") else reason


def text_of(content: object) -> str:
    """
    Return the text of a content: a string, or a list of parts, from which thoughts are left out.

    Raises:
        TypeError: It is neither.
    """
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        raise TypeError("a content is neither text nor a list of parts")
    return "".join(_text_of_part(part) for part in content)


def _text_of_part(part: object) -> str:
    if isinstance(part, str):
        return part
    text = part.get("text") if isinstance(part, dict) else None
    is_thought = isinstance(part, dict) and part.get("type") in {"thinking", "reasoning"}
    return text if isinstance(text, str) and not is_thought else ""
