"""The Celery app of every rival that has none of its own, as safe as stock Celery can be."""

from collections.abc import Callable

from celery import Celery

from benchmarks.rivals.experiment import Experiment


def app_for(experiment: Experiment, ask: Callable[[str, str], str]) -> Celery:
    """
    Return an app whose task `ask` takes a role and a prompt.

    https://docs.celeryq.dev/en/stable/userguide/optimizing.html#reserve-one-task-at-a-time has late
    acknowledgement and a prefetch multiplier of 1 for long tasks; a thread-safe result backend
    keeps one pool of connections for all threads, where the default makes one for each.
    """
    app = Celery("rival", broker=experiment.redis_url, backend=experiment.redis_url)
    app.conf.update(
        task_acks_late=True, worker_prefetch_multiplier=1, result_backend_thread_safe=True
    )
    app.task(ask, name="ask")
    return app
