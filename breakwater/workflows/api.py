"""`workflow`: get a workflow of the roles file or of code, or a run by its id."""

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
    A workflow that is ready to run.

    Args:
        definition: Its stages; each run stores its own copy.
    """

    def __init__(self, definition: Definition) -> None:
        self.definition = definition

    def delay(self, given: str, *, run_id: str | None = None) -> Run:
        """
        Start a run.

        Args:
            given: The text for `{input}` in the prompts.
            run_id: The id of the run; None: a new one. Starting the same id again starts nothing.

        Raises:
            InvalidPrompt: The input is not a text, is blank, or is larger than a prompt may be.
            InvalidOption: The `run_id` is not a valid id.
            QueueUnavailable: Redis refuses, or does not answer; `details` has the `run_id`.
        """
        if not isinstance(given, str) or not given.strip():
            raise InvalidPrompt("the input of a workflow must be a text that says something")
        # checks the input; stages check their own prompts later
        CompletionCall.of("any", given, {})
        run = Run(run_id or str(uuid4()))
        if not NAME.fullmatch(run.id):
            raise InvalidOption(f"{run.id[:80]!r} cannot be a run_id; allowed is {NAME.pattern}")
        stage_runs = initial_stage_runs(self.definition)
        try:
            RunStore(app.backend.client).start(run.id, self.definition, given, stage_runs, whoami())
            step.apply_async(kwargs={"run": run.id})
        except (OperationalError, RedisError) as error:
            raise unavailable(
                "the run was not started",
                error,
                f"then start it again under the same run_id {run.id!r}",
                {"run_id": run.id},
            ) from error
        return run


class Workflows:
    """The type of `workflow`: called with a name or with stages, it returns a `Workflow`."""

    def __call__(self, what: str | Sequence[Stage | Loop], *, name: str = "") -> Workflow:
        """
        Find a workflow of the roles file by its name, or build one from stages.

        Args:
            what: The name, or the stages.
            name: A name for a workflow of these stages.

        Raises:
            UnknownWorkflow: The roles file has no workflow of this name.
            InvalidWorkflow: The stages have faults; the message lists all of them.
            ConfigError: The workflows of the roles file have faults.
        """
        if isinstance(what, str):
            return Workflow(_of_roles_file(what))
        return Workflow(Definition.of(name, what, role_names()))

    def run(self, run_id: str) -> Run:
        """Return a run by its id; its methods raise UnknownRun if it does not exist."""
        return Run(run_id)


workflow = Workflows()


def _of_roles_file(name: str) -> Definition:
    from breakwater.workflows import section  # noqa: PLC0415 - it reads YAML

    known = section.load()
    if name not in known:
        reason = "the roles file has none"
        if known:
            reason = f"there are {', '.join(sorted(known))}"
        elif roles_path(os.environ) is None:
            reason = "this process has no roles file to read it from; set ROLES_FILE"
        raise UnknownWorkflow(f"unknown workflow {name[:80]!r}; {reason}{nearest(name, known)}")
    return known[name]
