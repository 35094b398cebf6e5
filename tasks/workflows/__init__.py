"""
Workflows: several completions, one after the other, each built on those before it.

    template.py    `{input}`, `{plan}`, `{plan.data.title}`: what a prompt is made of
    definition.py  stages and loops, checked whole: every fault at once
    course.py      what comes next, by what has come to an end
    store.py       a run in Redis, each step one script; scripts/workflow.lua has the table of keys
    facts.py       what is kept and told of a stage's end
    advance.py     the Celery task `workflow`, which stands behind each stage
    run.py         a run in the hands of who started it
    door.py        `workflow("feature").delay("Add a login page")`
"""

from tasks.workflows.definition import Definition, Loop, Stage, Until
from tasks.workflows.door import Workflow, Workflows, workflow
from tasks.workflows.run import Run

__all__ = ["Definition", "Loop", "Run", "Stage", "Until", "Workflow", "Workflows", "workflow"]
