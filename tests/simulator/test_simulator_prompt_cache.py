"""Prompt caching, counted as each vendor counts it."""

import pytest
from google.genai import errors

from simulator.client import Simulator
from tests.support.vendor_talks import Ask, Talk, google_client, google_talk, user

SYSTEM = "be brief " * 40
TOOLS = {"look_up": {"type": "object", "properties": {}}}
MARKED = {"system": [{"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral"}}]}


def _ask(wire: str, text: str, *, stream: bool = False) -> Ask:
    extra = MARKED if wire == "anthropic" else {}
    return Ask((user(text),), TOOLS, system=SYSTEM, extra=extra, stream=stream)


@pytest.mark.parametrize("stream", [False, True])
def test_the_second_prompt_with_the_same_prefix_reads_from_the_cache(
    sim: Simulator, talk: Talk, wire: str, stream: bool
) -> None:
    """System and tools are the prefix; Anthropic alone counts that it was written."""
    sim.settings("it", prompt_cache=True)

    first = talk(_ask(wire, "one", stream=stream))
    second = talk(_ask(wire, "two", stream=stream))

    assert first.cached == 0
    assert (first.written > 0) is (wire == "anthropic")
    assert (second.cached > 80, second.written) == (True, 0)
    assert second.input > second.cached


def test_without_the_setting_nothing_is_cached(talk: Talk, wire: str) -> None:
    """A label is without memory unless a test asks for it."""
    talk(_ask(wire, "one"))

    assert talk(_ask(wire, "two")).cached == 0


def test_another_prefix_is_not_in_the_cache(sim: Simulator, talk: Talk, wire: str) -> None:
    """Neither another system, nor one too short."""
    sim.settings("it", prompt_cache=True)
    talk(_ask(wire, "one"))
    extra = {"system": [{**MARKED["system"][0], "text": "another"}]} if wire == "anthropic" else {}

    other = talk(Ask((user("one"),), TOOLS, system="another", extra=extra))
    sim.settings("it", prompt_cache=True, prompt_cache_min_tokens=1000)
    short = talk(_ask(wire, "two"))

    assert (other.cached, short.cached, short.written) == (0, 0, 0)


@pytest.mark.parametrize("wire", ["anthropic"], indirect=True)
def test_anthropic_caches_where_a_mark_is(sim: Simulator, talk: Talk) -> None:
    """Without a mark nothing; with the automatic one the prefix ends with the last message."""
    sim.settings("it", prompt_cache=True)
    automatic = {"cache_control": {"type": "ephemeral"}}
    turns = (user("one"),)

    unmarked = talk(Ask(turns, TOOLS, system=SYSTEM))
    first = talk(Ask(turns, TOOLS, system=SYSTEM, extra=automatic))
    longer = talk(Ask((*turns, user("two")), TOOLS, system=SYSTEM, extra=automatic))
    other = talk(Ask((user("three"),), TOOLS, system=SYSTEM, extra=automatic))

    assert (unmarked.cached, unmarked.written) == (0, 0)
    assert first.written > 80
    assert longer.cached == first.written
    assert (other.cached, other.written > 80) == (0, True)
    assert [hit["asked"]["prompt_cache"] for hit in sim.hits("it")] == [False, True, True, True]


@pytest.mark.parametrize("wire", ["openai", "openai-chat"], indirect=True)
def test_openai_finds_a_prefix_again_by_its_key(sim: Simulator, talk: Talk) -> None:
    """Another key is another machine, which knows nothing of it."""
    sim.settings("it", prompt_cache=True)

    counts = [
        talk(Ask((user("x"),), system=SYSTEM, extra={"prompt_cache_key": key})).cached > 0
        for key in ("a", "a", "b")
    ]

    assert counts == [False, True, False]
    assert [hit["asked"]["prompt_cache"] for hit in sim.hits("it")] == ["a", "a", "b"]


def test_google_keeps_contents_by_name(sim: Simulator) -> None:
    """Created, told, used with the tools and the system it holds, deleted, unknown from then on."""
    client, talk = google_client(sim.url("it")), google_talk(sim.url("it"))
    functions = [{"name": "look_up", "parameters_json_schema": TOOLS["look_up"]}]
    config = {
        "system_instruction": SYSTEM, "tools": [{"function_declarations": functions}], "ttl": "60s"
    }  # fmt: skip

    made = client.caches.create(model="model-1", config=config)
    told = client.caches.get(name=made.name)
    said = talk(Ask((user("use the tool"),), extra={"cached_content": made.name}))
    with pytest.raises(errors.ClientError, match="can not be used with GenerateContent"):
        talk(Ask((user("x"),), system="x", extra={"cached_content": made.name}))
    client.caches.delete(name=made.name)
    with pytest.raises(errors.ClientError, match="CachedContent not found") as unknown:
        talk(Ask((user("x"),), extra={"cached_content": made.name}))

    assert told == made
    assert said.calls[0].name == "look_up"
    assert said.cached == made.usage_metadata.total_token_count
    assert (made.expire_time - made.create_time).total_seconds() == 60
    assert unknown.value.code == 403
    hits = sim.hits("it")
    assert [h["call"] for h in hits] == [
        "caches", "caches", "generate", "generate", "caches", "generate",
    ]  # fmt: skip
    assert hits[2]["asked"]["prompt_cache"] == made.name


def test_google_forgets_contents_in_time_and_takes_no_small_ones(sim: Simulator) -> None:
    """An expired one is as unknown as one that never was."""
    client = google_client(sim.url("it"))
    made = client.caches.create(model="model-1", config={"system_instruction": SYSTEM, "ttl": "0s"})
    sim.settings("it", prompt_cache_min_tokens=1024)

    with pytest.raises(errors.ClientError, match="CachedContent not found"):
        client.caches.get(name=made.name)
    with pytest.raises(errors.ClientError, match="Cached content is too small"):
        client.caches.create(model="model-1", config={"system_instruction": SYSTEM})
