"""
Workflows: several completions, one after the other, each built on the earlier ones.

    template.py    prompts with references: `{input}`, `{plan}`, `{plan.data.title}`
    definition.py  stages and loops, and the check that reports every fault at once
    section.py     the section `workflows` of the roles file
    progress.py    what comes next in a run, given the stages that have ended
    run_store.py   runs in Redis, one script per step; scripts/workflow.lua explains the keys
    summary.py     the facts that are stored and logged when a stage ends
    step.py        the Celery task `workflow`, which advances a run after each stage
    run.py         the caller's view of a run: state, result, cancel, resume
    api.py         `workflow("feature").delay("Add a login page")`
"""

from breakwater.workflows.api import Workflow, Workflows, workflow
from breakwater.workflows.definition import Definition, Loop, Stage, Until
from breakwater.workflows.run import Run, RunState, WorkflowResult

__all__ = [
    "Definition",
    "Loop",
    "Run",
    "RunState",
    "Stage",
    "Until",
    "Workflow",
    "WorkflowResult",
    "Workflows",
    "workflow",
]
