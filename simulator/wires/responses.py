"""OpenAI's Responses."""

from typing import Any, ClassVar

from simulator.connection import Request
from simulator.wires.answer import Answer, Call
from simulator.wires.asked import Asked, Params, Turn
from simulator.wires.base import Error, Rejected, sse
from simulator.wires.openai import (
    ERRORS,
    INVALID,
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
    check_url,
    inner,
    messages,
    objects,
    size_of,
    text_of,
)

UNKNOWN = ("stop", "seed", "messages", "max_tokens", "response_format")
"""Parameters that Chat Completions accepts and Responses does not."""


class Responses(OpenAI):
    """`POST …/responses`."""

    name = "openai"
    blind: ClassVar = "Invalid input: image and file inputs are not supported by this model."
    opening = 2
    errors: ClassVar = {
        **ERRORS,
        "context_window": Error(
            400, INVALID,
            "Your input exceeds the context window of this model. Please adjust your input and "
            "try again.",
            "context_length_exceeded",
        ),
        "content_filtered": Error(
            400, INVALID,
            "Invalid prompt: your prompt was flagged as potentially violating our usage policy. "
            "Please try again with a different prompt: "
            "https://platform.openai.com/docs/guides/reasoning#advice-on-prompting",
            "invalid_prompt",
        ),
    }  # fmt: skip

    def read(self, request: Request, body: dict[str, Any]) -> Asked:
        """Read a Responses request; its input is a string or a list of items."""
        if not body.get("model"):
            raise Rejected("invalid", "Missing required parameter: 'model'.")
        for name in UNKNOWN:
            if name in body:
                raise Rejected("invalid", f"Unknown parameter: '{name}'.")
        said = body.get("input")
        items = messages(
            [{"role": "user", "content": said}] if isinstance(said, str) else said, "input"
        )
        turns = _turns(items)
        systems = [text_of(i.get("content")) for i in items if speaks(i.get("role")) == "system"]
        systems.append(text_of(body.get("instructions")))
        offered = objects(body.get("tools"), "tools")
        tools = tuple(read_tool(each, "tools") for each in offered)
        schema = _schema(body)
        text = sum(len(turn.text) for turn in turns) + sum(map(len, systems))
        key = body.get("prompt_cache_key")
        return Asked(
            str(body["model"]), text + size_of(offered), bool(body.get("stream")), turns, tools,
            read_choice(body.get("tool_choice"), tools),
            schema.get("schema"), schema.get("strict"), _params(body),
            str(key) if key else False, prefix(key, offered, systems),
        )  # fmt: skip

    def plain(self, answer: Answer) -> dict[str, Any]:
        """Return a response."""
        status, why = {
            "length": ("incomplete", {"reason": "max_output_tokens"}),
            "content_filter": ("incomplete", {"reason": "content_filter"}),
        }.get(answer.finish, ("completed", None))
        output = [_reasoning(answer)] if answer.thought else []
        output += [_message(answer, status)] if answer.text else []
        output += [_call(call) for call in answer.calls]
        return {
            "id": f"resp_{answer.seq:048d}", "object": "response", "created_at": answer.created_s,
            "status": status, "model": answer.asked.model, "error": None, "incomplete_details": why,
            "instructions": None, "output": output, "parallel_tool_calls": True,
            "tool_choice": "auto", "tools": [], "store": False, "usage": _usage(answer),
        }  # fmt: skip

    def events(self, answer: Answer) -> list[bytes]:
        """Return response.created … response.completed or incomplete."""
        final = self.plain(answer)
        steps = self._opening(final)
        calls = iter(answer.calls)
        empty: dict[str, Any]
        for index, item in enumerate(final["output"]):
            at = {"item_id": item["id"], "output_index": index}
            if item["type"] == "function_call":
                empty, middle = {"arguments": ""}, _call_steps(item, at, next(calls))
            elif item["type"] == "reasoning":
                empty, middle = {"summary": []}, _reasoning_steps(item, at, answer)
            else:
                empty, middle = {"content": []}, _message_steps(item, at, answer)
            begun = {**item, "status": "in_progress", **empty}
            steps += [
                {"type": "response.output_item.added", "output_index": index, "item": begun},
                *middle,
                {"type": "response.output_item.done", "output_index": index, "item": item},
            ]
        steps.append({"type": f"response.{final['status']}", "response": final})
        return _numbered(steps)

    def error_events(self, error: Error, answer: Answer) -> list[bytes]:
        """Return an `error` event, then response.failed."""
        body = self.error_body(error, "", None)
        reason = {"code": error.code or "server_error", "message": error.message}
        failed = {**self.plain(answer), "status": "failed", "error": reason, "output": []}
        return _numbered(
            [{"type": "error", **body}, {"type": "response.failed", "response": failed}], first=90
        )

    def _opening(self, final: dict[str, Any]) -> list[dict[str, Any]]:
        begun = {**final, "status": "in_progress", "output": [], "usage": None}
        begun["incomplete_details"] = None
        return [{"type": f"response.{x}", "response": begun} for x in ("created", "in_progress")]


def _turns(items: list[dict[str, Any]]) -> tuple[Turn, ...]:
    """Read all items but the system's; a call needs its output, and an output its call."""
    turns = [turn for at, item in enumerate(items) if (turn := _turn(item, f"input[{at}]"))]
    called: set[str] = set()
    answered = {each for turn in turns for each in turn.results}
    for turn in turns:
        if strange := set(turn.results) - called:
            raise Rejected(
                "invalid", "No tool call found for function call output with call_id "
                f"{min(strange)}.",
            )  # fmt: skip
        called |= set(turn.calls)
    if lost := called - answered:
        raise Rejected("invalid", f"No tool output found for function call {min(lost)}.")
    return tuple(turns)


