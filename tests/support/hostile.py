"""Messages that no producer of ours writes: a corpus by hand, and sound ones with a part replaced."""

import bz2
import json
import pickle
import time
import zlib
from base64 import b64encode
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

CANARY = "CANARY BODY"
"""Words of a prompt: shown, wherever they stand, they have leaked."""
Message = dict[str, Any]
DEEP = json.loads("[" * 900 + "]" * 900)


def sound(task_id: str, role: Any = "coder", **options: Any) -> Message:
    """Write a message as Celery's protocol 2 does, its body not encoded yet."""
    return {
        "body": [[role, f"{CANARY} in a prompt"], options, dict.fromkeys(("callbacks", "errbacks", "chain", "chord"))],
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py", "task": "complete", "id": task_id, "shadow": None, "eta": None,
            "expires": None, "group": None, "group_index": None, "retries": 0,
            "timelimit": [None, None], "root_id": task_id, "parent_id": None,
            "argsrepr": f"('{CANARY}',)", "kwargsrepr": "{}", "origin": "gen1@host",
            "ignore_result": False, "replaced_task_nesting": 0, "stamped_headers": None,
            "stamps": {}, "breakwater": {"enqueued_ms": round(time.time() * 1000)},
        },
        "properties": {
            "correlation_id": task_id, "reply_to": "", "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "celery"}, "priority": 0,
            "body_encoding": "base64", "delivery_tag": "x",
        },
    }  # fmt: skip


def old(task_id: str) -> Message:
    """Write a message as protocol 1 does, as clients in other languages still do."""
    message = sound(task_id)
    (args, kwargs, canvas), message["headers"] = message["body"], {}
    message["body"] = {"task": "complete", "id": task_id, "args": args, "kwargs": kwargs, **canvas}
    return message


def raw(message: Message) -> bytes:
    """Encode a message; a body that is bytes or a string already is left as it is."""
    body = message.get("body")
    if isinstance(body, list | dict):
        body = json.dumps(body).encode()
    if isinstance(body, bytes):
        body = b64encode(body).decode()
    return json.dumps({**message, "body": body}).encode()


Change = Callable[[Message], Any]


def changed(task_id: str, change: Change, message: Message | None = None) -> bytes:
    """Encode a sound message after a change."""
    message = message or sound(task_id)
    change(message)
    return raw(message)


def header(name: str, value: Any) -> Change:
    return lambda m: m["headers"].update({name: value})


def prop(name: str, value: Any) -> Change:
    return lambda m: m["properties"].update({name: value})


def whole(name: str, value: Any) -> Change:
    return lambda m: m.update({name: value})


def canvas(name: str, value: Any) -> Change:
    return lambda m: m["body"][2].update({name: value})


def packed(compression: str, pack: Callable[[bytes], bytes]) -> Change:
    def change(message: Message) -> None:
        message["headers"]["compression"] = compression
        message["body"] = pack(json.dumps(message["body"]).encode())

    return change


