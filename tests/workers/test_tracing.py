"""Traces of real workers, as an OTLP collector gets them."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulator.client import Simulator
from tests.support.collector import Collector, Span
from tests.support.fleet import Fleet, fleet, wait_for
from tests.support.ports import free_port

pytestmark = pytest.mark.four_adapters

SECRET = "PROMPT-THAT-NOBODY-MAY-SEE"
TRACED = """
import json, sys
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
from celery import chain
from tasks import complete
with trace.get_tracer("app").start_as_current_span("request") as span:
    result = ASK
    print(format(span.get_span_context().trace_id, "032x"), result.id)
result.get(timeout=180, propagate=False)
provider.shutdown()
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture
def workers(redis_url: str, roles: str, collector: Collector) -> Iterator[Fleet]:
    """A fleet that tells the collector, no worker started yet."""
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_METRIC_EXPORT_INTERVAL": "300",
    }
    with fleet(redis_url, roles, environ) as those:
        yield those


def traced(workers: Fleet, ask: str) -> tuple[str, str]:
    """Ask from a traced application; return the trace's id and the task's."""
    trace, task_id = workers.run(TRACED.replace("ASK", ask)).split()
    return trace, task_id


def one(spans: list[Span]) -> Span:
    assert len(spans) == 1, spans
    return spans[0]


def told_of(collector: Collector, metric: str, attribute: str) -> set[str]:
    points = collector.metrics.get(f"gen_ai.client.inference.{metric}", ())
    return {point[attribute] for point in points}


@pytest.mark.parametrize("pool", ["threads", "prefork", "gevent", "solo"])
def test_one_trace_leads_from_the_producer_to_each_attempt(
    pool: str, workers: Fleet, simulator: Simulator, collector: Collector
) -> None:
    """Sent, processed, a call that failed and one that was answered, each with what it must say."""
    simulator.fault("local", status=503)
    workers.start(1, pool, 2)

    trace, task_id = traced(workers, f'complete.delay("coder", "{SECRET}")')

    wait_for(lambda: len(collector.spans) >= 5, explain=workers.logs)
    # None of an SDK's own: its tokens would count twice.
    assert sorted(s.scope for s in collector.spans) == ["app", *["breakwater"] * 4]
    send, process = one(collector.named("send")), one(collector.named("process"))
    failed, answered = collector.named("chat")
    assert {span.trace for span in collector.spans} == {trace}
    assert (send.name, send.kind) == ("send role.coder", "producer")
    assert (process.name, process.kind) == ("process role.coder", "consumer")
    assert (process.parent, process.links) == (send.id, [send.id])
    assert [failed.parent, answered.parent] == [process.id, process.id]
    for span, operation in ((send, "send"), (process, "process")):
        assert span.attributes == {
            "messaging.system": "celery", "messaging.operation.name": operation,
            "messaging.operation.type": operation, "messaging.destination.name": "role.coder",
            "messaging.message.id": task_id, "breakwater.role": "coder",
        }  # fmt: skip
    assert (failed.name, failed.kind, failed.is_error) == ("chat qwen3", "client", True)
    assert failed.attributes["error.type"] == "Overloaded"
    assert failed.attributes["gen_ai.provider.name"] == "local"
    hit = simulator.hits("claude")[0]
    told = answered.attributes
    assert (answered.name, answered.is_error) == ("chat claude-haiku-5-5", False)
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.provider.name"] == "anthropic"
    assert told["gen_ai.request.model"] == told["gen_ai.response.model"] == "claude-haiku-5-5"
    assert told["gen_ai.response.finish_reasons"] == ["stop"]
    assert told["gen_ai.response.id"] == f"msg_{hit['seq']:024d}"
    assert told["gen_ai.usage.input_tokens"] == hit["input_tokens"]
    assert told["gen_ai.usage.output_tokens"] == hit["output_tokens"]
    assert told["server.address"] == "127.0.0.1"
    assert told["server.port"] == int(simulator.base_url.rpartition(":")[2])
    assert process.resource["service.name"] == "breakwater"
    # Exported every 300 ms: at first, maybe, of the failed call alone.
    wait_for(
        lambda: told_of(collector, "duration", "gen_ai.provider.name") == {"local", "anthropic"}
    )
    tokens = told_of(collector, "usage.input_tokens", "gen_ai.token.modality")
    assert tokens == {"text", "unknown"}
    assert SECRET not in json.dumps([str(span) for span in collector.spans])
    assert "answer to" not in json.dumps([str(span) for span in collector.spans])