def _turn(item: dict[str, Any], where: str) -> Turn | None:
    match item.get("type", "message"):
        case "function_call":
            check_arguments(item.get("arguments"), f"{where}.arguments")
            return Turn("assistant", calls=(str(item.get("call_id")),))
        case "function_call_output":
            output = item.get("output")
            if not isinstance(output, str | list):
                raise Rejected("invalid", f"Missing required parameter: '{where}.output'.")
            images, documents = _media(output, where)
            text, ids = text_of(output), (str(item.get("call_id")),)
            return Turn("tool", text, images, documents, results=ids)
        case "message":
            role, content = speaks(item.get("role")), item.get("content")
            images, documents = _media(content, where)
            said = Turn(role, text_of(content), images, documents)
            return None if role == "system" else said
        case "reasoning":
            return None
        case other:
            raise Rejected("invalid", f"Invalid value: '{other}'. ({where}.type)")


def _media(content: object, where: str) -> tuple[int, int]:
    parts = objects(content, where) if isinstance(content, list) else []
    kinds = [_check_part(part, f"{where}.content") for part in parts]
    return kinds.count("input_image"), kinds.count("input_file")


def _check_part(part: dict[str, Any], where: str) -> str:
    kind = str(part.get("type"))
    if kind == "input_image" and not part.get("file_id"):
        check_image(part.get("image_url"), f"{where}.image_url")
    elif kind == "input_file" and not part.get("file_id"):
        if part.get("file_url"):
            check_url(part["file_url"], f"{where}.file_url")
        else:
            check_data_url(part.get("file_data"), f"{where}.file_data")
    elif not kind.startswith(("input_", "output_text", "refusal")):
        raise Rejected("invalid", f"Invalid value: '{kind}'. ({where}.type)")
    return kind


def _schema(body: dict[str, Any]) -> dict[str, Any]:
    form = inner(inner(body.get("text")).get("format"))
    if form.get("type") != "json_schema":
        return {}
    check_schema(form)
    return form


def _params(body: dict[str, Any]) -> Params:
    return Params(
        effort=inner(body.get("reasoning")).get("effort"),
        temperature=body.get("temperature"),
        max_output_tokens=body.get("max_output_tokens"),
    )


def _usage(answer: Answer) -> dict[str, Any]:
    usage = answer.usage
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_input_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _message(answer: Answer, status: str) -> dict[str, Any]:
    part: dict[str, Any] = {"type": "output_text", "text": answer.text, "annotations": []}
    if answer.finish == "refusal":
        part = {"type": "refusal", "refusal": answer.text}
    return {
        "type": "message", "id": f"msg_{answer.seq:048d}", "role": "assistant", "status": status,
        "content": [part],
    }  # fmt: skip


def _reasoning(answer: Answer) -> dict[str, Any]:
    summary = [{"type": "summary_text", "text": answer.thought}]
    return {"type": "reasoning", "id": f"rs_{answer.seq:048d}", "summary": summary}


def _call(call: Call) -> dict[str, Any]:
    ids = {"id": f"fc_{call.id}", "call_id": f"call_{call.id}"}
    said = {"name": call.name, "arguments": call.json, "status": "completed"}
    return {"type": "function_call", **ids, **said}


def _message_steps(
    item: dict[str, Any], at: dict[str, Any], answer: Answer
) -> list[dict[str, Any]]:
    (part,) = item["content"]
    kind = part["type"]
    field = "refusal" if kind == "refusal" else "text"
    logprobs: dict[str, Any] = {} if kind == "refusal" else {"logprobs": []}
    at = {**at, "content_index": 0}
    deltas = [
        {"type": f"response.{kind}.delta", **at, "delta": piece, **logprobs}
        for piece in answer.pieces()
    ]
    return [
        {"type": "response.content_part.added", **at, "part": {**part, field: ""}},
        *deltas,
        {"type": f"response.{kind}.done", **at, field: part[field], **logprobs},
        {"type": "response.content_part.done", **at, "part": part},
    ]


def _reasoning_steps(
    item: dict[str, Any], at: dict[str, Any], answer: Answer
) -> list[dict[str, Any]]:
    (part,) = item["summary"]
    at, kind = {**at, "summary_index": 0}, "response.reasoning_summary"
    return [
        {"type": f"{kind}_part.added", **at, "part": {**part, "text": ""}},
        *({"type": f"{kind}_text.delta", **at, "delta": piece} for piece in answer.thoughts()),
        {"type": f"{kind}_text.done", **at, "text": part["text"]},
        {"type": f"{kind}_part.done", **at, "part": part},
    ]


def _call_steps(item: dict[str, Any], at: dict[str, Any], call: Call) -> list[dict[str, Any]]:
    kind = "response.function_call_arguments"
    return [
        *({"type": f"{kind}.delta", **at, "delta": piece} for piece in call.pieces()),
        {"type": f"{kind}.done", **at, "name": item["name"], "arguments": item["arguments"]},
    ]


def _numbered(steps: list[dict[str, Any]], first: int = 0) -> list[bytes]:
    return [
        sse({**step, "sequence_number": number}, step["type"])
        for number, step in enumerate(steps, first)
    ]