SIGNATURE = {"task": "complete", "args": ["coder", CANARY], "kwargs": {}, "options": {}}
CHANGES: list[Change] = [
    *(whole("body", body) for body in (
        pickle.dumps((CANARY, {}, {})), b"", b"null", b"5", b'"x"', b"[]", b"{}", b"[[],{}]",
        b"[[], {}, {}, {}]", b"[[], [], {}]", b"[{}, {}, {}]", b"[null, null, null]",
        b'["args", "kwargs", "args"]', b'{"args": []}', b"[[], {}, []]", b"\xff\xfe", b"[NaN]",
        b"[" * 100_000, json.dumps([["coder", DEEP], {}, {}]).encode(),
        b'[["coder", {"__type__": "datetime", "__value__": "never"}], {}, {}]',
        b'[["coder", {"__type__": "uuid", "__value__": 5}], {}, {}]',
        b"[[" + b"9" * 5000 + b"], {}, {}]", "no base64 \u00e9", "====", "abc", None, 5,
        b'[["coder", "x"], {}, {"update": 1}]', b'[["coder", "x"], {}, {"is_eager": true}]',
    )),
    *(whole("content-type", value) for value in (
        "application/x-python-serialize", "application/x-yaml", "application/data",
        "application/text", "text/plain", "", None, 5, [], {}, "x" * 1000,
    )),
    *(whole("content-encoding", value) for value in ("zip", "rot13", "binary", 5, None, [])),
    *(whole(part, value) for part in ("headers", "properties") for value in (None, [], "x", 5)),
    *(header("id", value) for value in (
        None, "", 5, [], {}, ["a"], "x" * 300, "a\nb", "\x1b[2J", "\ud800", True,
    )),
    *(header("task", value) for value in (
        "", 5, [], {}, "complet", "celery.map", "celery.chord_unlock", "celery.backend_cleanup",
        "os.system", "x" * 300, "\x1b[2J", "__class__",
    )),
    *(header("shadow", value) for value in (5, [], "\x1b]0;x\x07", "x" * 5000, {"%": "%(x)s"})),
    *(header("eta", value) for value in (
        5, [], "soon", "0001-01-01T00:00:00", "9999-12-31T23:59:59+00:00", 1e400, {}, "2020-01-01",
    )),
    *(header("expires", value) for value in (
        5, [], "soon", "0001-01-01T00:00:00", "9999-12-31T23:59:59-14:00", {}, "2020-01-01",
    )),
    *(header("timelimit", value) for value in (
        5, "x", [], [1], [1, 2, 3], ["a", "b"], {}, [None, {}], [1e400, 1e400], [-1, -1],
        [10**30, 10**30],
    )),
    *(header("retries", value) for value in ("x", [], -1, 1.5, {}, 10**400)),
    *(header(name, value) for name in ("root_id", "parent_id", "group") for value in (5, [], {})),
    *(header("stamps", value) for value in (5, [], "x")),
    *(header("stamped_headers", value) for value in (5, [[]], [{}], "x")),
    *(header("ignore_result", value) for value in ("x", [], 5)),
    *(header(name, 1) for name in (
        "update", "get", "is_eager", "called_directly", "settled", "args", "kwargs", "chord",
        "callbacks", "children", "as_execution_options", "_children", "headers", "properties",
    )),
    *(header("breakwater", value) for value in (
        5, [], {"enqueued_ms": "x"}, {"enqueued_ms": 10**400}, {"enqueued_ms": -1}, {}, "x",
        *({"enqueued_ms": 1, name: value} for name in ("countdown_ms", "expires_ms")
          for value in (-1, "x", [], 10**400, 2**53)),
    )),
    *(header("compression", value) for value in ("gzip", "pickle", 5, [], "zlib", "x")),
    packed("bzip2", bz2.compress), packed("gzip", lambda data: zlib.compress(data)[:-9]),
    packed("gzip", lambda _: zlib.compress(b" " * 100_000_000)),
    *(prop("body_encoding", value) for value in ("hex", 5, [], "utf-8", None)),
    *(prop("delivery_info", value) for value in (5, "x", [5], {"exchange": 5, "routing_key": []})),
    *(prop(name, value) for name in ("priority", "reply_to", "correlation_id", "delivery_mode")
      for value in ({}, [], -1)),
    prop("delivery_tag", {"a": []}),
    *(canvas(name, value) for name in ("callbacks", "errbacks", "chain", "chord") for value in (
        5, "x", [5], {}, [{}], [{"task": 5}], [{**SIGNATURE, "args": 5}], [[SIGNATURE]],
    )),
    canvas("callbacks", [{**SIGNATURE, "task": "nobody", "options": {"queue": {"x": CANARY}}}]),
    canvas("callbacks", [{**SIGNATURE, "subtask_type": CANARY}]),
    canvas("callbacks", [{**SIGNATURE, "subtask_type": "group", "task": "celery.group"}]),
    canvas("callbacks", [{**SIGNATURE, "args": [CANARY]}, SIGNATURE]),
    canvas("errbacks", [{**SIGNATURE, "task": "nobody"}]),
    canvas("chain", [{**SIGNATURE, "options": {"serializer": "pickle"}}]),
    canvas("chord", {**SIGNATURE, "chord_size": CANARY}),
    *(lambda m, role=role: m["body"][0].__setitem__(0, role) for role in (
        "\x1b[2J\x07", "a\r\nb", "\x00", "\ud800", 5, None, [CANARY], {CANARY: 1}, "nobody",
        f"{CANARY} where the role should be", "x" * 100_000,
    )),
    *(lambda m, prompt=prompt: m["body"][0].__setitem__(1, prompt) for prompt in (
        5, None, "", [], {}, [5], [{"role": "x", "content": CANARY}], "\ud800", [{"content": []}],
        [{"role": "user", "content": [{"type": "image", CANARY: 1}]}],
    )),
    *(lambda m, options=options: m["body"][1].update(options) for options in (
        {"sytem": CANARY}, {"system": 5}, {"system": "\ud800"}, {"params": 5}, {"params": {"bogus": 1}},
        {"params": {"temperature": "hot"}}, {"params": {"stop": ["\ud800"]}}, {"metadata": []},
        {"params": {"max_output_tokens": 10**400}}, {"params": {"temperature": 10**400}},
        {"deadline_s": "x"}, {"deadline_s": 10**400}, {"deadline_s": -1}, {"schema": {}},
        {"role": "coder"}, {"prompt": CANARY}, {"self": 1}, {"tools": [CANARY]}, {"\ud800": 1},
    )),
    lambda m: m["body"][0].append(CANARY),
    lambda m: m["body"][0].clear(),
]  # fmt: skip
"""What one can do to a sound message; some leave it sound."""
OLD_CHANGES: list[Change] = [
    lambda m: None,
    *(
        lambda m, name=name, value=value: m["body"].update({name: value})
        for name in ("id", "task", "args", "kwargs", "eta", "expires", "callbacks", "utc", "update")
        for value in (5, {"x": 1}, [5], "x")
    ),
    lambda m: m.update(body=["not", "a", "task"]),
    lambda m: m["headers"].update(task=None, id=None),
]
RAW = [
    b"", b"\x00", b"null", b"[]", b"5", b'"x"', b"{}", b"{", b"\xff" * 100, CANARY.encode(),
    pickle.dumps({"body": CANARY}), b"[" * 200_000, b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    b'{"body": "x", "headers": {}, "properties": {}}', b"9" * 10_000, b"NaN", b"\x80\x04.",
    CANARY.encode() * 100, b'{"body": ' + b"[" * 990 + b"]" * 990 + b"}",
]  # fmt: skip
COMMANDS = [
    b"5", b"[]", b'"x"', b"{}", b"no JSON", b"[" * 5_000, b'{"body": "x"}',
    b'{"body": "x", "properties": 5, "headers": []}',
    *(raw({**sound("x"), **change}) for change in (
        {"body": b"garbage"}, {"body": {"method": 5}}, {"body": {"method": "nothing"}},
        {"body": {"method": "revoke", "arguments": 5}}, {"body": [1]}, {"headers": None},
        {"content-type": "application/x-python-serialize"}, {"content-type": []},
        {"body": {"method": "rate_limit", "arguments": {"task_name": [], "rate_limit": {}}}},
        {"body": {"method": "ping", "reply_to": 5, "ticket": {}}},
        {"properties": {"delivery_tag": {}, "body_encoding": "base64", "delivery_info": 5}},
    )),
]  # fmt: skip
"""What can be published to all workers at once."""
HUGE = b"x" * 50_000_000


