"""A chord's body is queued once, whichever of Redis' replies is lost while its parts come to an end."""

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest
import redis
from celery import chord, group, states
from celery.app.task import Context
from celery.canvas import Signature

from breakwater.errors import InvalidRequest
from breakwater.messaging import chord as module
from tasks import app, complete
from tasks.delivery.envelope import body_of
from tests.support.fault_proxy import FaultProxy
from tests.tasks.conftest import Use

RESULT = "celery-task-meta-"
COMMANDS = 40
"""More than the last part of any chord here sends."""


class Parts:
    """The parts of a chord, which end when the test says so."""

    def __init__(self, server: Any, header: Any, body: Any) -> None:
        self.server = server
        chord(header, body).apply_async()
        self.messages = self._take()

    def _take(self) -> list[dict[str, Any]]:
        """Take what waits in the role's queue, the oldest first."""
        found = [json.loads(self.server.rpop("role.coder"))]
        while raw := self.server.rpop("role.coder"):
            found.append(json.loads(raw))
        return found

    def end(self, number: int, state: str = states.SUCCESS, result: Any = None) -> None:
        """Settle a part, and count it."""
        message = self.messages[number]
        request = Context(message["headers"], chord=_body_of(message)["chord"])
        request.update(task=message["headers"]["task"])
        answer = {"task_id": request.id, "role": "coder", "text": f"<{number}>", "attempts": []}
        result = result or answer
        app.backend.store_result(request.id, result, state)
        app.backend.on_chord_part_return(request, state, result)

    def end_all(self) -> None:
        for number in range(len(self.messages)):
            self.end(number)

    def queued(self) -> list[list[Any]]:
        """Return the arguments of each task that was queued since, under another id each."""
        found: dict[str, list[Any]] = {}
        while raw := self.server.rpop("role.coder"):
            message = json.loads(raw)
            found[message["headers"]["id"]] = _arguments_of(message)
        return list(found.values())


def _decoded(message: dict[str, Any]) -> Any:
    return json.loads(body_of(deepcopy(message)))


def _body_of(message: dict[str, Any]) -> Any:
    return _decoded(message)[2]


def _arguments_of(message: dict[str, Any]) -> Any:
    return _decoded(message)[0]


def plain() -> Parts:
    header = [complete.s("coder", str(n)) for n in range(3)]
    return Parts(_server(), header, complete.s("coder").set(task_id="body"))


def nested() -> Parts:
    """A part that is a group; then the results are read one by one."""
    inner = group(complete.s("coder", "1"), complete.s("coder", "2"))
    return Parts(_server(), group(complete.s("coder", "0"), inner), complete.s("coder"))


def group_body() -> Parts:
    body = group(complete.s("coder").set(task_id="b1"), complete.s("coder").set(task_id="b2"))
    return Parts(_server(), [complete.s("coder", str(n)) for n in range(2)], body)


_servers: list[Any] = []


def _server() -> Any:
    return _servers[-1]


def _forget_scripts() -> None:
    """Forget the backend's connections to another server."""
    for name in [
        name for name in vars(app.backend) if name == "client" or name.endswith("_script")
    ]:
        del vars(app.backend)[name]


@pytest.fixture
def proxied(use: Use, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """The app over a proxy before an empty server."""
    monkeypatch.setattr(module, "LOOK_S", 0.05)
    server = redis.Redis.from_url(redis_url, decode_responses=True)
    _servers.append(server)
    with FaultProxy(server.connection_pool.connection_kwargs["port"]) as proxy:
        use(proxy.url)
        _forget_scripts()
        yield proxy
    _servers.pop()
    _forget_scripts()


@pytest.mark.parametrize("make", [plain, nested, group_body])
@pytest.mark.parametrize("before", [True, False], ids=["command", "reply"])
def test_whatever_is_lost_while_parts_end_the_body_is_queued_once(
    proxied: FaultProxy, make: Callable[[], Parts], before: bool
) -> None:
    """Each command of the joining in its turn: not sent, or done and its reply lost."""
    met = 0
    for skipped in range(COMMANDS):
        _server().flushall()
        parts = make()
        _hurt(proxied, skipped, before=before)
        struck = proxied.struck

        parts.end_all()

        proxied.heal()
        bodies = parts.queued()
        assert len(bodies) == (2 if make is group_body else 1), f"command {skipped}"
        assert all("<0>" in json.dumps(each) for each in bodies)
        assert not _server().exists(RESULT + "body")
        met += proxied.struck > struck
        if proxied.struck == struck:
            break
    assert 5 <= met < COMMANDS


def _hurt(proxy: FaultProxy, skipped: int, *, before: bool) -> None:
    proxy._add("cut before" if before else "cut after", 1, skip=skipped)


def test_a_part_that_has_failed_fails_the_body(proxied: FaultProxy) -> None:
    """Also where replies are lost on the way; it is no join error."""
    parts = plain()
    parts.end(0)
    parts.end(1, states.FAILURE, InvalidRequest("no"))
    proxied.cut(2, before=False)
    parts.end(2)

    assert parts.queued() == []
    meta = json.loads(_server().get(RESULT + "body"))
    assert meta["result"]["exc_type"] == "ChordError"
    assert "Join error" not in str(meta)


def test_a_part_that_comes_again_queues_no_second_body(proxied: FaultProxy) -> None:
    """It was delivered twice, before the last one or after it."""
    parts = plain()
    parts.end(0)
    parts.end(0)
    assert parts.queued() == []
    parts.end(1)
    parts.end(2)
    assert len(parts.queued()) == 1
    parts.end(2)
    parts.end(0)

    assert parts.queued() == []


@pytest.mark.parametrize("killed", ["before joining", "before queueing", "before tidying up"])
def test_who_died_with_the_claim_is_replaced(
    proxied: FaultProxy, monkeypatch: pytest.MonkeyPatch, killed: str
) -> None:
    """Its part is delivered again, also while the claim of the dead one lasts."""
    parts = plain()
    parts.end(0)
    parts.end(1)
    step = {"before joining": "_joined", "before queueing": "_queue"}.get(killed)
    monkeypatch.setattr(module, "CLAIM_S", 1)
    with monkeypatch.context() as context:

        class Killed(BaseException):
            pass

        def die(*_: Any, **__: Any) -> None:
            raise Killed

        context.setattr(app.backend, "_chord_publish_claim_expires", lambda *_: 1, raising=False)
        if step:
            context.setattr(module.Part, step, die)
        else:
            context.setattr(app.backend, "_chord_cleanup_script", die, raising=False)
        with pytest.raises(Killed):
            parts.end(2)
    before = parts.queued()

    parts.end(2)

    assert len(before) == (0 if step else 1)
    assert len({json.dumps(each) for each in [*before, *parts.queued()]}) == 1


def test_a_body_whose_role_is_gone_fails_with_what_is_wrong(proxied: FaultProxy) -> None:
    """That is no fault of Redis', so it is not asked again."""
    parts = plain()
    body = Signature.from_dict(_body_of(parts.messages[2])["chord"])
    body["args"] = ["nobody"]
    for message in parts.messages:
        decoded = _decoded(message)
        decoded[2]["chord"] = dict(body)
        message["properties"]["body_encoding"] = "base64"
        message["body"] = b64encode(json.dumps(decoded).encode()).decode()

    parts.end_all()

    assert parts.queued() == []
    assert "Callback error" in str(json.loads(_server().get(RESULT + "body")))
