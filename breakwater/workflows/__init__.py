"""
Workflows: several completions, one after the other, each built on those before it.

    template.py    `{input}`, `{plan}`, `{plan.data.title}`: what a prompt is made of
    definition.py  stages and loops, checked whole: every fault at once
    progress.py      what comes next, by what has come to an end
    run_store.py   a run in Redis, each step one script; scripts/workflow.lua has the table of keys
    summary.py       what is kept and told of a stage's end
    step.py        the Celery task `workflow`, which stands behind each stage
    run.py         a run in the hands of who started it
    api.py         `workflow("feature").delay("Add a login page")`
"""

from breakwater.workflows.api import Workflow, Workflows, workflow
from breakwater.workflows.definition import Definition, Loop, Stage, Until
from breakwater.workflows.run import Run

__all__ = ["Definition", "Loop", "Run", "Stage", "Until", "Workflow", "Workflows", "workflow"]
