"""
The four official SDK calls behind one face, without retries: what a vendor's client sees.

`said` and `streamed` return an `Answer`; errors come out as the SDK raises them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx2
import openai
from google import genai
from google.genai import types

KEY = "sk-test-canary-7391"
MODEL = "model-1"
TOOL = {"name": "look_up", "description": "", "schema": {"type": "object", "properties": {}}}


@dataclass(frozen=True)
class Answer:
    """What a call brought, with the vendor's own words for the finish and the usage."""

    text: str
    finish: str | None
    usage: Any
    tool: str | None = None


@dataclass(frozen=True)
class Caller:
    """One wire's SDK calls."""

    said: Callable[[str], Answer]
    streamed: Callable[[str], Answer]
    models: Callable[[], list[str]]


def anthropic_caller(
    url: str, key: str = KEY, timeout_s: float = 180, *, tools: bool = False
) -> Caller:
    client = anthropic.Anthropic(api_key=key, base_url=url, max_retries=0, timeout=timeout_s)
    given: Any = {"model": MODEL, "max_tokens": 100}
    if tools:
        given["tools"] = [{"name": TOOL["name"], "input_schema": TOOL["schema"]}]

    def answer(message: anthropic.types.Message) -> Answer:
        texts = [block.text for block in message.content if block.type == "text"]
        calls = [block.name for block in message.content if block.type == "tool_use"]
        return Answer("".join(texts), message.stop_reason, message.usage, *calls)

    def said(text: str) -> Answer:
        return answer(client.messages.create(messages=[{"role": "user", "content": text}], **given))

    def streamed(text: str) -> Answer:
        with client.messages.stream(
            messages=[{"role": "user", "content": text}], **given
        ) as stream:
            return answer(stream.get_final_message())

    return Caller(said, streamed, lambda: [m.id for m in client.models.list(limit=1).data])


def responses_caller(
    url: str, key: str = KEY, timeout_s: float = 180, *, tools: bool = False
) -> Caller:
    client = openai.OpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0, timeout=timeout_s)
    given: Any = {"model": MODEL, "store": False}
    if tools:
        function = {"name": TOOL["name"], "parameters": TOOL["schema"], "strict": False}
        given["tools"] = [{"type": "function", **function}]

    def answer(response: Any) -> Answer:
        why = response.incomplete_details
        calls = [item.name for item in response.output if item.type == "function_call"]
        parts = [p for item in response.output if item.type == "message" for p in item.content]
        text = "".join(getattr(p, "text", None) or getattr(p, "refusal", "") for p in parts)
        finish = why.reason if why else response.status
        return Answer(text, finish, response.usage, *calls)

    def said(text: str) -> Answer:
        return answer(client.responses.create(input=text, **given))

    def streamed(text: str) -> Answer:
        with client.responses.create(input=text, stream=True, **given) as stream:
            events = list(stream)
        assert [e.sequence_number for e in events] == list(range(len(events)))
        final = answer(events[-1].response)
        deltas = [
            e.delta for e in events if e.type.endswith((".output_text.delta", ".refusal.delta"))
        ]
        assert "".join(deltas) == final.text
        return final

    return Caller(said, streamed, lambda: [m.id for m in client.models.list().data])


def chat_caller(url: str, key: str = KEY, timeout_s: float = 180, *, tools: bool = False) -> Caller:
    client = openai.OpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0, timeout=timeout_s)
    given: Any = {"model": MODEL}
    if tools:
        function = {"name": TOOL["name"], "parameters": TOOL["schema"]}
        given["tools"] = [{"type": "function", "function": function}]

    def said(text: str) -> Answer:
        done = client.chat.completions.create(messages=[{"role": "user", "content": text}], **given)
        (choice,) = done.choices
        calls = [call.function.name for call in choice.message.tool_calls or []]
        text = choice.message.content or choice.message.refusal or ""
        return Answer(text, choice.finish_reason, done.usage, *calls)

    def streamed(text: str) -> Answer:
        texts, finish, usage, calls = [], None, None, []
        chunks = client.chat.completions.create(
            messages=[{"role": "user", "content": text}],
            stream=True,
            stream_options={"include_usage": True},
            **given,
        )
        for chunk in chunks:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                texts.append(choice.delta.content or choice.delta.refusal or "")
                calls += [c.function.name for c in choice.delta.tool_calls or [] if c.id]
                finish = choice.finish_reason or finish
        return Answer("".join(texts), finish, usage, *calls)

    return Caller(said, streamed, lambda: [m.id for m in client.models.list().data])


def google_caller(
    url: str, key: str = KEY, timeout_s: float = 180, *, tools: bool = False
) -> Caller:
    client = genai.Client(
        api_key=key,
        http_options=types.HttpOptions(
            base_url=url,
            timeout=int(timeout_s * 1000),
            retry_options=types.HttpRetryOptions(attempts=1),
            httpx_client=httpx2.Client(timeout=timeout_s),
        ),
    )
    function = {"name": TOOL["name"], "parameters_json_schema": TOOL["schema"]}
    config: Any = {
        "automatic_function_calling": {"disable": True},
        "tools": [{"function_declarations": [function]}] if tools else None,
    }

    def read(response: types.GenerateContentResponse) -> tuple[str, str | None, list[str]]:
        if not response.candidates:
            feedback = response.prompt_feedback
            return "", feedback.block_reason.value if feedback else None, []
        candidate = response.candidates[0]
        parts = (candidate.content.parts if candidate.content else None) or []
        calls = [part.function_call.name for part in parts if part.function_call]
        finish = candidate.finish_reason.value if candidate.finish_reason else None
        return "".join(part.text or "" for part in parts), finish, calls

    def said(text: str) -> Answer:
        done = client.models.generate_content(model=MODEL, contents=text, config=config)
        text, finish, calls = read(done)
        return Answer(text, finish, done.usage_metadata, *calls)

    def streamed(text: str) -> Answer:
        texts, last, usage, calls = [], None, None, []
        for chunk in client.models.generate_content_stream(
            model=MODEL, contents=text, config=config
        ):
            piece, finish, called = read(chunk)
            texts.append(piece)
            calls += called
            last, usage = finish or last, chunk.usage_metadata
        return Answer("".join(texts), last, usage, *calls)

    return Caller(
        said,
        streamed,
        lambda: [m.name for m in client.models.list(config={"page_size": 1, "query_base": True})],
    )


CALLERS = {
    "anthropic": anthropic_caller,
    "openai": responses_caller,
    "openai-chat": chat_caller,
    "google": google_caller,
}


def status_of(error: Exception) -> int | None:
    """Return the HTTP status of any of the SDKs' errors, None if it has none."""
    return getattr(error, "status_code", None) or getattr(error, "code", None)
