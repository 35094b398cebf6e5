"""
The worker's part of workflows; `breakwater.workflows` has the rest.

    advance.py     the body of the Celery task `workflow`, which runs after each stage
"""

from breakwater.workflows import Definition, Loop, Run, Stage, Until, Workflow, Workflows, workflow

__all__ = ["Definition", "Loop", "Run", "Stage", "Until", "Workflow", "Workflows", "workflow"]
