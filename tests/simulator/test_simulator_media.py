"""Images, documents and parameters: what is taken, what is refused, what the log tells."""

import json

import anthropic
import openai
import pytest

from simulator.client import Simulator
from tests.support.vendor_sdks import KEY, MODEL, status_of
from tests.support.vendor_talks import TALKS, Ask, Media, Talk, google_client, user

PNG = Media("image", data="iVBORw0KGgo=")
PDF = Media("document", data="JVBERi0xLjQ=", media_type="application/pdf")
AT = "https://example.com/canary"


@pytest.mark.parametrize("stream", [False, True])
def test_images_and_documents_are_counted(
    sim: Simulator, talk: Talk, wire: str, stream: bool
) -> None:
    """By URL and in base64; the log counts them and shows nothing of them."""
    media = [PNG, Media("image", url=AT), PDF]
    if wire != "openai-chat":  # takes no document by URL
        media.append(Media("document", url=AT, media_type="application/pdf"))

    talk(Ask((user("a canary prompt", *media),), stream=stream))

    (hit,) = sim.hits("it")
    assert (hit["asked"]["images"], hit["asked"]["documents"]) == (2, len(media) - 2)
    assert "canary" not in json.dumps(hit)


@pytest.mark.parametrize("wire", [w for w in TALKS if w != "google"], indirect=True)
def test_what_is_no_base64_is_refused(talk: Talk) -> None:
    """Google's SDK refuses it before it is sent."""
    with pytest.raises(Exception, match="invalid base64 data") as refused:
        talk(Ask((user("x", Media("image", data="no base64!")),)))

    assert status_of(refused.value) == 400


@pytest.mark.parametrize(
    "media",
    [
        Media("image", data="iVBORw0KGgo=", media_type="png"),
        Media("image", url="ftp://example.com/x.png"),
    ],
    ids=["type", "url"],
)
def test_media_of_another_form_are_refused(talk: Talk, media: Media) -> None:
    """With the vendor's 400."""
    with pytest.raises(Exception, match=r"(?i)base64|media|url|mime") as refused:
        talk(Ask((user("x", media),)))

    assert status_of(refused.value) == 400


def test_a_model_without_vision_refuses_media(sim: Simulator, talk: Talk) -> None:
    """`media` false: an image is refused, a text is answered."""
    sim.settings("it", media=False)

    with pytest.raises(Exception, match=r"not supported|not enabled") as refused:
        talk(Ask((user("x", PNG),)))
    said = talk(Ask((user("x"),)))

    assert status_of(refused.value) == 400
    assert said.text.startswith("[it] answer")


def test_the_log_tells_the_parameters_in_common_words(sim: Simulator) -> None:
    """Effort, stop, seed, temperature and length, as each vendor spells them."""
    claude = anthropic.Anthropic(api_key=KEY, base_url=sim.url("anthropic"), max_retries=0)
    responses = openai.OpenAI(api_key=KEY, base_url=f"{sim.url('openai')}/v1", max_retries=0)
    chat = openai.OpenAI(api_key=KEY, base_url=f"{sim.url('openai-chat')}/v1", max_retries=0)
    messages = [{"role": "user", "content": "x"}]
    config = {
        "thinking_config": {"thinking_level": "low"}, "stop_sequences": ["END"], "seed": 7,
        "temperature": 0.5, "max_output_tokens": 33,
    }  # fmt: skip

    claude.messages.create(
        model=MODEL, max_tokens=33, messages=messages, stop_sequences=["END"],
        output_config={"effort": "low"},
    )  # fmt: skip
    responses.responses.create(
        model=MODEL, input="x", reasoning={"effort": "low"}, temperature=0.5, max_output_tokens=33
    )
    chat.chat.completions.create(
        model=MODEL, messages=messages, reasoning_effort="low", stop="END", seed=7,
        temperature=0.5, max_completion_tokens=33,
    )  # fmt: skip
    google_client(sim.url("google")).models.generate_content(
        model=MODEL, contents="x", config=config
    )

    names = ("effort", "stop", "seed", "temperature", "max_output_tokens")
    told = {h["wire"]: tuple(h["asked"][name] for name in names) for h in sim.hits()}
    assert told == {
        "anthropic": ("low", ["END"], None, None, 33),
        "openai": ("low", None, None, 0.5, 33),
        "openai-chat": ("low", ["END"], 7, 0.5, 33),
        "google": ("LOW", ["END"], 7, 0.5, 33),
    }
