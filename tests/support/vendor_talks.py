"""
A whole conversation through the four official SDKs, behind one face: tools, schemas, media.

`TALKS[wire](url)` returns a function that sends an `Ask` and returns what was `Said`; errors come
out as the SDK raises them. What differs between the vendors stands here alone, so that a test says
once what all of them do.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import anthropic
import httpx2
import openai
from google import genai
from google.genai import types

from tests.support.vendor_sdks import KEY, MODEL

TIMEOUT_S = 180.0


@dataclass(frozen=True)
class Call:
    """A tool call as the SDK gave it."""

    id: str
    name: str
    arguments: Any
    signature: bytes | None = None


@dataclass(frozen=True)
class Media:
    """An image or a document: by URL, or in base64 with its type."""

    kind: str
    url: str | None = None
    data: str | None = None
    media_type: str = "image/png"


@dataclass(frozen=True)
class Turn:
    """What one said: text and media, calls, or the results of calls."""

    role: str
    parts: tuple[str | Media, ...] = ()
    calls: tuple[Call, ...] = ()


def user(*parts: str | Media) -> Turn:
    return Turn("user", parts)


def called(*calls: Call) -> Turn:
    return Turn("assistant", calls=calls)


def returned(*calls: Call) -> Turn:
    return Turn("tool", calls=calls)


@dataclass(frozen=True)
class Ask:
    """What to ask; `extra` goes to the SDK as it is, for Google into the config."""

    turns: tuple[Turn, ...]
    tools: Mapping[str, Any] = field(default_factory=dict)
    choice: str | None = None
    schema: Any = None
    strict: bool = True
    system: str | None = None
    stream: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Said:
    """What came back; `pieces` are those of the arguments in a stream."""

    text: str = ""
    calls: tuple[Call, ...] = ()
    thought: str = ""
    finish: str | None = None
    input: int = 0
    cached: int = 0
    written: int = 0
    pieces: int = 0


Talk = Callable[[Ask], Said]


def anthropic_talk(url: str) -> Talk:
    client = anthropic.Anthropic(api_key=KEY, base_url=url, max_retries=0, timeout=TIMEOUT_S)

    def talk(ask: Ask) -> Said:
        given: dict[str, Any] = {"model": MODEL, "max_tokens": 100, **ask.extra}
        given["messages"] = [_anthropic_message(turn) for turn in ask.turns]
        if ask.tools:
            given["tools"] = [{"name": n, "input_schema": s} for n, s in ask.tools.items()]
        if ask.choice:
            named = {"type": "tool", "name": ask.choice}
            words = {"auto": "auto", "none": "none", "required": "any"}
            word = words.get(ask.choice)
            given["tool_choice"] = {"type": word} if word else named
        if ask.schema is not None:
            form = {"type": "json_schema", "schema": ask.schema}
            given["output_config"] = {**given.get("output_config", {}), "format": form}
        if ask.system:
            given.setdefault("system", ask.system)
        pieces = 0
        if ask.stream:
            with client.messages.stream(**given) as stream:
                for event in stream:
                    pieces += event.type == "input_json" and bool(event.partial_json)
                done: Any = stream.get_final_message()
        else:
            done = client.messages.create(**given)
        usage, blocks = done.usage, done.content
        return Said(
            "".join(b.text for b in blocks if b.type == "text"),
            tuple(Call(b.id, b.name, b.input) for b in blocks if b.type == "tool_use"),
            "".join(b.thinking for b in blocks if b.type == "thinking"),
            done.stop_reason,
            usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens,
            usage.cache_read_input_tokens, usage.cache_creation_input_tokens, pieces,
        )  # fmt: skip

    return talk


def _anthropic_media(part: Media) -> dict[str, Any]:
    source = {"type": "url", "url": part.url}
    if part.data is not None:
        source = {"type": "base64", "media_type": part.media_type, "data": part.data}
    return {"type": part.kind, "source": source}


def _anthropic_message(turn: Turn) -> dict[str, Any]:
    if turn.role == "tool":
        results = [
            {"type": "tool_result", "tool_use_id": c.id, "content": "42"} for c in turn.calls
        ]
        return {"role": "user", "content": results}
    blocks = [
        {"type": "text", "text": part} if isinstance(part, str) else _anthropic_media(part)
        for part in turn.parts
    ]
    for call in turn.calls:
        use = {"id": call.id, "name": call.name, "input": call.arguments}
        blocks.append({"type": "tool_use", **use})
    return {"role": turn.role, "content": blocks}


def responses_talk(url: str) -> Talk:
    client = openai.OpenAI(api_key=KEY, base_url=f"{url}/v1", max_retries=0, timeout=TIMEOUT_S)

    def talk(ask: Ask) -> Said:
        given: dict[str, Any] = {"model": MODEL, "store": False, **ask.extra}
        given["input"] = [item for turn in ask.turns for item in _responses_items(turn)]
        if ask.tools:
            given["tools"] = [
                {"type": "function", "name": n, "parameters": s, "strict": False}
                for n, s in ask.tools.items()
            ]
        if ask.choice:
            word = ask.choice in ("auto", "none", "required")
            given["tool_choice"] = ask.choice if word else {"type": "function", "name": ask.choice}
        if ask.schema is not None:
            form = {"name": "reply", "schema": ask.schema, "strict": ask.strict}
            given["text"] = {"format": {"type": "json_schema", **form}}
        if ask.system:
            given["instructions"] = ask.system
        pieces, thought = 0, ""
        if ask.stream:
            with client.responses.create(**given, stream=True) as stream:
                for event in stream:
                    pieces += event.type == "response.function_call_arguments.delta"
                    if event.type == "response.reasoning_summary_text.delta":
                        thought += event.delta
                    if event.type == "response.completed":
                        done = event.response
        else:
            done = client.responses.create(**given)
            summaries = [
                s for item in done.output if item.type == "reasoning" for s in item.summary
            ]
            thought = "".join(summary.text for summary in summaries)
        details = done.usage.input_tokens_details
        return Said(
            done.output_text,
            tuple(
                Call(item.call_id, item.name, json.loads(item.arguments))
                for item in done.output
                if item.type == "function_call"
            ),
            thought, done.status, done.usage.input_tokens, details.cached_tokens,
            details.cache_write_tokens, pieces,
        )  # fmt: skip

    return talk


def _responses_part(said: str | Media) -> dict[str, Any]:
    if isinstance(said, str):
        return {"type": "input_text", "text": said}
    inline = f"data:{said.media_type};base64,{said.data}"
    if said.kind == "image":
        return {"type": "input_image", "image_url": said.url or inline, "detail": "auto"}
    file = {"file_url": said.url} if said.url else {"filename": "a.pdf", "file_data": inline}
    return {"type": "input_file", **file}


def _responses_items(turn: Turn) -> list[dict[str, Any]]:
    if turn.role == "tool":
        return [
            {"type": "function_call_output", "call_id": call.id, "output": "42"}
            for call in turn.calls
        ]
    said = (
        [{"role": turn.role, "content": [_responses_part(p) for p in turn.parts]}]
        if turn.parts
        else []
    )
    return said + [
        {"type": "function_call", "call_id": call.id, "name": call.name,
         "arguments": json.dumps(call.arguments)}
        for call in turn.calls
    ]  # fmt: skip


def chat_talk(url: str) -> Talk:
    client = openai.OpenAI(api_key=KEY, base_url=f"{url}/v1", max_retries=0, timeout=TIMEOUT_S)

    def talk(ask: Ask) -> Said:
        given: dict[str, Any] = {"model": MODEL, **ask.extra}
        system = [{"role": "system", "content": ask.system}] if ask.system else []
        given["messages"] = system + [m for turn in ask.turns for m in _chat_messages(turn)]
        if ask.tools:
            given["tools"] = [
                {"type": "function", "function": {"name": n, "parameters": s}}
                for n, s in ask.tools.items()
            ]
        if ask.choice:
            word = ask.choice in ("auto", "none", "required")
            named = {"type": "function", "function": {"name": ask.choice}}
            given["tool_choice"] = ask.choice if word else named
        if ask.schema is not None:
            form = {"name": "reply", "schema": ask.schema, "strict": ask.strict}
            given["response_format"] = {"type": "json_schema", "json_schema": form}
        if ask.stream:
            return _chat_streamed(client, given)
        done = client.chat.completions.create(**given)
        (choice,) = done.choices
        calls = choice.message.tool_calls or []
        said = Said(
            choice.message.content or "",
            tuple(Call(c.id, c.function.name, json.loads(c.function.arguments)) for c in calls),
            getattr(choice.message, "reasoning_content", ""),
            choice.finish_reason,
        )
        return _chat_counted(said, done.usage)

    return talk


def _chat_part(said: str | Media) -> dict[str, Any]:
    if isinstance(said, str):
        return {"type": "text", "text": said}
    inline = said.url or f"data:{said.media_type};base64,{said.data}"
    if said.kind == "image":
        return {"type": "image_url", "image_url": {"url": inline}}
    return {"type": "file", "file": {"file_data": inline, "filename": "a.pdf"}}


def _chat_messages(turn: Turn) -> list[dict[str, Any]]:
    if turn.role == "tool":
        return [{"role": "tool", "tool_call_id": call.id, "content": "42"} for call in turn.calls]
    said: dict[str, Any] = {"role": turn.role}
    if turn.parts:
        said["content"] = [_chat_part(p) for p in turn.parts]
    if turn.calls:
        said["tool_calls"] = [
            {"id": call.id, "type": "function",
             "function": {"name": call.name, "arguments": json.dumps(call.arguments)}}
            for call in turn.calls
        ]  # fmt: skip
    return [said]


def _chat_streamed(client: openai.OpenAI, given: dict[str, Any]) -> Said:
    said, calls, arguments = Said(), [], []
    options = {"include_usage": True}
    for chunk in client.chat.completions.create(**given, stream=True, stream_options=options):
        if chunk.usage:
            said = _chat_counted(said, chunk.usage)
        for choice in chunk.choices:
            delta = choice.delta
            said = replace(
                said, text=said.text + (delta.content or ""),
                thought=said.thought + getattr(delta, "reasoning_content", ""),
                finish=choice.finish_reason or said.finish,
            )  # fmt: skip
            for call in delta.tool_calls or []:
                if call.id:
                    calls.append((call.id, call.function.name))
                    arguments.append("")
                said = replace(said, pieces=said.pieces + bool(call.function.arguments))
                arguments[call.index] += call.function.arguments
    made = (Call(*c, json.loads(a)) for c, a in zip(calls, arguments, strict=True))
    return replace(said, calls=tuple(made))


def _chat_counted(said: Said, usage: Any) -> Said:
    details = usage.prompt_tokens_details
    return replace(
        said, input=usage.prompt_tokens, cached=details.cached_tokens,
        written=details.cache_write_tokens,
    )  # fmt: skip


def google_client(url: str) -> genai.Client:
    return genai.Client(
        api_key=KEY,
        http_options=types.HttpOptions(
            base_url=url,
            timeout=int(TIMEOUT_S * 1000),
            retry_options=types.HttpRetryOptions(attempts=1),
            httpx_client=httpx2.Client(timeout=TIMEOUT_S),
        ),
    )


def google_talk(url: str) -> Talk:
    client = google_client(url)

    def talk(ask: Ask) -> Said:
        config: dict[str, Any] = {"automatic_function_calling": {"disable": True}, **ask.extra}
        if ask.tools:
            functions = [{"name": n, "parameters_json_schema": s} for n, s in ask.tools.items()]
            config["tools"] = [{"function_declarations": functions}]
        if ask.choice:
            words = {"auto": "AUTO", "none": "NONE"}
            calling: dict[str, Any] = {"mode": words.get(ask.choice, "ANY")}
            if ask.choice not in ("auto", "none", "required"):
                calling["allowed_function_names"] = [ask.choice]
            config["tool_config"] = {"function_calling_config": calling}
        if ask.schema is not None:
            config["response_mime_type"] = "application/json"
            config["response_json_schema"] = ask.schema
        if ask.system:
            config["system_instruction"] = ask.system
        given: Any = {"contents": [_google_content(t) for t in ask.turns], "config": config}
        if ask.stream:
            chunks = list(client.models.generate_content_stream(model=MODEL, **given))
        else:
            chunks = [client.models.generate_content(model=MODEL, **given)]
        parts = [
            part
            for chunk in chunks
            for candidate in chunk.candidates or []
            for part in (candidate.content.parts if candidate.content else None) or []
        ]
        usage = chunks[-1].usage_metadata
        made = [part for part in parts if part.function_call]
        return Said(
            "".join(p.text or "" for p in parts if not p.thought),
            tuple(
                Call("", p.function_call.name, p.function_call.args, p.thought_signature)
                for p in made
            ),
            "".join(p.text or "" for p in parts if p.thought),
            chunks[-1].candidates[0].finish_reason.value,
            usage.prompt_token_count, usage.cached_content_token_count or 0,
        )  # fmt: skip

    return talk


def _google_part(said: str | Media) -> dict[str, Any]:
    if isinstance(said, str):
        return {"text": said}
    if said.url:
        return {"file_data": {"file_uri": said.url, "mime_type": said.media_type}}
    return {"inline_data": {"data": said.data, "mime_type": said.media_type}}


def _google_content(turn: Turn) -> dict[str, Any]:
    if turn.role == "tool":
        results = [
            {"function_response": {"name": call.name, "response": {"result": "42"}}}
            for call in turn.calls
        ]
        return {"role": "user", "parts": results}
    parts = [_google_part(p) for p in turn.parts]
    for call in turn.calls:
        made = {"function_call": {"name": call.name, "args": call.arguments}}
        parts.append({**made, "thought_signature": call.signature})
    return {"role": "model" if turn.role == "assistant" else "user", "parts": parts}


TALKS: dict[str, Callable[[str], Talk]] = {
    "anthropic": anthropic_talk,
    "openai": responses_talk,
    "openai-chat": chat_talk,
    "google": google_talk,
}
