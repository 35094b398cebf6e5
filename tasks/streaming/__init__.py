"""Streams: what a task's provider says, read while the task runs."""