def corpus() -> list[bytes]:
    """Return all that is written down by hand."""
    return [
        *RAW,
        *(changed(f"hand-{n}", change) for n, change in enumerate(CHANGES)),
        *(changed(f"old-{n}", change, old(f"old-{n}")) for n, change in enumerate(OLD_CHANGES)),
    ]


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@st.composite
def mutants(draw: st.DrawFn, number: int) -> list[bytes]:
    """Draw messages with one to three parts replaced, or with bytes of their raw form changed."""
    return [draw(_mutant(f"drawn-{n}")) for n in range(number)]


@st.composite
def _mutant(draw: st.DrawFn, task_id: str) -> bytes:
    message = sound(task_id) if draw(st.integers(0, 4)) else old(task_id)
    for _ in range(draw(st.integers(1, 3))):
        place = message
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw(st.sampled_from(keys)) if keys else None
            inner = place[key] if keys else None
            if isinstance(inner, dict | list) and inner and draw(st.booleans()):
                place = inner
                continue
            break
        match draw(st.integers(0, 5)), place:
            case 0, dict() if keys:
                del place[key]
            case 1, dict():
                place[draw(st.text(max_size=20))] = draw(JUNK)
            case _ if keys:
                place[key] = draw(JUNK)
    data = bytearray(raw(message))
    if not draw(st.integers(0, 9)):
        for at in draw(st.lists(st.integers(0, len(data) - 1), max_size=4)):
            data[at] = draw(st.integers(0, 255))
    return bytes(data)
