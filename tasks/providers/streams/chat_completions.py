"""
Merge a stream of Chat Completions into the answer that a plain call would have returned.

The stream ends with `[DONE]`; or with the body, if a finish reason came (some servers send no
`[DONE]`); or with a chunk of counts alone after a finish reason, the last chunk in OpenAI's
reference. A finish reason by itself ends nothing: gateways send one in every chunk.
"""

from collections.abc import Callable, Iterable

from tasks.providers.alternatives import Alternatives
from tasks.providers.errors.bodies import is_error
from tasks.providers.json_values import JsonBody, JsonFields, as_object, as_text
from tasks.providers.streams.relay import ReadError, StreamObject, StreamRelay
from tasks.providers.streams.tool_calls import ToolCalls, tool_call_pieces

_NOT_REASONING = {"role", "content", "tool_calls", "function_call"}
_THOUGHTS = {"thinking", "reasoning"}


class ChatStream:
    """
    One answer, merged from its chunks.

    Args:
        relay: Receives the pieces.
        read_error: Reads an error among the chunks.
        is_whole: Returns whether a finish reason means that the answer is whole.
    """

    def __init__(
        self, relay: StreamRelay, read_error: ReadError, is_whole: Callable[[object], bool]
    ) -> None:
        self._relay = relay
        self._read_error = read_error
        self._is_whole = is_whole
        self._calls = ToolCalls(relay.send_tool_call, relay.tool_names)
        self._envelope: JsonBody = {}
        self._text = self._refusal = ""
        self._alternatives = Alternatives()
        self._choice: JsonBody = {}
        self._has_choices = False
        self._last: JsonBody = {}

    def read(self, objects: Iterable[StreamObject]) -> JsonBody:
        """Read the chunks until the stream ends; return the answer."""
        for name, chunk in objects:
            if error := error_in(name, chunk):
                raise self._read_error(error)
            self._take(chunk)
        if not self._has_choices:
            return self._last  # not an answer; perhaps an error
        message = {"content": self._text, "refusal": self._refusal}
        choice = {**self._choice, "message": {**message, "tool_calls": self._calls.close()}}
        return {**self._envelope, "choices": [choice]}

    def _take(self, chunk: JsonBody) -> None:
        self._has_choices = self._has_choices or bool(chunk.get("choices"))
        self._last = chunk
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

    def _add(self, choice: JsonBody) -> None:
        if is_error(error := choice.get("error")):
            raise self._read_error({"error": error})
        delta, message = choice.get("delta"), choice.get("message")
        if isinstance(delta, dict) and delta:
            self._extend(delta)
        elif isinstance(message, dict):  # a whole one, or what is new in it
            self._extend_with_message(message)
        reason = finish_reason_of(choice)
        if reason is None:
            return
        # The true reason may follow an early one; a cut answer stays cut.
        before = self._choice.get("finish_reason")
        if before is None or self._is_whole(before) or not self._is_whole(reason):
            native = choice.get("native_finish_reason")
            self._choice = {"finish_reason": reason, "native_finish_reason": native}
            self._relay.keep_alive()

    def _extend_with_message(self, message: JsonBody) -> None:
        text = text_of(message.get("content")).removeprefix(self._text)
        delta = {**message, "content": text}
        if self._calls:  # they came in deltas
            delta |= {"tool_calls": None, "function_call": None}
        self._extend(delta)

    def _extend(self, delta: JsonBody) -> None:
        text = text_of(delta.get("content"))
        self._text += text
        self._relay.send_text(text)
        self._refusal += as_text(delta.get("refusal"))
        for piece in tool_call_pieces(delta):
            self._calls.take(piece)
            self._relay.keep_alive()
        # vLLM, DeepSeek and OpenRouter put their reasoning beside the text, each under its name.
        if any(value for name, value in delta.items() if name not in _NOT_REASONING):
            self._relay.keep_alive()


def error_in(name: str, body: JsonFields) -> JsonFields | None:
    """Return the error in place of an answer or of an event: nested, a text, or flat."""
    if is_error(body.get("error")):
        return body
    if name == "error" or body.get("object") == "error" or body.get("type") == "error":
        return {"error": body}
    return None


def usage_of(chunk: JsonFields) -> object:
    """Return the counts; Groq sends them inside an object `x_groq`."""
    return chunk.get("usage") or as_object(chunk.get("x_groq")).get("usage")


def finish_reason_of(choice: JsonFields) -> object:
    """
    Return why an answer ended; None while it goes on.

    Gemini's compatible endpoint has sent `finishReason`, Azure's vision models an object.
    """
    reason: object = choice.get("finish_reason")
    if reason is None:
        reason = choice.get("finishReason")
    if reason is None:
        reason = as_object(choice.get("finish_details")).get("type")
    if reason in ("", "null"):
        return None
    return reason


def text_of(content: object) -> str:
    """
    Return the text of a content, a string or a list of parts, without thoughts.

    Raises:
        TypeError: It is neither.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        raise TypeError("a content is neither text nor a list of parts")
    return "".join(_text_of_part(part) for part in content)


def _text_of_part(part: object) -> str:
    if isinstance(part, str):
        return part
    fields = as_object(part)
    if fields.get("type") in _THOUGHTS:
        return ""
    return as_text(fields.get("text"))
