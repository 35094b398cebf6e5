"""
Every private name of a library that this code relies on, and its signature where it is overridden.

A library may change a private name in any release. So pyproject.toml bounds each library from
above, and before a bound is raised this test shows what is gone. docs/libraries.md says what to do.
"""

import ast
import importlib
import inspect
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent
OURS = ("breaker", "breakwater", "tasks", "workers")
LIBRARIES = {
    "anthropic", "billiard", "celery", "cryptography", "google", "httpcore2", "httpx2", "kombu",
    "langchain_core", "openai", "opentelemetry", "pybreaker", "redis",
}  # fmt: skip
BOUNDS = {
    "celery": "5.8", "kombu": "5.8", "redis": "9", "pybreaker": "2", "anthropic": "3",
    "openai": "4", "google-genai": "4", "httpx2": "3", "httpcore2": "3", "langchain-core": "2",
}  # fmt: skip
"""The first release of each library that is not allowed."""
NOT_PRIVATE = {"_abc_impl", "_is_protocol"}
"""Python sets these on a class itself."""

CHAT = (
    "(self, messages: 'list[BaseMessage]', stop: 'list[str] | None' = None, "
    "run_manager: '{} | None' = None, **kwargs: 'Any') -> '{}'"
)


@dataclass(frozen=True, slots=True)
class Reliance:
    """
    The private names of one class that our code uses.

    Attributes:
        owner: The library's class, as module:class.
        reason: What our code does with them.
        names: Each name, and its signature if a class of ours overrides it; else empty.
    """

    owner: str
    reason: str
    names: Mapping[str, str]


