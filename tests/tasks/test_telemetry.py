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
    """A failing import searches every directory of the path, each time anew."""
    told = subprocess.run(
        [sys.executable, "-c", BLOCKED],
        capture_output=True, text=True, check=True, env={"REDIS_URL": redis_url},
    ).stdout  # fmt: skip

    assert told.splitlines()[-1] == "[] False"


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
def test_a_provider_is_called_as_the_conventions_do(
    adapter: str, base_url: str, seen: tuple[str, str, int]
) -> None:
    """By its vendor where that is known; else as in the roles file."""
    assert opentelemetry._server("mine", adapter, base_url) == seen


def test_names_are_those_of_the_published_conventions() -> None:
    """A slip in a name would be a graph without data; the package has them all but the newest."""
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
