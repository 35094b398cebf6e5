"""
Old import paths: modules that moved out of `tasks`, importable by their names of version 0.1.

An old name gives the very module that it moved to, so that classes stay the same, and a
DeprecationWarning that says the new name. The module then has the old names of its classes and
functions, too. Version 0.3 removes this file.
"""

import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED: Mapping[str, str] = {
    "tasks.call": "breakwater.calls.call",
    "tasks.completion": "breakwater.completion",
    "tasks.connection": "breakwater.redis.connection",
    "tasks.deadletters": "tasks.operations.dead_letters",
    "tasks.encryption": "breakwater.redis.encryption",
    "tasks.langchain": "breakwater.langchain",
    "tasks.langchain.answers": "breakwater.langchain.answers",
    "tasks.langchain.messages": "breakwater.langchain.messages",
    "tasks.langchain.model": "breakwater.langchain.model",
    "tasks.langchain.tools": "breakwater.langchain.tools",
    "tasks.ledger.attempt": "breakwater.attempt",
    "tasks.messages": "breakwater.calls.messages",
    "tasks.options": "breakwater.calls.options",
    "tasks.providers.transport": "tasks.providers.http.transport",
    "tasks.queue": "breakwater.celery_app",
    "tasks.schema": "breakwater.calls.schema",
    "tasks.streaming.events": "breakwater.asking.events",
    "tasks.streaming.reader": "breakwater.asking.reader",
    "tasks.workflows.definition": "breakwater.workflows.definition",
    "tasks.workflows.template": "breakwater.workflows.template",
}
"""The new name of each module by its old one."""

RENAMED: Mapping[str, Mapping[str, str]] = {
    "tasks.call": {
        "Call": "breakwater.calls.call:CompletionCall",
        "bind": "breakwater.calls.call:bind_arguments",
    },
    "tasks.connection": {"heals": "breakwater.redis.connection:is_transient"},
    "tasks.deadletters": {"Wanted": "tasks.operations.dead_letters:LetterFilter"},
    "tasks.messages": {
        "as_json": "breakwater.calls.messages:prompt_as_json",
        "messages_of": "breakwater.calls.messages:parse_prompt",
    },
    "tasks.options": {"as_they_travel": "breakwater.calls.options:to_wire"},
    "tasks.queue": {
        "QUEUE": "breakwater.messaging.names:QUEUE",
        "STEP": "breakwater.messaging.names:WORKFLOW_TASK",
        "queue_of": "breakwater.messaging.names:queue_of",
        "role_in": "breakwater.messaging.names:role_in",
        "shadow_name": "breakwater.messaging.names:shadow_name",
    },
    "tasks.schema": {
        "Reading": "breakwater.calls.schema:ParsedAnswer",
        "Shape": "breakwater.calls.schema:CompiledSchema",
        "fault_of": "breakwater.calls.schema:schema_fault",
        "schema_of": "breakwater.calls.schema:pydantic_schema",
        "shape_of": "breakwater.calls.schema:compile_schema",
    },
    "tasks.streaming.events": {"key_of": "breakwater.asking.events:stream_key"},
}
"""The new place of each renamed class and function, by the old name of its module."""


class _Alias:
    """Load an old name as the module of the new name."""

    def __init__(self, old: str) -> None:
        self._module = import_module(MOVED[old])
        self._renamed = RENAMED.get(old, {})
        self._spec = self._module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import system has put the old name's there
        for name, place in self._renamed.items():
            owner, _, new_name = place.partition(":")
            setattr(module, name, getattr(import_module(owner), new_name))


class MovedFinder:
    """Find the modules of `MOVED`; the import system asks it for every module, first."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how to load an old name; None for all others."""
        if name not in MOVED:
            return None
        warnings.warn(f"{name} is now {MOVED[name]}", DeprecationWarning, stacklevel=2)
        return ModuleSpec(name, _Alias(name))  # type: ignore[arg-type] # typeshed wants a class of importlib's


def install() -> None:
    """Make the old names importable in this process."""
    # First, since the files of a package that moved would else be found a second time.
    sys.meta_path.insert(0, MovedFinder)
