"""OpenAI's Chat Completions, the format of all compatible servers."""

from typing import Any, ClassVar

from simulator.connection import Request
from simulator.wires.answer import Answer, Call
from simulator.wires.asked import Asked, Params, Turn
from simulator.wires.base import Error, Rejected, sse
from simulator.wires.openai import (
    OpenAI,
    check_arguments,
    check_image,
    check_schema,
    prefix,
    read_choice,
    read_tool,
    speaks,
)
from simulator.wires.reading import (
    check_data_url,
    check_next,
    inner,
    messages,
    objects,
    size_of,
    text_of,
)

NO_CALL = (
    "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with "
    "'tool_calls'."
)
NO_RESULT = (
    "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
    "'tool_call_id'. The following tool_call_ids did not have response messages: {ids}"
)
PARTS = "'text', 'image_url', 'input_audio', 'refusal' and 'file'"
STOPS = 4


class Chat(OpenAI):
    """`POST …/chat/completions`."""

    name = "openai-chat"
    blind: ClassVar = "Invalid content type. image_url and file are not supported by this model."
    opening = 1

    def read(self, request: Request, body: dict[str, Any]) -> Asked:
        """Read a chat completions request."""
        if not body.get("model"):
            raise Rejected("invalid", "you must provide a model parameter")
        said = messages(body.get("messages"), "messages")
        systems = [text_of(m.get("content")) for m in said if speaks(m.get("role")) == "system"]
        turns = _turns(said)
        check_next(turns, NO_CALL, NO_RESULT)
        offered = objects(body.get("tools"), "tools")
        tools = tuple(read_tool(inner(t.get("function")), "tools.function") for t in offered)
        schema = _schema(body)
        text = sum(len(turn.text) for turn in turns) + sum(map(len, systems))
        key = body.get("prompt_cache_key")
        return Asked(
            str(body["model"]), text + size_of(offered), bool(body.get("stream")), turns, tools,
            read_choice(body.get("tool_choice"), tools),
            schema.get("schema"), schema.get("strict"), _params(body),
            str(key) if key else False, prefix(key, offered, systems),
            usage_event=bool(inner(body.get("stream_options")).get("include_usage")),
        )  # fmt: skip

    def plain(self, answer: Answer) -> dict[str, Any]:
        """Return a chat.completion."""
        message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
        if answer.finish == "refusal":
            message |= {"content": None, "refusal": answer.text}
        if answer.calls:
            message["tool_calls"] = [_tool_call(call, call.json) for call in answer.calls]
            message["content"] = answer.text or None
        if answer.thought:
            message["reasoning_content"] = answer.thought
        choice = {"index": 0, "message": message, "finish_reason": _finish_reason(answer)}
        return {**_chat(answer, "chat.completion"), "choices": [choice], "usage": _usage(answer)}

    def events(self, answer: Answer) -> list[bytes]:
        """Return the chunks, the usage if requested, and [DONE]."""
        part = "refusal" if answer.finish == "refusal" else "content"
        deltas: list[dict[str, Any]] = [{"role": "assistant", part: ""}]
        deltas += [{"reasoning_content": piece} for piece in answer.thoughts()]
        deltas += [{part: piece} for piece in answer.pieces()]
        for index, call in enumerate(answer.calls):
            deltas.append({"tool_calls": [{"index": index, **_tool_call(call, "")}]})
            deltas += [
                {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}
                for piece in call.pieces()
            ]
        choices: list[list[dict[str, Any]]] = [
            [{"index": 0, "delta": delta, "finish_reason": None}] for delta in deltas
        ]
        choices.append([{"index": 0, "delta": {}, "finish_reason": _finish_reason(answer)}])
        head = _chat(answer, "chat.completion.chunk")
        events = [sse({**head, "choices": choice}) for choice in choices]
        if answer.asked.usage_event:
            events.append(sse({**head, "choices": [], "usage": _usage(answer)}))
        return [*events, b"data: [DONE]\n\n"]

    def error_events(self, error: Error, answer: Answer) -> list[bytes]:
        """Return a chunk that is an error."""
        return [sse(self.error_body(error, "", None))]


def _turns(said: list[dict[str, Any]]) -> tuple[Turn, ...]:
    """Read all messages but the system's; results in a row are one turn."""
    turns: list[Turn] = []
    for at, message in enumerate(said):
        turn = _turn(message, f"messages[{at}]")
        if turn.results and turns and turns[-1].results:
            turns[-1] = Turn("tool", turn.text, results=turns[-1].results + turn.results)
        elif turn.role != "system":
            turns.append(turn)
    return tuple(turns)


def _turn(message: dict[str, Any], where: str) -> Turn:
    role, content = speaks(message.get("role")), message.get("content")
    if role == "tool":
        return Turn("tool", text_of(content), results=(str(message.get("tool_call_id")),))
    calls = objects(message.get("tool_calls"), f"{where}.tool_calls")
    for call in calls:
        check_arguments(inner(call.get("function")).get("arguments"), f"{where}.tool_calls")
    if content is None and not calls:
        raise Rejected("invalid", f"Invalid value for '{where}.content': got null.")
    kinds = [_check_part(part, f"{where}.content") for part in _parts(content)]
    ids = tuple(str(call.get("id")) for call in calls)
    return Turn(role, text_of(content), kinds.count("image_url"), kinds.count("file"), ids)


def _parts(content: object) -> list[dict[str, Any]]:
    return objects(content, "content") if isinstance(content, list) else []


def _check_part(part: dict[str, Any], where: str) -> str:
    kind = str(part.get("type"))
    if kind == "image_url":
        check_image(inner(part.get("image_url")).get("url"), f"{where}.image_url.url")
    elif kind == "file":
        file = inner(part.get("file"))
        if not file.get("file_id"):
            check_data_url(file.get("file_data"), f"{where}.file.file_data")
    elif kind not in ("text", "refusal"):
        raise Rejected("invalid", f"Invalid value: '{kind}'. Supported values are: {PARTS}.")
    return kind


def _schema(body: dict[str, Any]) -> dict[str, Any]:
    form = inner(body.get("response_format"))
    if form.get("type") != "json_schema":
        return {}
    said = inner(form.get("json_schema"))
    check_schema(said)
    return said


def _params(body: dict[str, Any]) -> Params:
    stop = body.get("stop")
    stops = [stop] if isinstance(stop, str) else stop
    if stops and len(stops) > STOPS:
        raise Rejected("invalid", f"Invalid 'stop': array too long. Expected at most {STOPS}.")
    longest = body.get("max_completion_tokens", body.get("max_tokens"))
    return Params(
        body.get("reasoning_effort"), stops, body.get("seed"), body.get("temperature"), longest
    )


def _tool_call(call: Call, arguments: str) -> dict[str, Any]:
    function = {"name": call.name, "arguments": arguments}
    return {"id": f"call_{call.id}", "type": "function", "function": function}


def _finish_reason(answer: Answer) -> str:
    return "stop" if answer.finish == "refusal" else answer.finish


def _chat(answer: Answer, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{answer.seq:029d}",
        "object": kind,
        "created": answer.created_s,
        "model": answer.asked.model,
    }


def _usage(answer: Answer) -> dict[str, Any]:
    usage = answer.usage
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_input_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
