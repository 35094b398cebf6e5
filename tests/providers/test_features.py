"""Each feature through each adapter's SDK, as the table in `features` says; and what went out."""

import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from structlog.testing import capture_logs

from breakwater import errors
from breakwater.content import Delta, Media, Message, TextDelta, Tool, ToolCallDelta
from breakwater.errors import ProviderError
from simulator.client import Simulator
from tasks.providers.base import Completion, Request
from tests.providers import features
from tests.providers.conftest import Build
from tests.providers.features import DROPPED, FEATURES, REFUSED, verdict


@dataclass
class Bench:
    """One adapter over one simulated provider, and what it was told and has heard."""

    adapter: str
    simulator: Simulator
    label: str
    build: Build
    heard: list[Delta] = field(default_factory=list)

    def ask(self, prompt: Any = "say hello", **fields: Any) -> Completion:
        """Ask with a user's message, or with a whole conversation."""
        talk = prompt if isinstance(prompt, list) else [Message("user", prompt)]
        if fields.pop("stream", False):
            fields["on_delta"] = self.heard.append
        return self.provider.complete(Request(talk, "m-1", **fields))

    def __post_init__(self) -> None:
        """Build the adapter."""
        self.provider = self.build(self.adapter, self.simulator.url(self.label), prompt_cache=True)

    def asked(self) -> Mapping[str, Any]:
        """Return what the vendor was asked at last."""
        found: Mapping[str, Any] = self.simulator.hits(self.label)[-1]["asked"]
        return found

    def settings(self, **fields: Any) -> None:
        """Have the vendor answer so."""
        self.simulator.settings(self.label, **fields)

    def text(self) -> str:
        """Return the text that was heard."""
        return "".join(delta.text for delta in self.heard if isinstance(delta, TextDelta))


@pytest.fixture
def bench(adapter: str, simulator: Simulator, label: str, build: Build) -> Bench:
    """A bench for each adapter in turn."""
    return Bench(adapter, simulator, label, build)


ADD = Tool(
    "add",
    "Adds two numbers.",
    {
        "type": "object", "required": ["a", "b"],
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    },
)  # fmt: skip
LOOK_UP = Tool("look_up", "", {"type": "object", "properties": {"word": {"type": "string"}}})
TOOLS = [ADD, LOOK_UP]
PERSON = {
    "type": "object", "required": ["name", "age"], "additionalProperties": False,
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
}  # fmt: skip
ADA = {"name": "Ada", "age": 36}
PNG = b64encode(b"\x89PNG\r\n\x1a\n").decode()
PDF = b64encode(b"%PDF-1.7").decode()


def plain_text(bench: Bench) -> None:
    """One message, one answer."""
    bench.settings(answer="hello")

    assert bench.ask().text == "hello"
    assert bench.asked()["turns"] == 1


def system_prompt(bench: Bench) -> None:
    """It is no turn of the conversation, but it is counted."""
    bench.ask()
    alone = bench.ask().usage.input_tokens

    assert bench.ask(system="be brief " * 50).usage.input_tokens > alone + 50
    assert bench.asked()["turns"] == 1


def conversation(bench: Bench) -> None:
    """Turns in their order."""
    bench.ask([Message("user", "one"), Message("assistant", "two"), Message("user", "three")])

    assert bench.asked()["turns"] == 3


def stream(bench: Bench) -> None:
    """In pieces, and as a whole."""
    bench.settings(answer="one two three")

    assert bench.ask(stream=True).text == bench.text() == "one two three"
    assert len(bench.heard) > 1
    assert bench.simulator.hits(bench.label)[0]["stream"]


def stream_with_tool_calls(bench: Bench) -> None:
    """Each call's pieces make its arguments; id and name come with the first."""
    wanted = [{"name": "add", "arguments": {"a": n, "b": 2}} for n in (1, 3)]
    bench.settings(tool_calls=wanted)

    completion = bench.ask("add", tools=TOOLS, stream=True)

    assert completion.finish_reason == "tool_calls"
    assert [(c.name, c.arguments) for c in completion.tool_calls] == [
        (call["name"], call["arguments"]) for call in wanted
    ]
    for index, call in enumerate(completion.tool_calls):
        pieces = [d for d in bench.heard if isinstance(d, ToolCallDelta) and d.index == index]
        assert pieces[0].name == call.name
        assert pieces[0].id == call.id
        assert json.loads("".join(piece.arguments for piece in pieces)) == call.arguments
        assert all(piece.id is None and piece.name is None for piece in pieces[1:])


def stream_that_is_cut(bench: Bench) -> None:
    """What was said does not make it a success."""
    _fails(bench, "cut", errors.TruncatedAnswer)


def stream_that_stalls(bench: Bench) -> None:
    """The pace ends it long before the call's own time would."""
    _fails(bench, "stall", errors.ProviderTimeout, first_token_s=180, between_tokens_s=0.3)


def stream_that_fails(bench: Bench) -> None:
    """An error event is the error it names."""
    _fails(bench, "stream_error", errors.Overloaded)


