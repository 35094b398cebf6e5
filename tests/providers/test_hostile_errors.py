"""What a broken or hostile server answers: always an error with a verdict, soon, showing nothing."""

import json
import threading
import time
import traceback
from types import TracebackType
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breakwater import errors
from breakwater.content import Media, Message
from breakwater.errors import ProviderError
from tasks.providers.base import Request
from tasks.providers.errors.bodies import read_error
from tasks.providers.errors.retry_after import retry_after_s
from tasks.providers.errors.rules import rule_for
from tasks.providers.errors.translation import error_from_body, translate_error
from tests.providers.conftest import Build
from tests.support.loopback import Loopback
from tests.support.vendors import KEY, request

PROMPT = "PROMPT-CANARY-4711"
DATES = [
    "Mon, 01 Jan 2026 00:00:00 +99999999999999999", "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
    "9" * 5000, "1e999", "-0", "\u0661\u0662", "Mon, 99 Jan 0000 99:99:99 GMT", "1_000", "0x10",
]  # fmt: skip
BODIES: dict[str, bytes] = {
    "200,000 brackets": b"[" * 200_000,
    "200,000 objects": b'{"error":' * 100_000,
    "deep and closed": b'{"error":' * 50_000 + b"1" + b"}" * 50_000,
    "deep inside a string": json.dumps({"error": {"message": "[" * 100_000}}).encode(),
    "half a surrogate": b'{"error": {"message": "\\ud800 prompt is too long", "code": "\\udfff"}}',
    "not UTF-8": b'{"error": {"message": "\xff\xfe nicht verf\xfcgbar"}}',
    "UTF-16": '{"error": {"message": "no"}}'.encode("utf-16"),
    "NUL bytes": b"\x00" * 1000,
    "a number of 10,000 digits": b'{"error": {"code": ' + b"9" * 10_000 + b"}}",
    "infinities": b'{"error": {"code": Infinity, "status": NaN, "message": -Infinity}}',
    "keys that are no names": json.dumps({"error": {"": {" ": [None, True, 1.5]}}}).encode(),
    "100,000 keys": json.dumps({"error": {str(n): "x" for n in range(100_000)}}).encode(),
    "a message of 900 kB": json.dumps(
        {"error": {"message": "reached your specified " * 40_000}}
    ).encode(),
    "a page of 2 MB": b"<html>" + b"reached your specified " * 90_000,
}

Json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["error", "message", "code", "type", "status", "detail", "details", "msg",
                         "errors", "metadata", "raw", "loc", "param", "reason", "retryDelay"])
        | st.text(),
        inner,
    ),
    max_leaves=30,
)  # fmt: skip


@given(body=Json | st.binary() | st.text(), status=st.none() | st.integers(-1, 10**6))
@settings(deadline=None, max_examples=300)
def test_any_body_gets_a_verdict(body: Any, status: int | None) -> None:
    """Whatever is sent: one of the tree's errors, whose message stays a line of plain words."""
    for form in (body, _dumped(body)):
        error = error_from_body("claude", form, status)

        assert isinstance(error, ProviderError)
        assert error.verdict.next_target
        assert len(str(error)) < 500
        assert str(error).isprintable()
        json.dumps(error.args)


@given(text=st.text(st.sampled_from("prompt is too long …:{}[]\"'\\n"), max_size=200))
@settings(deadline=None, max_examples=200)
def test_any_text_gets_a_verdict(text: str) -> None:
    """Half of a JSON text inside a message, and quotes that do not match."""
    said = read_error(json.dumps({"error": {"message": text}}))

    assert issubclass(rule_for(400, said).error, ProviderError)


@given(value=st.text(max_size=80) | st.sampled_from(DATES), name=st.sampled_from(
    ["retry-after", "retry-after-ms", "x-ms-retry-after-ms", "date"]))  # fmt: skip
@settings(deadline=None, max_examples=300)
def test_any_header_gives_a_wait_or_none(value: str, name: str) -> None:
    """Never more than a day, never below nothing, and never an exception."""
    wait = retry_after_s({"retry-after": value, name: value}, None)

    assert wait is None or 0 < wait <= 86_400


@given(json_error=Json)
@settings(deadline=None, max_examples=100)
def test_whatever_an_sdk_raises_is_translated(json_error: Any) -> None:
    """Bodies and details of any type, causes in a circle, a str() that fails."""

    class OddError(Exception):
        body = json_error
        details = json_error
        response = json_error

        def __str__(self) -> str:
            raise RuntimeError("no words")

    error, other = OddError(), OddError()
    error.__cause__, other.__cause__ = other, error

    assert isinstance(translate_error("claude", error), ProviderError)


@pytest.mark.parametrize("name", BODIES)
def test_an_odd_body_keeps_the_verdict_of_its_status(
    name: str, adapter: str, server: Loopback, build: Build
) -> None:
    """What cannot be read decides nothing: the HTTP status does."""
    server.answer(BODIES[name], 503)

    with pytest.raises(errors.Overloaded):
        build(adapter, server.url).complete(request())


