"""The files in deploy/: every query is one, of metrics that there are, and Prometheus takes it."""

import json
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from simulator.client import Simulator
from tests.support.fleet import fleet, wait_for
from tests.support.ports import free_port
from tests.support.queries import DASHBOARD, DEPLOY, RULES, of_dashboard, of_rules, of_scaling
from workers.metrics import definitions

QUERIES = {**of_rules(), **of_dashboard(), **of_scaling()}
ADDED = {"le", "instance", "job"}
"""Labels that no metric of ours lists."""
KNOWN = {
    name: set(metric.labels) | ADDED
    for metric in (*definitions.BY_PROCESS, *definitions.OF_FLEET)
    for name in (
        [f"{metric.name}{part}" for part in ("_bucket", "_sum", "_count")]
        if metric.kind == "histogram"
        else [metric.name]
    )
}
"""By series, the labels it may have."""
ALARMS_OF_AN_OUTAGE = {"BreakwaterBreakerOpen", "BreakwaterRoleParked"}


def selectors(query: str) -> list[promql_parser.VectorSelector]:
    found: list[promql_parser.VectorSelector] = []

    def visit(expr: promql_parser.Expr) -> None:
        if isinstance(expr, promql_parser.VectorSelector):
            found.append(expr)
        elif isinstance(expr, promql_parser.MatrixSelector):
            found.append(expr.vector_selector)

    promql_parser.walk(promql_parser.parse(query), visit)
    return found


@pytest.mark.parametrize("name", QUERIES)
def test_every_query_is_of_metrics_that_there_are(name: str) -> None:
    """A renamed metric or label would leave an alert that never fires, and nobody would know."""
    found = selectors(QUERIES[name])

    assert found
    for selector in found:
        assert selector.name in KNOWN
        for matcher in selector.matchers.matchers:
            assert matcher.name in KNOWN[selector.name]


@pytest.mark.parametrize("name", QUERIES)
def test_every_query_groups_by_labels_that_there_are(name: str) -> None:
    """`sum by (model)` over metrics without one is no error: it is one line without a name."""
    groupings: list[tuple[set[str], str]] = []

    def visit(expr: promql_parser.Expr) -> None:
        if isinstance(expr, promql_parser.AggregateExpr) and expr.modifier:
            groupings.extend(
                (set(expr.modifier.labels), selector.name)
                for selector in selectors(expr.expr.prettify())
            )

    promql_parser.walk(promql_parser.parse(QUERIES[name]), visit)

    for labels, metric in groupings:
        assert labels <= KNOWN[metric]


def test_every_metric_is_on_the_dashboard_or_in_a_rule() -> None:
    """What is exported and shown nowhere is not worth its series."""
    shown = {selector.name for query in QUERIES.values() for selector in selectors(query)}

    names = {m.name for m in (*definitions.BY_PROCESS, *definitions.OF_FLEET)}
    assert {
        name for name in names if name not in shown and f"{name}_bucket" not in shown
    } == {"breakwater_breaker_failures", "breakwater_breaker_forced"}  # shown by the commands  # fmt: skip


def test_every_alert_is_tried_by_a_rule_test() -> None:
    """`promtool test rules` runs them; an alert without one is not tested by anybody."""
    tests = yaml.safe_load((RULES.parent / "rules_test.yml").read_text())["tests"]

    fired = {
        case["alertname"]
        for test in tests
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }

    assert fired == set(of_rules())


