"""The example of docs/providers.md, *Your own adapter*: built, installed, and used by a worker."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.collector import Collector
from tests.support.fleet import Fleet, fleet, wait_for
from tests.support.loopback import Loopback, loopback
from tests.support.ports import free_port
from tests.support.scrape import scrape

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "providers.md"
SECTION = re.compile(r"^## Your own adapter\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
FILE = re.compile(
    r"`((?:acme_breakwater/)?\w+\.(?:py|toml))`[^`]*\n```\w+\n(.*?)^```", re.DOTALL | re.MULTILINE
)
ROLES = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)
KEY = "acme-CANARYKEY-0005"
SECRET = "PROMPT-THAT-NOBODY-MAY-SEE"
ASK = "import json; from tasks import complete; print(json.dumps(CALL.get(timeout=180)))"
REFUSED = """
from breakwater import complete
from breakwater.errors import InvalidOption
try:
    complete.delay("strict", "hi", params={"seed": 1})
except InvalidOption as error:
    print(error)
"""

FAILURE = """
from tasks import complete
try:
    complete.delay("coder", PROMPT).get(timeout=180)
except Exception as error:
    print(type(error).__name__, error)
"""
WITH_FILE = """
import sys
sys.path.remove("SITE")
from breakwater import complete
from breakwater.errors import UnknownRole
print(complete.delay("coder", "hi").get(timeout=180)["text"])
try:
    complete.delay("codr", "hi")
except UnknownRole as error:
    print(type(error).__name__)
"""
PROMPT = """[{"role": "user", "content": [
    {"type": "text", "text": "look"}, {"type": "KIND", "url": "https://acme.example/a"}]}]"""


def section() -> str:
    found = SECTION.search(PAGE.read_text())
    assert found
    return found[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's package alone, as pip installs it: its code and its metadata."""
    folder = tmp_path_factory.mktemp("site")
    files = dict(FILE.findall(section()))
    project = tomllib.loads(files.pop("pyproject.toml"))
    assert project["tool"]["setuptools"]["packages"] == ["acme_breakwater"]
    for name, code in {"acme_breakwater/__init__.py": "", **files}.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)
    name, version = project["project"]["name"], project["project"]["version"]
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, points in project["project"]["entry-points"].items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return folder


