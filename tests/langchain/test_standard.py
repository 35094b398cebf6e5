"""LangChain's own standard tests, through each wire format: what they expect of any chat model."""

import base64
import operator
from functools import reduce
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from breakwater.langchain import ChatBreakwater
from simulator.client import Simulator
from tests.langchain.conftest import ADAPTERS, documented_skips

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"


def downloaded(url: str, **_: Any) -> Any:
    """A picture of one pixel, or a paper of none."""
    return SimpleNamespace(content=PDF if url.endswith(".pdf") else PNG)


@pytest.fixture(scope="module")
def adapters() -> dict[str, str]:
    """All four."""
    return ADAPTERS


class TestUnit(ChatModelUnitTests):
    """What needs no model."""

    @property
    def chat_model_class(self) -> type[ChatBreakwater]:
        return ChatBreakwater

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"role": "coder"}

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        """Without the suite's `api_key`: keys are the workers', and an unknown option is refused."""
        return {"temperature": 0, "max_tokens": 100, "timeout": 60, "stop": []}


class Standard(ChatModelIntegrationTests):
    """What needs one; `role` says through which wire format."""

    role = ""

    @pytest.fixture(autouse=True)
    def _real(
        self,
        simulator: Simulator,
        monkeypatch: pytest.MonkeyPatch,
        request: pytest.FixtureRequest,
    ) -> None:
        """Ask a real worker; the suite's pictures and papers are here, not on the net."""
        self.simulator = simulator
        if request.node.originalname == "test_agent_loop":  # its prompt does not name the tool
            weather = {"name": "get_weather", "arguments": {"location": "San Francisco"}}
            simulator.settings(self.role, tool_calls=[weather])
        monkeypatch.setattr("langchain_tests.integration_tests.chat_models.httpx.get", downloaded)

    @property
    def chat_model_class(self) -> type[ChatBreakwater]:
        return ChatBreakwater

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"role": self.role}

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        return {"timeout": 60}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_model_override(self) -> bool:
        """The role says which model is asked; `model=…` is refused."""
        return False

    @property
    def supports_image_inputs(self) -> bool:
        return True

    @property
    def supports_image_urls(self) -> bool:
        return True

    @property
    def supports_pdf_inputs(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def supported_usage_metadata_details(self) -> Any:
        details = ["reasoning_output", "cache_read_input", "cache_creation_input"]
        return {"invoke": details, "stream": details}

    def invoke_with_reasoning_output(self, *, stream: bool = False) -> AIMessage:
        return self._used(stream, output_tokens=50, reasoning_tokens=40)

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        return self._used(stream, input_tokens=50, cached_input_tokens=40)

    def invoke_with_cache_creation_input(self, *, stream: bool = False) -> AIMessage:
        return self._used(stream, input_tokens=50, cache_write_tokens=40)

    def _used(self, stream: bool, **usage: int) -> AIMessage:
        self.simulator.settings(self.role, usage=usage)
        model = ChatBreakwater(role=self.role)
        if not stream:
            return model.invoke("hi")
        chunks = list(model.stream("hi"))
        return reduce(operator.add, chunks[1:], chunks[0])


class TestOpenAIChat(Standard):
    role = "local"


class TestAnthropic(Standard):
    role = "claude"


class TestOpenAI(Standard):
    role = "gpt"


class TestGoogle(Standard):
    role = "gemini"


def test_the_documentation_names_tests_that_there_are() -> None:
    """That each of them is skipped, and no other, is checked as they run (conftest.py)."""
    there = {*dir(ChatModelIntegrationTests), *dir(ChatModelUnitTests)}

    assert documented_skips()
    assert documented_skips() <= there