@pytest.mark.parametrize("date", [d for d in DATES if d.isascii()])
def test_an_impossible_date_is_no_wait(
    date: str, adapter: str, server: Loopback, build: Build
) -> None:
    """In `Retry-After` and in the answer's own `Date`."""
    server.answer({}, 429, retry_after=date)

    with pytest.raises(errors.RateLimited) as caught:
        build(adapter, server.url).complete(request())

    assert caught.value.retry_after_s is None


def test_matching_grows_no_faster_than_the_text() -> None:
    """A text that would cost a backtracking pattern hours is cut, and compared as substrings."""
    unit = "reached your specified "
    texts = [unit * 40_000, "limit: 1 " * 100_000, "model " * 150_000, "{" * 900_000, "'" * 900_000]
    for text in texts:
        body = json.dumps({"error": {"message": text}}).encode()

        said = read_error(body)

        assert len(said.words) <= 40_000
        assert rule_for(400, said).error is not errors.QuotaExhausted


@pytest.mark.parametrize(
    "words",
    [
        "your credit balance is too low", "invalid api key", "account is suspended",
        "insufficient balance", "billing is disabled", "organization has been disabled",
    ],
)  # fmt: skip
@pytest.mark.parametrize("status", [400, 403, 422, 429])
def test_a_prompt_cannot_choose_its_own_verdict(words: str, status: int) -> None:
    """What a server quotes or echoes of the request opens no breaker."""
    bodies = [
        {"error": {"message": f"Invalid schema for response_format: In context=('{words}',), no"}},
        {"error": {"message": f'Unknown tool "{words}"', "type": "invalid_request_error"}},
        {"error": {"message": f"The value `{words}` is not one of the allowed ones"}},
        {"detail": [{"type": "missing", "loc": ["body"], "msg": "Field required",
                     "input": {"message": words, "code": "invalid_api_key"}}]},
        {"error": {"message": "no", "failed_generation": words}},
        f"<html><body>{words}</body></html>",
    ]  # fmt: skip
    for body in bodies:
        assert not error_from_body("claude", body, status).verdict.trips


def _dumped(body: Any) -> Any:
    try:
        return json.dumps(body)
    except (TypeError, ValueError):
        return body


def _locals_of(error: BaseException) -> list[str]:
    """Return all that a traceback's frames hold, as an error tracker would send it."""
    shown, seen = [], set()
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        todo += [one.__cause__, one.__context__]
        trace: TracebackType | None = one.__traceback__
        while trace:
            if trace.tb_frame.f_code.co_filename != __file__:
                shown += [repr(value) for value in trace.tb_frame.f_locals.values()]
            trace = trace.tb_next
    return shown


@pytest.mark.parametrize("name", ["plain", "200,000 brackets", "not UTF-8", "refused"])
def test_an_errors_frames_hold_no_key_and_no_prompt(
    name: str, adapter: str, server: Loopback, build: Build
) -> None:
    """Error trackers send the variables of each frame; the SDK's hold both."""
    server.answer(BODIES.get(name, b"{}"), 500)
    asked = request(PROMPT)
    if name == "refused":  # before anything is sent, with the request's body in the frames
        image = Media("image", data="!", media_type="image/tiff")
        asked = Request([Message("user", (PROMPT, image))], "m-1")

    with pytest.raises(ProviderError) as caught:
        build(adapter, server.url).complete(asked)

    held = " ".join(_locals_of(caught.value))
    assert KEY not in held
    assert PROMPT not in held
    assert PROMPT not in "".join(traceback.format_exception(caught.value))


def test_a_long_error_freezes_no_other_thread(server: Loopback, build: Build) -> None:
    """While one error of a megabyte is read, other threads of the process go on."""
    server.answer({"error": {"message": "reached your specified " * 45_000}}, 400)
    provider = build("openai-chat", server.url)
    beats, stop = [0], threading.Event()

    def beat() -> None:
        while not stop.wait(0.001):
            beats[0] += 1

    beating = threading.Thread(target=beat)
    beating.start()
    ended = threading.Event()

    def ask() -> None:
        with pytest.raises(ProviderError):
            provider.complete(request())
        ended.set()

    asking = threading.Thread(target=ask)
    asking.start()

    assert ended.wait(60), "the text was not read in time"
    asking.join()
    stop.set()
    beating.join()
    assert beats[0] > 0


def test_a_response_that_was_not_read_is_judged_by_its_status() -> None:
    """A stream's error, whose body nobody has read."""
    response = httpx2.Response(503, stream=_Unread())
    error = RuntimeError("x")
    error.response = response  # type: ignore[attr-defined]

    assert type(translate_error("claude", error)) is errors.Overloaded


class _Unread(httpx2.SyncByteStream):
    def __iter__(self) -> Any:
        time.sleep(0)
        yield b""