@pytest.fixture
def gateway() -> Iterator[Loopback]:
    """The gateway that the page's adapter calls; it answers one text."""
    with loopback() as served:
        served.answer(
            {"id": "r-1", "model": "gpt-6-luna", "text": "hi there", "finish": "end",
             "tokens": {"in": 1000, "out": 100}}
        )  # fmt: skip
        yield served


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture
def workers(
    redis_url: str, site: Path, gateway: Loopback, collector: Collector, tmp_path: Path
) -> Iterator[Fleet]:
    """A fleet over the page's roles file, with the page's package; no worker started yet."""
    roles = ROLES.search(section())
    assert roles
    environ = {
        "PYTHONPATH": str(site),
        "ACME_API_KEY": KEY,
        "TMPDIR": str(tmp_path),
        "METRICS_PORT": str(free_port()),
        "METRICS_HOST": "127.0.0.1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    breaker = "breaker: {fail_max: 2, reset_timeout_s: 1, success_threshold: 1}"
    text = roles[1].replace("adapter:", f'base_url: "{gateway.url}", {breaker}, adapter:')
    with fleet(redis_url, text, environ) as those:
        yield those


def run_without_package(workers: Fleet, code: str) -> str:
    """Run a producer that has neither the package nor a roles file; return what it prints."""
    environ = dict(workers.environ)
    for name in ("PYTHONPATH", "ACME_API_KEY", "ACME_BASE_URL", "ROLES_FILE"):
        workers.environ.pop(name, None)
    try:
        return workers.run(code)
    finally:
        workers.environ.update(environ)


def ask(workers: Fleet, call: str) -> dict[str, Any]:
    """Enqueue a call in a producer without the package; return its result."""
    result: dict[str, Any] = json.loads(run_without_package(workers, ASK.replace("CALL", call)))
    return result


def test_a_package_adds_an_adapter_by_one_row(
    workers: Fleet, gateway: Loopback, collector: Collector, redis_url: str
) -> None:
    """Calls, costs, the ledger, metrics and spans are as with an adapter of ours; logs are quiet."""
    workers.start(1, "threads", 2, "--loglevel", "DEBUG")

    result = ask(workers, f'complete.delay("coder", "{SECRET}", params={{"temperature": 0.5}})')

    assert (result["text"], result["provider"]) == ("hi there", "acme")
    assert (result["finish_reason"], result["request_id"]) == ("stop", "r-1")
    assert result["usage"]["input_tokens"] == 1000
    sent = gateway.asked[0]
    assert sent["headers"]["authorization"] == f"Bearer {KEY}"
    assert sent["body"]["turns"] == [{"role": "user", "content": [{"text": SECRET}]}]
    assert sent["body"]["temperature"] == 0.5
    cost_usd = float(result["cost_usd"])
    assert cost_usd > 0
    assert "accepts the key" in workers.command("breakwater", "doctor").stdout
    check_ledger(workers, redis_url, cost_usd)
    check_metrics(workers, cost_usd)
    check_span(workers, collector, cost_usd)
    for secret in (KEY, SECRET, "sending {", "httpx2", "httpcore2"):
        assert secret not in workers.logs()


def check_ledger(workers: Fleet, redis_url: str, cost_usd: float) -> None:
    """The row's price list has priced the call."""
    client = redis.Redis.from_url(redis_url)
    wait_for(lambda: client.xlen("ledger") == 0, explain=workers.logs)
    exported = workers.command("breakwater", "ledger", "export", "--format", "json")
    assert exported.returncode == 0, exported.stderr
    [row] = map(json.loads, exported.stdout.splitlines())
    assert (row["provider"], row["price_source"]) == ("acme", "genai-prices")
    assert float(row["cost_usd"]) == pytest.approx(cost_usd)


def check_metrics(workers: Fleet, cost_usd: float) -> None:
    """The worker's metrics name the provider."""
    port = int(workers.environ["METRICS_PORT"])
    seen = wait_for(lambda: (s := scrape(port)).sum("breakwater_tasks_total") >= 1 and s)
    assert seen.sum("breakwater_attempts_total", provider="acme", outcome="succeeded") == 1
    assert seen.sum("breakwater_input_tokens_total", provider="acme") == 1000
    assert seen.sum("breakwater_cost_usd_total", provider="acme") == pytest.approx(cost_usd)


def check_span(workers: Fleet, collector: Collector, cost_usd: float) -> None:
    """The span of the call has the row's name for OpenTelemetry."""
    wait_for(lambda: collector.named("chat"), explain=workers.logs)
    attributes = collector.named("chat")[0].attributes
    assert attributes["gen_ai.provider.name"] == "acme"
    assert attributes["gen_ai.response.model"] == "gpt-6-luna"
    assert attributes["breakwater.cost_usd"] == pytest.approx(cost_usd)


def test_its_row_decides_which_media_and_parameters_it_takes(
    workers: Fleet, gateway: Loopback
) -> None:
    """Also for a producer without the package: it reads the roles that the worker publishes."""
    text = workers.roles_file.read_text()
    workers.roles_file.write_text(
        text.replace("coder: {", "strict: {drop_params: false, chain: [acme]}\n  coder: {")
    )
    workers.start()

    image = ask(workers, f'complete.delay("coder", {PROMPT.replace("KIND", "image")})')
    dropped = ask(workers, 'complete.delay("coder", "hi", params={"seed": 1})')
    document = run_without_package(
        workers, FAILURE.replace("PROMPT", PROMPT.replace("KIND", "document"))
    )
    refused = run_without_package(workers, REFUSED)
    with_file = workers.run(WITH_FILE.replace("SITE", workers.environ["PYTHONPATH"]))

    assert image["text"] == dropped["text"] == "hi there"
    shown, plain, _ = [sent["body"] for sent in gateway.asked]
    assert shown["turns"][0]["content"] == [{"text": "look"}, {"image": "https://acme.example/a"}]
    assert "seed" not in plain
    assert document.split()[0] == "UnsupportedInput"
    assert "acme: takes no document" in document
    assert refused.strip() == (
        "params.seed: provider 'acme': Acme's gateway does not take it; "
        "leave it out, or set drop_params: true for role 'strict'"
    )
    assert with_file.split() == ["hi", "there", "UnknownRole"]


def test_faults_that_it_translates_open_its_breaker(
    workers: Fleet, gateway: Loopback, redis_url: str
) -> None:
    """Two answers 503 open it; the tasks are answered after the probe."""
    good = gateway.body
    gateway.answer({"error": "overloaded"}, 503)
    workers.start()
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    workers.run('from tasks import complete; [complete.delay("coder", "hi") for _ in range(2)]')
    wait_for(lambda: client.hget("breaker:{acme}", "state") == "open", explain=workers.logs)
    reason = client.hget("breaker:{acme}", "reason")

    gateway.answer(good)

    assert ask(workers, 'complete.delay("coder", "hi")')["text"] == "hi there"
    assert reason == "Overloaded"


def test_it_is_detected_by_its_key_where_there_is_no_roles_file(
    workers: Fleet, gateway: Loopback
) -> None:
    """The row names the variables of the key, the address and the model."""
    workers.roles_file.unlink()
    del workers.environ["ROLES_FILE"]
    workers.environ["ACME_BASE_URL"] = gateway.url
    workers.start()

    result = ask(workers, 'complete.delay("anything", "hi")')

    assert (result["provider"], result["text"]) == ("acme", "hi there")
    assert gateway.asked[0]["body"]["model"] == "gpt-6-luna"
