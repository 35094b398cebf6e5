"""The doctor compares the models of all chains with what their providers list."""

from collections.abc import Iterator

import pytest

from tasks.config import Role, Settings, Target
from tests.support.loopback import Loopback, loopback
from tests.support.vendors import settings_for
from workers.doctor.checks import check_keys


@pytest.fixture
def server() -> Iterator[Loopback]:
    """A server with a list of models."""
    with loopback() as served:
        yield served


def listing(*names: str) -> dict[str, object]:
    """Return OpenAI's list of models."""
    models = [{"id": n, "object": "model", "created": 1, "owned_by": "x"} for n in names]
    return {"object": "list", "data": models}


def found(server: Loopback, **chains: list[str]) -> dict[str, tuple[str, str]]:
    """Return what the doctor says of one provider, by subject."""
    provider = settings_for("openai-chat", server.url, name="gpt", model="gpt-6")
    roles = {r: Role(r, tuple(Target("gpt", m) for m in models)) for r, models in chains.items()}
    return {f.about: (f.level, f.what) for f in check_keys(Settings({"gpt": provider}, roles))}


def test_a_misspelt_model_is_a_warning_that_names_the_nearest(server: Loopback) -> None:
    """Of every chain, once, with the roles that would ask for it."""
    server.answer(listing("gpt-6", "gpt-6-luna"))

    told = found(server, a=["gpt-6-lunaa", "gpt-6"], b=["gpt-6-lunaa"], c=["gpt-6-luna"])

    assert told["model gpt/gpt-6-lunaa"] == (
        "warning",
        "gpt does not list it; a, b would call it (did you mean 'gpt-6-luna'?)",
    )
    assert told["provider gpt"][0] == "ok"
    assert len(told) == 2
    assert len(server.asked) == 1, "one list is enough"


@pytest.mark.parametrize(
    ("asked", "names"),
    [("llama3", ["llama3:latest"]), ("a/b:free", ["a/b"]), ("m", []), ("models/m", ["m"])],
)
def test_what_lists_leave_out_is_no_warning(asked: str, names: list[str], server: Loopback) -> None:
    """Ollama adds a tag, OpenRouter's variants are not listed, and an empty list says nothing."""
    server.answer(listing(*names))

    assert f"model gpt/{asked}" not in found(server, a=[asked])


def test_a_host_that_cannot_call_is_told_with_its_setting(
    server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as an unreachable provider."""
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)

    level, what = found(server, a=["m"])["provider gpt"]

    assert level == "fault"
    assert "HostFault: gpt: ALL_PROXY names a SOCKS proxy" in what