def test_the_stages_of_a_chain_are_one_trace(workers: Fleet, collector: Collector) -> None:
    """The second is sent by the worker of the first; both began with one request."""
    workers.start()

    trace, _ = traced(
        workers, 'chain(complete.s("planner", "hi"), complete.s("clarifier")).delay()'
    )

    wait_for(lambda: len(collector.named("process")) == 2, explain=workers.logs)
    assert {span.trace for span in collector.spans} == {trace}
    assert {span.name for span in collector.named("process")} == {
        "process role.planner", "process role.clarifier",
    }  # fmt: skip


@pytest.mark.slow
def test_a_failed_task_is_an_error_and_what_was_passed_over_an_event(
    workers: Fleet, simulator: Simulator, collector: Collector
) -> None:
    """The error's class alone: its message may quote the prompt."""
    simulator.fault("local", status=401)
    simulator.fault("gpt", status=400)
    workers.start()

    traced(workers, f'complete.delay("planner", "{SECRET}")')
    traced(workers, f'complete.delay("coder", "{SECRET}")')
    traced(workers, f'complete.delay("coder", "{SECRET}")')

    wait_for(lambda: len(collector.named("process")) == 3, explain=workers.logs)
    refused, _, passed_over = collector.named("process")
    assert refused.is_error
    assert refused.attributes["error.type"] == "InvalidRequest"
    [(name, event)] = passed_over.events
    assert name == "breakwater.rejected"
    assert (event["breakwater.provider"], event["error.type"]) == ("local", "BreakerOpen")
    assert event["breakwater.why"].startswith("open (AuthenticationFailed)")
    assert SECRET not in str(collector.spans)


@pytest.mark.slow
def test_an_answer_from_the_cache_is_an_event(workers: Fleet, collector: Collector) -> None:
    """There is no call to span; the delivery says whose answer it was."""
    text = workers.roles_file.read_text()
    workers.roles_file.write_text(text + "  shared: {chain: [gpt], cache: {ttl_s: 60}}\n")
    workers.start()

    for _ in range(2):
        traced(workers, 'complete.delay("shared", "hi")')

    wait_for(lambda: len(collector.named("process")) == 2, explain=workers.logs)
    assert len(collector.named("chat")) == 1
    [(name, event)] = collector.named("process")[1].events
    assert (name, event["breakwater.provider"]) == ("breakwater.cached", "gpt")
    assert event["breakwater.why"] == "answered by the response cache"


def test_the_older_names_come_with_the_standard_switch(
    workers: Fleet, collector: Collector
) -> None:
    """Beside the newest, for backends that know only those."""
    workers.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "http, gen_ai/dup"
    workers.start()

    traced(workers, 'complete.delay("clarifier", "hi")')

    wait_for(lambda: "gen_ai.client.token.usage" in collector.metrics, explain=workers.logs)
    wait_for(lambda: collector.named("chat"), explain=workers.logs)  # they come by another post
    told = one(collector.named("chat")).attributes
    assert told["gen_ai.system"] == told["gen_ai.provider.name"] == "anthropic"
    kinds = {p["gen_ai.token.type"] for p in collector.metrics["gen_ai.client.token.usage"]}
    assert kinds == {"input", "output"}
    assert "gen_ai.client.operation.duration" in collector.metrics
    assert "gen_ai.client.inference.duration" in collector.metrics


@pytest.mark.slow
def test_a_collector_that_is_away_holds_up_nothing(workers: Fleet) -> None:
    """Tasks are answered, and a worker that stops does not wait for it."""
    workers.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{free_port()}"
    workers.start()

    workers.run('from tasks import complete; complete.delay("clarifier", "hi").get(timeout=180)')
    workers.workers[0].send_signal(signal.SIGTERM)

    assert workers.workers[0].wait(180) == 0


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkinn"}, "OTEL_TRACES_EXPORTER: no exporter 'zipkinn' is installed"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "pigeon"}, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: no exporter 'pigeon' is installed"),
    ],
)  # fmt: skip
def test_an_exporter_that_is_none_stops_the_worker(
    environ: dict[str, str], said: str, workers: Fleet
) -> None:
    """Else somebody would wait for traces that never come."""
    workers.environ.update(environ)
    workers.start_one("threads", 1)

    assert workers.workers[0].wait(180) == 78
    assert said in workers.log()


BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("opentelemetry.sdk"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
"""


@pytest.mark.slow
def test_a_worker_without_the_extra_says_so_and_works(workers: Fleet, tmp_path: Path) -> None:
    """A cluster may set the variables for everybody."""
    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    workers.environ["PYTHONPATH"] = str(tmp_path)
    workers.start()

    workers.run('from tasks import complete; complete.delay("clarifier", "hi").get(timeout=180)')

    assert "pip install 'breakwater-llm[otel]'" in workers.log()
