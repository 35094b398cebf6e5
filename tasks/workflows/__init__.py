"""
What a worker does between the stages of a workflow; `breakwater.workflows` has the rest.

    advance.py     the body of the Celery task `workflow`, which stands behind each stage
"""

from breakwater.workflows import Definition, Loop, Run, Stage, Until, Workflow, Workflows, workflow

__all__ = ["Definition", "Loop", "Run", "Stage", "Until", "Workflow", "Workflows", "workflow"]