RELIED_ON = (
    Reliance(
        "anthropic:Anthropic",
        "the URL of a path is built once, not in each call",
        {
            "_prepare_url": "(self, url: 'str') -> 'URL'",
        },
    ),
    Reliance(
        "billiard.pool:Pool",
        "a worker that stops ends the children that still run",
        {
            "_pool": "",
        },
    ),
    Reliance(
        "celery.app.amqp:AMQP",
        "messages carry the time that a caller meant as a span, not as a moment of its clock",
        {
            "_create_task_sender": "(self)",
            "_retry_publish": "",
        },
    ),
    Reliance(
        "celery.app.base:Celery",
        "a listener in a forked child must not share its parent's connection",
        {
            "_after_fork": "",
        },
    ),
    Reliance(
        "celery.backends.redis:RedisBackend",
        "a result is written once; a chord's part is counted by Celery's scripts, repeated while Redis is down",
        {
            "_call_task_errbacks": "(self, request, exc, traceback)",
            "_chord_claim_extend_script": "",
            "_chord_cleanup_script": "",
            "_chord_part_return_script": "",
            "_chord_publish_claim_expires": "",
            "_chord_result_expires": "",
            "_chord_zset": "",
            "_get_pool": "(self, **params)",
            "_get_result_meta": "",
            "_params_from_url": "(self, url, defaults)",
            "_store_result": "(self, task_id, result, state, traceback=None, request=None, **kwargs)",
            "_unpack_chord_result": "",
        },
    ),
    Reliance(
        "celery.backends.redis:ResultConsumer",
        "one subscription for all waiting threads, renewed when its connection is lost",
        {
            "_after_fork": "",
            "_get_key_for_task": "",
            "_pubsub": "",
            "_wait_for_pending": "(self, result, timeout=None, on_interval=None, on_message=None, **kwargs)",
        },
    ),
    Reliance(
        "celery.canvas:Signature",
        "Celery's own options of a call are checked where it is made",
        {
            "_app": "",
            "_type": "",
        },
    ),
    Reliance(
        "celery.concurrency.prefork:TaskPool",
        "as billiard.pool:Pool, which it has",
        {
            "_pool": "",
        },
    ),
    Reliance(
        "celery.result:AsyncResult",
        "a result that was published is stored in the objects that wait for it",
        {
            "_cache": "",
            "_get_task_meta": "",
            "_maybe_set_cache": "",
        },
    ),
    Reliance(
        "celery.worker.consumer:Consumer",
        "an autoscaled pool takes as many messages as it can run",
        {
            "_update_prefetch_count": "",
        },
    ),
    Reliance(
        "celery.worker.worker:WorkController",
        "a task that the pool cannot run returns to its queue",
        {
            "_process_task": "",
            "_process_task_sem": "",
            "_quick_release": "",
        },
    ),
    Reliance(
        "cryptography.fernet:MultiFernet",
        "the number of keys is shown, never a key",
        {
            "_fernets": "",
        },
    ),
    Reliance(
        "httpx2:HTTPTransport",
        "the transport sends through a pool of its own",
        {
            "_pool": "",
        },
    ),
    Reliance(
        "kombu.messaging:Producer",
        "a message is encoded as kombu would, without its round trips",
        {
            "_prepare": "",
        },
    ),
    Reliance(
        "kombu.transport.redis:Channel",
        "publishing and taking are one script each",
        {
            "_async_sentinel_manager": "",
            "_brpop_read": "(self, **options)",
            "_brpop_sent_at": "",
            "_brpop_start": "(self, timeout=None)",
            "_expires": "",
            "_flush_brpop_reauth": "",
            "_get_message_priority": "",
            "_get_pool": "(self, asynchronous=False)",
            "_get_subscribe_topics": "",
            "_in_listen": "",
            "_in_poll": "",
            "_inplace_augment_message": "",
            "_on_connection_disconnect": "",
            "_put": "(self, queue, message, **kwargs)",
            "_publish_batch": "",
            "_q_for_pri": "(self, queue, pri)",
            "_qos": "",
            "_queue_cycle": "",
            "_receive_one": "(self, c)",
            "_registered": "",
            "_sentinel_manager": "",
            "_subscribe": "(self)",
            "_unsubscribe_from": "(self, queue)",
        },
    ),
    Reliance(
        "kombu.transport.redis:MultiChannelPoller",
        "a pool without an event loop waits for room before it takes",
        {
            "_channels": "",
        },
    ),
    Reliance(
        "kombu.transport.redis:QoS",
        "what a lost connection brought returns to its queue unless its task runs",
        {
            "_delivered": "",
        },
    ),
    Reliance(
        "kombu.transport.redis:Transport",
        "a message that was taken is handed to its consumer",
        {
            "_deliver": "",
        },
    ),
    Reliance(
        "langchain_core.language_models.chat_models:BaseChatModel",
        "a chat model implements these; LangChain documents them",
        {
            "_agenerate": CHAT.format("AsyncCallbackManagerForLLMRun", "ChatResult"),
            "_astream": CHAT.format(
                "AsyncCallbackManagerForLLMRun", "AsyncIterator[ChatGenerationChunk]"
            ),
            "_generate": CHAT.format("CallbackManagerForLLMRun", "ChatResult"),
            "_get_ls_params": "(self, stop: 'list[str] | None' = None, **kwargs: 'Any') -> 'LangSmithParams'",
            "_identifying_params": "",
            "_llm_type": "",
            "_stream": CHAT.format("CallbackManagerForLLMRun", "Iterator[ChatGenerationChunk]"),
        },
    ),
    Reliance(
        "openai:OpenAI",
        "the URL of a path is built once, not in each call",
        {
            "_prepare_url": "(self, url: 'str') -> 'URL'",
        },
    ),
    Reliance(
        "pybreaker:CircuitBreaker",
        "SharedCircuitBreaker is one, with its state in Redis",
        {
            "_excluded_exceptions": "",
            "_listeners": "",
            "_lock": "",
            "_name": "",
            "_throw_new_error_on_trip": "",
        },
    ),
    Reliance(
        "redis.connection:AbstractConnection",
        "commands get the prefix of BREAKWATER_PREFIX when they are packed",
        {
            "_construct_command_packer": "(self, packer)",
        },
    ),
    Reliance(
        "redis.connection:Connection",
        "a closed socket is noticed before a subscription is read",
        {
            "_sock": "",
        },
    ),
    Reliance(
        "redis._parsers.hiredis:_HiredisParser",
        "one timeout bounds a whole reply, not each of its pieces",
        {
            "_socket_timeout": "",
        },
    ),
)


def _is_private(name: object) -> bool:
    is_dunder = str(name).endswith("__")
    return re.fullmatch(r"_+[A-Za-z]\w*", str(name)) is not None and not is_dunder


def _is_super(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"
    )


def _is_of_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in {"self", "cls"}


def _defined_in(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a module defines: functions, classes, variables, attributes of self."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if _is_of_self(node.value):
                yield node.attr


def _of_other_objects(tree: ast.Module) -> Iterator[str]:
    """Yield private names that a module uses on objects whose class it does not define."""
    defined = set(_defined_in(tree))
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=value, attr=name):
                is_module = isinstance(value, ast.Name) and value.id in sys.stdlib_module_names
                is_foreign = name not in defined and not _is_of_self(value) and not is_module
                if _is_super(value) or is_foreign:
                    yield name
            case ast.ImportFrom(module=str(module), names=names):
                if module.partition(".")[0] not in {*OURS, "__future__"}:
                    yield from [*module.split("."), *(alias.name for alias in names)]
            case ast.Import(names=names):
                yield from (part for alias in names for part in alias.name.split("."))
            case (
                ast.Call(func=ast.Name("getattr" | "setattr" | "hasattr"), args=args)
                | ast.Call(func=ast.Attribute(attr="get" | "pop"), args=args)
            ):
                texts = [each.value for each in args if isinstance(each, ast.Constant)]
                yield from (str(text) for text in texts if text not in defined)


