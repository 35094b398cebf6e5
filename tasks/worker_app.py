"""The app as a worker runs it: the client's, with an atomic take and the tasks' bodies."""

from breakwater.completion import app

__all__ = ["app"]

app.conf.update(
    broker_transport="tasks.delivery.worker_transport:Transport",
    worker_consumer="tasks.delivery.consumer:Consumer",
    include=["tasks.answering.task", "tasks.workflows.advance"],
)