def _fails(bench: Bench, kind: str, error: type[ProviderError], **fields: Any) -> None:
    bench.settings(answer="one two three four five six seven eight nine ten")
    bench.simulator.fault(bench.label, kind)

    with pytest.raises(error):
        bench.ask(stream=True, **fields)

    assert bench.text().startswith("one")


def reasoning_kept_apart(bench: Bench) -> None:
    """It is counted, and no part of the text."""
    bench.settings(answer="forty-two", usage={"output_tokens": 50, "reasoning_tokens": 30})

    for streamed in (False, True):
        completion = bench.ask(stream=streamed)
        assert completion.text == "forty-two"
        assert completion.usage.reasoning_tokens == 30

    assert bench.text() == "forty-two"


def tools_auto(bench: Bench) -> None:
    """The model calls one if it is of use; its arguments are parsed."""
    called = bench.ask("use the tool add with 7", tools=TOOLS)

    assert called.finish_reason == "tool_calls"
    assert [(c.name, c.arguments) for c in called.tool_calls] == [("add", {"a": 7, "b": 7})]
    assert called.tool_calls[0].id
    assert bench.asked()["tools"] == ["add", "look_up"]
    assert not bench.ask("hello", tools=TOOLS).tool_calls


def tools_none(bench: Bench) -> None:
    """Offered, and not called."""
    answered = bench.ask("use the tool add", tools=TOOLS, tool_choice="none")

    assert (answered.finish_reason, answered.tool_calls) == ("stop", ())
    assert bench.asked()["tool_choice"] == "none"
    assert bench.asked()["tools"] == ["add", "look_up"]


def tools_required(bench: Bench) -> None:
    """Any, but one."""
    assert bench.ask("hello", tools=TOOLS, tool_choice="required").tool_calls
    assert bench.asked()["tool_choice"] == "required"


def tools_by_name(bench: Bench) -> None:
    """This one."""
    called = bench.ask("hello", tools=TOOLS, tool_choice="look_up")

    assert [call.name for call in called.tool_calls] == ["look_up"]
    assert bench.asked()["tool_choice"] == "look_up"


def tools_in_parallel(bench: Bench) -> None:
    """Several calls in one answer, each with an id of its own, text beside them."""
    wanted = [{"name": "add", "arguments": {"a": 1, "b": 2}}, {"name": "look_up", "arguments": {}}]
    bench.settings(tool_calls=wanted, answer="let me see")

    called = bench.ask("hello", tools=TOOLS)

    assert [call.name for call in called.tool_calls] == ["add", "look_up"]
    assert len({call.id for call in called.tool_calls}) == 2
    assert called.text == "let me see"
    assert called.finish_reason == "tool_calls"


def tool_results(bench: Bench) -> None:
    """The calls and their results go back, and the vendor takes the pair."""
    question = Message("user", "use the tool add with 7")
    wanted = [{"name": "add", "arguments": {"a": n, "b": 2}} for n in (1, 3)]
    bench.settings(tool_calls=wanted)
    called = bench.ask([question], tools=TOOLS)
    bench.settings(answer="fourteen")
    results = [
        Message("tool", "14", tool_call_id=call.id, name=call.name) for call in called.tool_calls
    ]

    answered = bench.ask(
        [question, Message("assistant", called.text, called.tool_calls), *results], tools=TOOLS
    )

    assert answered.text == "fourteen"
    assert bench.asked()["tool_results"] == 2


def schema(bench: Bench) -> None:
    """The text is JSON of this shape; OpenAI is asked strictly."""
    _satisfies(bench, PERSON, ADA, strict=True)


def schema_nested(bench: Bench) -> None:
    """Objects in lists in objects."""
    team = {"type": "array", "items": PERSON, "minItems": 1}
    whole = {"type": "object", "properties": {"team": team}, "required": ["team"]}
    _satisfies(bench, whole, {"team": [ADA]}, strict=True)


def schema_with_references(bench: Bench) -> None:
    """As pydantic writes it, with a note beside the reference."""
    whole = {
        "type": "object", "required": ["boss"], "$defs": {"person": PERSON},
        "properties": {"boss": {"$ref": "#/$defs/person", "description": "the boss"}},
    }  # fmt: skip
    _satisfies(bench, whole, {"boss": ADA}, strict=True)


def schema_with_optional_properties(bench: Bench) -> None:
    """Which strict mode does not know."""
    _satisfies(bench, {**PERSON, "required": ["name"]}, ADA, strict=False)


def schema_that_holds_itself(bench: Bench) -> None:
    """A list whose rest is one, too."""
    rest = {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}
    node = {"type": "object", "properties": {"rest": rest}, "required": ["rest"]}
    whole = {"$ref": "#/$defs/node", "$defs": {"node": node}}
    _satisfies(bench, whole, {"rest": None}, strict=True)


def schema_with_a_map(bench: Bench) -> None:
    """Properties of any name, which a closed object cannot have."""
    counts = {"type": "object", "additionalProperties": {"type": "integer"}}
    whole = {"type": "object", "properties": {"counts": counts}, "required": ["counts"]}
    _satisfies(bench, whole, {"counts": {}}, strict=False)


