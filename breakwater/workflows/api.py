"""`workflow`: the way to a workflow of the roles file or of code, and back to a run."""

import os
from collections.abc import Sequence
from uuid import uuid4

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from breakwater.calls.call import CompletionCall
from breakwater.calls.value_types import NAME
from breakwater.celery_app import app
from breakwater.config import role_names, roles_path
from breakwater.errors import InvalidOption, InvalidPrompt, UnknownWorkflow, nearest
from breakwater.messaging.journal import whoami
from breakwater.redis.connection import unavailable
from breakwater.workflows.definition import Definition, Loop, Stage
from breakwater.workflows.progress import initial_stage_runs
from breakwater.workflows.run import Run
from breakwater.workflows.run_store import RunStore
from breakwater.workflows.step import step


class Workflow:
    """
    A workflow, ready to be run.

    Args:
        definition: What it goes by; a run keeps its own copy.
    """

    def __init__(self, definition: Definition) -> None:
        self.definition = definition

    def delay(self, given: str, *, run_id: str | None = None) -> Run:
        """
        Begin a run.

        Args:
            given: What its prompts call `{input}`.
            run_id: Its own, made here if None; the same id is one run, however often it is begun.

        Raises:
            InvalidPrompt: The input is not a text, is blank, or is larger than a prompt may be.
            InvalidOption: The `run_id` cannot be one.
            QueueUnavailable: Redis refuses, or does not answer; `details` has the `run_id`.
        """
        if not isinstance(given, str) or not given.strip():
            raise InvalidPrompt("the input of a workflow must be a text that says something")
        CompletionCall.of(
            "any", given, {}
        )  # each stage's prompt is checked when its turn comes, this one now
        run = Run(run_id or str(uuid4()))
        if not NAME.fullmatch(run.id):
            raise InvalidOption(f"{run.id[:80]!r} cannot be a run_id; allowed is {NAME.pattern}")
        stage_runs = initial_stage_runs(self.definition)
        try:
            RunStore(app.backend.client).start(run.id, self.definition, given, stage_runs, whoami())
            step.apply_async(kwargs={"run": run.id})
        except (OperationalError, RedisError) as error:
            raise unavailable(
                "the run was not begun",
                error,
                f"then begin it again under the same run_id {run.id!r}",
                {"run_id": run.id},
            ) from error
        return run


class Workflows:
    """What `workflow` is: called with a name or with stages, it gives a `Workflow`."""

    def __call__(self, what: str | Sequence[Stage | Loop], *, name: str = "") -> Workflow:
        """
        Find a workflow of the roles file by its name, or make one of stages.

        Args:
            name: What runs of these stages are called.

        Raises:
            UnknownWorkflow: The roles file has none of this name.
            InvalidWorkflow: The stages have faults; all of them are listed.
            ConfigError: The roles file's workflows have faults.
        """
        if isinstance(what, str):
            return Workflow(_of_roles_file(what))
        return Workflow(Definition.of(name, what, role_names()))

    def run(self, run_id: str) -> Run:
        """Take up a run; whether there is one is told when it is looked at."""
        return Run(run_id)


workflow = Workflows()


def _of_roles_file(name: str) -> Definition:
    from breakwater.workflows import section  # noqa: PLC0415 - it reads YAML

    known = section.load()
    if name not in known:
        there = f"there are {', '.join(sorted(known))}" if known else "the roles file has none"
        if not known and roles_path(os.environ) is None:
            there = "this process has no roles file to read it from; set ROLES_FILE"
        raise UnknownWorkflow(f"unknown workflow {name[:80]!r}; {there}{nearest(name, known)}")
    return known[name]
