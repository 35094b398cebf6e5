"""Who is measured, and how each is started."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rival:
    """One way to have prompts answered."""

    name: str
    title: str
    """As the tables call it."""
    command: tuple[str, ...]
    """Of a worker; `{calls}` stands for its calls at once, `{number}` for its own number."""
    producer: str | None = "celery"
    """As `benchmarks.rivals.producer` calls it; None: nothing can be enqueued."""
    requirements: str | None = None
    """The file of its own environment; None: the one of the benchmarks."""
    result_key: str = "celery-task-meta-"
    """Before the task's id, where its result is in Redis."""
    only_outage: bool = False
    """While all is well it costs what the other set-up of the same costs."""


def _celery(app: str) -> tuple[str, ...]:
    # Whatever Celery does by default (gossip, mingle, heartbeats, events off) it does for all.
    return (
        *("celery", "-A", app, "worker", "--pool", "threads"),
        *("--concurrency", "{calls}", "--hostname", "w{number}@%h"),
    )


RIVALS = (
    Rival("breakwater", "Breakwater", _celery("workers"), "breakwater"),
    Rival("celery", "Celery + SDK", _celery("benchmarks.rivals.sdk_celery")),
    Rival(
        "sdk", "SDK in threads, no queue",
        ("python", "-m", "benchmarks.rivals.sdk_threads", "{role}", "{prompts}"), None,
    ),
    Rival(
        "taskiq", "taskiq + async SDK",
        ("taskiq", "worker", "benchmarks.rivals.taskiq_sdk:broker", "--workers", "1",
         "--max-async-tasks", "{calls}", "--log-level", "WARNING"),
        "taskiq", "taskiq", "",
    ),
    Rival(
        "litellm", "Celery + LiteLLM Router", _celery("benchmarks.rivals.litellm_celery"),
        requirements="litellm", only_outage=True,
    ),
    Rival(
        "litellm-tuned", "Celery + LiteLLM Router, tuned",
        _celery("benchmarks.rivals.litellm_tuned"), requirements="litellm",
    ),
    Rival(
        "pydantic-ai", "Celery + pydantic-ai FallbackModel",
        _celery("benchmarks.rivals.pydantic_celery"), requirements="pydantic-ai",
    ),
    Rival(
        "langchain", "Celery + LangChain with_fallbacks",
        _celery("benchmarks.rivals.langchain_celery"), requirements="langchain",
    ),
    Rival(
        "langchain-tuned", "Celery + LangChain with_fallbacks, no retries",
        _celery("benchmarks.rivals.langchain_tuned"), requirements="langchain",
        only_outage=True,
    ),
)  # fmt: skip
BY_NAME = {rival.name: rival for rival in RIVALS}
BASE = "celery"
"""Whom all are compared with."""