def schema_in_a_stream(bench: Bench) -> None:
    """The pieces make the JSON."""
    _satisfies(bench, PERSON, ADA, strict=True, stream=True)

    assert json.loads(bench.text())


def _satisfies(
    bench: Bench, schema: Mapping[str, Any], value: Any, *, strict: bool, **fields: Any
) -> None:
    completion = bench.ask("'Ada' is 36", schema=schema, **fields)

    assert json.loads(completion.text) == value
    asked = bench.asked()
    assert asked["schema"]
    assert asked["strict"] == (strict if bench.adapter.startswith("openai") else None)


def image_by_url(bench: Bench) -> None:
    """The vendor fetches it."""
    bench.ask([Message("user", ("what is it?", Media("image", url="https://e.org/a.png")))])

    assert bench.asked()["images"] == 1


def image_as_bytes(bench: Bench) -> None:
    """In base64."""
    picture = Media("image", data=PNG, media_type="image/png")
    bench.ask([Message("user", ("what is it?", picture, picture))])

    assert bench.asked()["images"] == 2


def document_by_url(bench: Bench) -> None:
    """The vendor fetches it."""
    bench.ask([Message("user", ("sum up", Media("document", url="https://e.org/a.pdf")))])

    assert bench.asked()["documents"] == 1


def document_as_bytes(bench: Bench) -> None:
    """In base64."""
    paper = Media("document", data=PDF, media_type="application/pdf", name="a.pdf")
    bench.ask([Message("user", ("sum up", paper))])

    assert bench.asked()["documents"] == 1


def prompt_cache(bench: Bench) -> None:
    """The second call reads what the first began with; a compatible server does so unasked."""
    bench.settings(prompt_cache=True)
    system = "be brief " * 2000

    first = bench.ask("one", system=system, tools=TOOLS).usage
    second = bench.ask("two", system=system, tools=TOOLS, stream=True).usage

    assert second.cached_input_tokens > 4000
    assert second.cache_write_tokens == 0
    assert bool(first.cache_write_tokens) == (bench.adapter == "anthropic")
    assert bool(bench.asked()["prompt_cache"]) == (bench.adapter != "openai-chat")


def parameter(name: str, value: Any, told: str | None = None) -> Callable[[Bench], None]:
    """Make the trial of a parameter: sent, or left out."""

    def trial(bench: Bench) -> None:
        bench.ask(params={name: value})

        sent = bench.asked()[told or name]
        if verdict(name, bench.adapter) == DROPPED:
            assert sent is None
        else:
            assert (sent.lower() if isinstance(sent, str) else sent) == value

    return trial


TRIALS: Mapping[str, Callable[[Bench], None]] = {
    "plain text": plain_text,
    "system prompt": system_prompt,
    "conversation": conversation,
    "stream": stream,
    "stream with tool calls": stream_with_tool_calls,
    "stream that is cut": stream_that_is_cut,
    "stream that stalls": stream_that_stalls,
    "stream that fails": stream_that_fails,
    "reasoning kept apart": reasoning_kept_apart,
    "tools, auto": tools_auto,
    "tools, none": tools_none,
    "tools, required": tools_required,
    "tools, by name": tools_by_name,
    "tools in parallel": tools_in_parallel,
    "tool results": tool_results,
    "schema": schema,
    "schema, nested": schema_nested,
    "schema with references": schema_with_references,
    "schema with optional properties": schema_with_optional_properties,
    "schema that holds itself": schema_that_holds_itself,
    "schema with a map": schema_with_a_map,
    "schema in a stream": schema_in_a_stream,
    "image by URL": image_by_url,
    "image as bytes": image_as_bytes,
    "document by URL": document_by_url,
    "document as bytes": document_as_bytes,
    "max_output_tokens": parameter("max_output_tokens", 50),
    "temperature": parameter("temperature", 0.5),
    "stop": parameter("stop", ["END"]),
    "seed": parameter("seed", 7),
    "reasoning_effort": parameter("reasoning_effort", "high", told="effort"),
    "prompt cache": prompt_cache,
}


@pytest.mark.parametrize("feature", TRIALS)
def test_each_feature_does_what_the_table_says(feature: str, bench: Bench) -> None:
    """It works; or it is left out, with a warning; or it is refused before anything is sent."""
    expected = verdict(feature, bench.adapter)

    with capture_logs() as logs:
        if expected == REFUSED:
            with pytest.raises(errors.UnsupportedInput):
                TRIALS[feature](bench)
        else:
            TRIALS[feature](bench)

    dropped = [entry["param"] for entry in logs if entry["event"] == "provider.param_dropped"]
    assert dropped == ([feature] if expected == DROPPED else [])
    assert bool(bench.simulator.hits(bench.label)) == (expected != REFUSED)


def test_every_feature_of_the_table_has_its_trial() -> None:
    """What the page claims is tried here, and what is tried here is on the page."""
    assert TRIALS.keys() == FEATURES.keys()


def test_the_page_shows_the_table() -> None:
    """`python -m tests.providers.features` writes it."""
    page = features.PAGE.read_text()

    assert page.partition(features.BEGIN)[2].partition(features.END)[0] == features.table()
