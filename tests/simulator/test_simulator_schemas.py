"""Answers by schema, through the official SDKs, and the schemas that the vendors refuse."""

import json

import anthropic
import openai
import pydantic
import pytest

from simulator.client import Simulator
from tests.support.vendor_sdks import KEY, MODEL, status_of
from tests.support.vendor_talks import Ask, Talk, google_client, user

STREAMS = pytest.mark.parametrize("stream", [False, True])
CLOSED = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "names": {"type": "array", "items": {"$ref": "#/$defs/name"}},
    },
    "required": ["n", "names"],
    "additionalProperties": False,
    "$defs": {"name": {"type": "string"}},
}
OPEN = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
PARTLY = {**CLOSED, "required": ["n"]}
BOUNDED = {**CLOSED, "properties": {"n": {"type": "integer", "minimum": 3}}, "required": ["n"]}
MERGED = {**CLOSED, "properties": {"n": {"allOf": [{"type": "integer"}]}}, "required": ["n"]}


class Reply(pydantic.BaseModel):
    """What a user of the SDKs' own parsing asks for."""

    name: str
    sizes: list[int]


@STREAMS
def test_a_schema_is_answered_with_an_instance(
    sim: Simulator, talk: Talk, wire: str, stream: bool
) -> None:
    """As compact JSON text, with the numbers and words of the prompt."""
    said = talk(Ask((user("5 of 'each kind'"),), schema=CLOSED, stream=stream))

    assert said.text == '{"n":5,"names":["each kind"]}'
    asked = sim.hits("it")[0]["asked"]
    strict = True if wire.startswith("openai") else None
    assert (asked["schema"], asked["strict"]) == (True, strict)


def test_what_is_set_is_said_all_the_same(sim: Simulator, talk: Talk) -> None:
    """`answers` are said one after the other, the last one for good; setting begins anew."""
    sim.settings("it", answers=["{}", "", "[7]"])

    texts = [talk(Ask((user("x"),), schema=CLOSED)).text for _ in range(4)]
    sim.settings("it", answers=["anew"])
    texts.append(talk(Ask((user("x"),), schema=CLOSED)).text)

    assert texts == ["{}", "", "[7]", "[7]", "anew"]


def test_an_error_takes_no_answer_from_the_list(sim: Simulator, talk: Talk) -> None:
    """A retry after a fault gets the first answer."""
    sim.settings("it", answers=["first", "second"])
    sim.fault("it", status=500, first=1)

    with pytest.raises(Exception, match="error") as failed:
        talk(Ask((user("x"),)))
    said = talk(Ask((user("x"),)))

    assert status_of(failed.value) == 500
    assert said.text == "first"


REFUSED = {
    "anthropic": [
        (OPEN, "'additionalProperties' must be explicitly set to false"),
        (BOUNDED, "For 'integer' type, property 'minimum' is not supported"),
    ],
    "openai": [
        (OPEN, "'additionalProperties' is required to be supplied and to be false"),
        (PARTLY, "Missing 'names'"),
        (MERGED, "'allOf' is not permitted"),
        ({"type": "array", "items": OPEN}, "got 'type: \"array\"'"),
    ],
    "google": [],
}
REFUSED["openai-chat"] = REFUSED["openai"]


def test_schemas_beyond_what_a_vendor_takes_are_refused(talk: Talk, wire: str) -> None:
    """In the vendor's words and with its 400; Google takes all of these."""
    for schema, why in REFUSED[wire]:
        with pytest.raises(Exception, match=why) as refused:
            talk(Ask((user("x"),), schema=schema))
        assert status_of(refused.value) == 400

    taken = [BOUNDED, PARTLY] if wire == "google" else [PARTLY] if wire == "anthropic" else []
    for schema in taken:
        assert json.loads(talk(Ask((user("x"),), schema=schema)).text).keys() <= {"n", "names"}


@pytest.mark.parametrize("wire", ["openai", "openai-chat"], indirect=True)
def test_openai_takes_more_where_it_is_not_strict(sim: Simulator, talk: Talk) -> None:
    """Without `strict` a schema is a hint, and the log says so."""
    said = talk(Ask((user("x"),), schema=MERGED, strict=False))

    assert json.loads(said.text) == {"n": 1}
    assert sim.hits("it")[0]["asked"]["strict"] is False


def test_the_sdks_own_parsing_gets_its_objects(sim: Simulator) -> None:
    """What the SDKs make of a pydantic model is a schema that is taken and answered."""
    claude = anthropic.Anthropic(api_key=KEY, base_url=sim.url("claude"), max_retries=0)
    gpt = openai.OpenAI(api_key=KEY, base_url=f"{sim.url('gpt')}/v1", max_retries=0)
    gemini = google_client(sim.url("gemini"))
    prompt, wanted = "'Ulm' 4", Reply(name="Ulm", sizes=[4])
    messages = [{"role": "user", "content": prompt}]

    parsed = claude.messages.parse(
        model=MODEL, max_tokens=9, messages=messages, output_format=Reply
    ).parsed_output
    response = gpt.responses.parse(model=MODEL, input=prompt, text_format=Reply)
    chat = gpt.chat.completions.parse(model=MODEL, messages=messages, response_format=Reply)
    config = {"response_mime_type": "application/json"}
    schema = Reply.model_json_schema()
    said = gemini.models.generate_content(
        model=MODEL, contents=prompt, config={**config, "response_json_schema": schema}
    )

    assert parsed == response.output_parsed == chat.choices[0].message.parsed == wanted
    assert Reply.model_validate(said.parsed) == wanted