def _of_base_classes(path: Path, tree: ast.Module) -> Iterator[str]:
    """Yield private names of a library's class that a class of ours overrides, reads or sets."""
    module = importlib.import_module(_module_of(path))
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        ours = vars(module).get(node.name)
        if not inspect.isclass(ours):
            continue
        text = "".join(_source(base) for base in ours.__mro__ if _is_foreign(base))
        inherited = set(re.findall(r"\b_\w+", text))
        attributes = {
            each.attr
            for each in ast.walk(node)
            if isinstance(each, ast.Attribute) and _is_of_self(each.value)
        }
        yield from (attributes | vars(ours).keys()) & inherited


def _module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _is_foreign(base: type) -> bool:
    return base.__module__.partition(".")[0] in LIBRARIES


@cache
def _source(base: type) -> str:
    try:
        return inspect.getsource(base)
    except (OSError, TypeError):  # httpx2 names another module, Celery builds classes at run time
        return "".join(_source_of_method(each) for each in vars(base).values())


def _source_of_method(method: object) -> str:
    if not inspect.isfunction(method):
        return ""
    try:
        return inspect.getsource(method)
    except (OSError, TypeError):
        return ""


def _names_used_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    names = {*_of_other_objects(tree), *_of_base_classes(path, tree)}
    return {name for name in names if _is_private(name)} - NOT_PRIVATE


@cache
def used() -> Mapping[str, list[str]]:
    """Return each private name of a library that our code uses, with the files that use it."""
    files = defaultdict(list)
    for package in OURS:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "migrations" not in path.parts:  # alembic runs them
                for name in _names_used_in(path):
                    files[name].append(str(path.relative_to(ROOT)))
    return files


def _owner(name: str) -> type:
    module, _, kind = name.partition(":")
    found: type = getattr(importlib.import_module(module), kind)
    return found


@cache
def _source_of(owner: str) -> str:
    """Return the source of a class and its bases; instance attributes are only found there."""
    return "".join(_source(base) for base in _owner(owner).__mro__)


def _release_of(owner: str) -> str:
    package = owner.partition(".")[0].partition(":")[0]
    return f"{package} {metadata.version(package.replace('_', '-'))}"


@pytest.mark.parametrize("reliance", RELIED_ON, ids=lambda one: one.owner)
def test_each_private_name_that_is_relied_on_exists(reliance: Reliance) -> None:
    """A release without it breaks the files that are named, some of them only under load."""
    owner, wrong = _owner(reliance.owner), {}
    for name, signature in reliance.names.items():
        if not hasattr(owner, name) and not re.search(rf"\b{name}\b", _source_of(reliance.owner)):
            wrong[name] = f"has no {name!r}"
        elif signature and signature != (actual := str(inspect.signature(getattr(owner, name)))):
            wrong[name] = f"has {name}{actual}, and {name}{signature} is overridden"

    assert not wrong, "\n".join(
        f"{_release_of(reliance.owner)}: {reliance.owner} {what}; "
        f"needed in {', '.join(used()[name])}: {reliance.reason}"
        for name, what in wrong.items()
    )


def test_no_other_private_name_is_used() -> None:
    """One that is not in the table would not be looked at before a library's bound is raised."""
    listed = {name for reliance in RELIED_ON for name in reliance.names}

    unlisted = {name: files for name, files in used().items() if name not in listed}
    unused = sorted(listed - used().keys())

    assert not unlisted, "list these private names in RELIED_ON, or do without them"
    assert not unused, "these names are not relied on any more; remove them from RELIED_ON"


def test_an_override_is_listed_with_its_signature() -> None:
    """Another argument in a release is a `TypeError` at the first call, in production."""
    missing = [
        f"{reliance.owner}.{name}"
        for reliance in RELIED_ON
        for name, signature in reliance.names.items()
        if not signature
        and callable(getattr(_owner(reliance.owner), name, None))
        and _is_overridden(name)
    ]

    assert not missing


def _is_overridden(name: str) -> bool:
    for path in used()[name]:
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.ClassDef):
                methods = [each for each in node.body if isinstance(each, ast.FunctionDef)]
                if name in [each.name for each in methods]:
                    return True
    return False


@pytest.mark.parametrize(("library", "first_refused"), BOUNDS.items())
def test_each_library_is_bounded_from_above(library: str, first_refused: str) -> None:
    """A release that nobody has tried here cannot be installed beside this one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    lines = [*project["dependencies"], *(line for extra in extras for line in extra)]

    bounded = [req.specifier for req in map(Requirement, lines) if req.name == library]

    assert bounded
    assert not any(Version(first_refused) in each for each in bounded)
    assert not any(Version(f"{first_refused}.1") in each for each in bounded)