def test_the_dashboard_is_whole() -> None:
    """Panels have ids of their own, do not overlap, and take the data source that is chosen."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    cells = [
        (x, y)
        for panel in panels
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]

    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23
    for panel in panels:
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == "${datasource}"


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
@pytest.mark.parametrize(
    "words",
    [
        ("check", "rules", "rules.yml"),
        ("test", "rules", "rules_test.yml"),
        ("check", "config", "prometheus.yml"),
    ],
)
def test_promtool_has_nothing_to_say(words: tuple[str, ...]) -> None:
    """Prometheus' own tool takes the rules, their tests and the example."""
    done = subprocess.run(
        ["promtool", *words], cwd=DEPLOY / "prometheus", capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


class Prometheus:
    """A real one, over one target and our rules, which are not waited for."""

    def __init__(self, folder: Path, target: int) -> None:
        self.port = free_port()
        rules = yaml.safe_load(RULES.read_text())
        for rule in rules["groups"][0]["rules"]:
            rule["for"] = "0s"
        (folder / "rules.yml").write_text(yaml.safe_dump(rules))
        (folder / "prometheus.yml").write_text(
            yaml.safe_dump(
                {
                    "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                    "rule_files": ["rules.yml"],
                    "scrape_configs": [
                        {
                            "job_name": "breakwater",
                            "static_configs": [{"targets": [f"127.0.0.1:{target}"]}],
                        }
                    ],
                }
            )
        )
        self._process = subprocess.Popen(
            [
                "prometheus", f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def ask(self, path: str, **query: str) -> Any:
        """Ask its API; None while it does not answer."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from None
        except OSError:
            return None

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator.start() as running:
        yield running


def outage(simulator: Simulator) -> str:
    """One provider that dies, one that answers."""
    return f"""
providers:
  claude: {{adapter: anthropic, model: m, api_key: k, base_url: "{simulator.url("claude")}", breaker: {{fail_max: 3, reset_timeout_s: 600}}, prices: {{"*": {{input_tokens: 1, output_tokens: 5}}}}}}
  local: {{adapter: openai-chat, model: qwen3, api_key: none, base_url: "{simulator.url("local")}/v1", prices: {{"*": {{input_tokens: 1, output_tokens: 5}}}}}}
roles:
  coder: {{chain: [claude, local]}}
  lonely: {{chain: [claude], deadline_s: 900}}
"""


ASK = """
from tasks import complete
results = [complete.delay("coder", f"prompt {n}") for n in range(20)]
for result in results:
    result.get(timeout=60)
complete.delay("lonely", "hi")
"""


@pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus is not installed")
def test_a_real_prometheus_answers_every_query(
    redis_url: str, simulator: Simulator, tmp_path: Path
) -> None:
    """Of a fleet with a tripped breaker: no query is an error, and those that should have data do."""
    port = free_port()
    environ = {"METRICS_PORT": str(port), "TMPDIR": str(tmp_path)}
    simulator.fault("claude", status=503)
    prometheus = Prometheus(tmp_path, port)
    try:
        with fleet(redis_url, outage(simulator), environ) as workers:
            workers.start()

            def scraped() -> bool:
                told = prometheus.ask("query", query="breakwater_workers")
                return bool(told and told["result"])

            wait_for(scraped, 30)
            workers.run(ASK)

            def firing() -> set[str]:
                alerts = prometheus.ask("alerts")["alerts"]
                return {a["labels"]["alertname"] for a in alerts if a["state"] == "firing"}

            wait_for(lambda: firing() >= ALARMS_OF_AN_OUTAGE, 30, firing)
            answers: dict[str, Any] = {}

            def without() -> set[str]:
                """A rate needs a second scrape after the first count."""
                for name, query in of_dashboard().items():
                    answers[name] = prometheus.ask("query", query=query)["result"]
                return {name for name, answer in answers.items() if not answer}

            # Nobody paused a queue, and nothing was put aside until it is due.
            wait_for(lambda: without() <= {"Held B", "Held C"}, 30, without)
            alarms = firing()
    finally:
        prometheus.stop()

    assert alarms == ALARMS_OF_AN_OUTAGE
    assert answers["Breakers not closed A"][0]["value"][1] == "1"
    states = {a["metric"]["breaker"]: a["value"][1] for a in answers["Breakers A"]}
    assert states == {"claude": "2", "local": "0"}
