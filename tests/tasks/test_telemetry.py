"""What is traced, without a worker; and what it costs where nobody traces."""

import subprocess
import sys

import pytest

from tasks.telemetry import opentelemetry

BLOCKED = """
import sys

class Blocked:
    tried = []

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            self.tried.append(name)
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
from tasks import complete
from tasks.telemetry import tracing

Blocked.tried.clear()
for _ in range(3):
    complete.delay("coder", "hi")
tracer = tracing.current()
with tracer.processing(None), tracer.calling(None, None):
    pass
print(Blocked.tried, "tasks.telemetry.opentelemetry" in sys.modules)
"""


def test_without_opentelemetry_no_import_is_tried(redis_url: str) -> None:
    """A failing import searches every directory of the path, every time."""
    output = subprocess.run(
        [sys.executable, "-c", BLOCKED],
        capture_output=True, text=True, check=True, env={"REDIS_URL": redis_url},
    ).stdout  # fmt: skip

    assert output.splitlines()[-1] == "[] False"


@pytest.mark.parametrize(
    ("adapter", "base_url", "seen"),
    [
        ("anthropic", "", ("anthropic", "api.anthropic.com", 443)),
        ("google", "", ("gcp.gemini", "generativelanguage.googleapis.com", 443)),
        ("openai", "http://gateway:8080/v1", ("openai", "gateway", 8080)),
        ("openai-chat", "https://api.groq.com/openai/v1", ("groq", "api.groq.com", 443)),
        ("openai-chat", "https://me.openai.azure.com/v1", ("azure.ai.openai", "me.openai.azure.com", 443)),
        ("openai-chat", "http://127.0.0.1:8000/v1", ("mine", "127.0.0.1", 8000)),
        ("my.module:Mine", "", ("mine", "", 0)),
    ],
)  # fmt: skip
def test_a_provider_has_its_name_of_the_conventions(
    adapter: str, base_url: str, seen: tuple[str, str, int]
) -> None:
    """The vendor's name if it is known, else the name in the roles file."""
    assert opentelemetry._server("mine", adapter, base_url) == seen


def test_names_are_those_of_the_published_conventions() -> None:
    """A misspelt name would make a graph without data; the package lacks only the newest names."""
    from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as gen_ai
    from opentelemetry.semconv._incubating.attributes import messaging_attributes as messaging

    published = {
        value
        for module in (gen_ai, messaging)
        for name, value in vars(module).items()
        if isinstance(value, str) and name.isupper()
    }
    ours = {
        value
        for name, value in vars(opentelemetry).items()
        if isinstance(value, str) and name.isupper()
        and value.startswith(("gen_ai.", "messaging.")) and ".client." not in value
    }  # fmt: skip

    assert ours - published == {opentelemetry.MODALITY, opentelemetry.CACHE_WRITE}
