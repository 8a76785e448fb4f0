from __future__ import annotations

import json
from collections import UserDict, deque
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from support.chats import completion
from support.copies import replace
from vllmchat import InvalidRequestError, Timeout
from vllmchat.chat.check import VLLM_CHAT, CheckedParams
from vllmchat.chat.completion import decode_completion
from vllmchat.chat.limits import limits_of
from vllmchat.chat.request import chat_request
from vllmchat.http.call import Response, ResponseHead
from vllmchat.wire.encode import encode_json

if TYPE_CHECKING:
    from vllmchat.chat.completion import ChatCompletion
    from vllmchat.client.request import ModelRequest
    from vllmchat.http.call import Call

LIMITS = Timeout(connect=1, first_token=2, idle=3, total=4)


def request(
    params: CheckedParams, *, stream: bool = False, ask_usage: bool = False
) -> ModelRequest[ChatCompletion]:
    made = chat_request("Hi", VLLM_CHAT.check, {}, stream=stream, ask_usage=ask_usage)
    return replace(made, params=params)


def call(
    fields: dict[str, object] | None = None,
    extra: dict[str, object] | None = None,
    *,
    stream: bool = False,
    ask_usage: bool = False,
    **others: Any,
) -> Call[Any]:
    params = CheckedParams(fields or {}, extra, **others)
    return request(params, stream=stream, ask_usage=ask_usage).call("m", LIMITS)


def sent(*args: Any, **options: Any) -> dict[str, Any]:
    made = call(*args, **options)
    assert made.body is not None
    body: dict[str, Any] = json.loads(made.body)
    return body


# ------------------------------------------------------------------------------------------------
# The body
# ------------------------------------------------------------------------------------------------


def test_only_what_was_set_is_sent() -> None:
    messages = [{"role": "user", "content": "Hi"}]
    assert sent() == {"model": "m", "messages": messages}
    assert sent({"top_k": 5}) == {"model": "m", "messages": messages, "top_k": 5}


def test_a_stream_is_asked_for_with_its_usage() -> None:
    assert sent(stream=True, ask_usage=True) == {
        **sent(),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert sent(stream=True) == {**sent(), "stream": True}
    own: dict[str, object] = {"stream_options": {"continuous_usage_stats": True}}
    assert sent(own, stream=True) == {**sent(), "stream": True, **own}
    assert sent(ask_usage=True) == sent()


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({}, {"include_usage": True}),
        ({"continuous_usage_stats": True}, {"include_usage": True, "continuous_usage_stats": True}),
        ({"include_usage": None}, {"include_usage": True}),
        ({"include_usage": False}, {"include_usage": False}),
    ],
)
def test_only_an_explicit_false_omits_the_usage(given: object, asked: object) -> None:
    body = sent({"stream_options": given}, stream=True, ask_usage=True)
    assert body["stream_options"] == asked


def test_extra_body_takes_precedence() -> None:
    extra = {"model": "other", "top_k": 1, "stream_options": None, "new": {"a": [1]}}
    body = sent({"top_k": 5, "n": 2}, extra, stream=True, ask_usage=True)
    assert body == {**sent(), "n": 2, "stream": True, **extra}


def test_characters_of_all_kinds() -> None:
    body = call({"user": "ü€😀\u2028"}).body
    assert body is not None
    assert "ü€😀\u2028".encode() in body


# ------------------------------------------------------------------------------------------------
# The call
# ------------------------------------------------------------------------------------------------


def test_the_call() -> None:
    made = call(extra_headers={"X-One": "1"}, timeout=9.0)
    assert (made.method, made.path, made.accept, made.outside_v1) == (
        "POST",
        "/chat/completions",
        "application/json",
        False,
    )
    assert made.headers == {"x-one": "1"}
    assert made.timeout == Timeout(connect=1, first_token=2, idle=3, total=9)
    assert made.request_id is None
    assert (call().headers, call().timeout) == ({}, LIMITS)
    assert call(timeout=Timeout(idle=7)).timeout == Timeout(idle=7)
    assert call(stream=True).accept == "text/event-stream"


def test_the_requests_own_id_is_used_for_its_attempts() -> None:
    assert call({"request_id": "mine"}).request_id == "mine"
    assert call({"request_id": "mine"}, {"request_id": "other"}).request_id == "other"
    assert call(None, {"request_id": 5}).request_id is None


def test_the_response_is_read_with_its_id() -> None:
    body = json.dumps(completion("hello")).encode()
    reply = call().read(Response(ResponseHead(200, {}, "id-1"), body))
    assert reply == decode_completion(body, head=ResponseHead(200, {}, "id-1"))
    assert reply.request_id == "id-1"


@pytest.mark.parametrize(
    ("fields", "extra", "choices"),
    [
        ({}, None, 1),
        ({"n": 3}, None, 3),
        ({"n": 3}, {"n": 2}, 2),
        ({"n": 3}, {"other": 1}, 3),
        # Nonsense that is left for the server to reject.
        ({}, {"n": "2"}, 1),
        ({}, {"n": 0}, 1),
        ({}, {"n": None}, 1),
    ],
)
def test_how_many_choices_must_finish(
    fields: dict[str, object], extra: dict[str, object] | None, choices: int
) -> None:
    assert limits_of(CheckedParams(fields, extra)).choices == choices


# ------------------------------------------------------------------------------------------------
# What is not JSON-serializable
# ------------------------------------------------------------------------------------------------


def test_mappings_and_sequences_of_all_kinds() -> None:
    body = {
        "proxy": MappingProxyType({"a": range(2)}),
        "user": UserDict({"b": (1, 2)}),
        "deque": deque([1]),
        "bytes": b"text",
    }
    assert json.loads(encode_json(body)) == {
        "proxy": {"a": [0, 1]},
        "user": {"b": [1, 2]},
        "deque": [1],
        "bytes": "text",
    }


def in_circles() -> list[object]:
    inner: list[object] = []
    inner.append({"again": inner})
    return inner


def deep(depth: int, innermost: object) -> object:
    nested = innermost
    for _ in range(depth):
        nested = [nested]
    return nested


class Endless(UserDict[str, object]):
    """Contains itself; created anew each time."""

    def __iter__(self) -> Any:
        return iter(["x"])

    def __len__(self) -> int:
        return 1

    def __getitem__(self, key: str) -> object:
        return Endless()


@pytest.mark.parametrize(
    ("body", "where", "what"),
    [
        ({"x": object()}, "x", "object"),
        ({"a": 1, "x": [1, {"y": (2, object())}]}, "x[1].y[1]", "object"),
        ({"x": MappingProxyType({"y": deque([object()])})}, "x.y[0]", "object"),
        ({"x": "\ud800"}, "x", "str"),
        ({"x": {"y": b"\xff"}}, "x.y", "bytes"),
        ({"x": {1: object}}, "x.1", "type"),
        ({"x": {"\ud800": 1}}, "x", "dict"),
        ({"\ud800": 1}, "request", "dict"),
        ({"x": in_circles()}, "x[0]", "dict"),
        ({"x": deep(40, object())}, "x" + "[0]" * 40, "object"),
        # Too deep for the encoder, although nothing in it is wrong.
        ({"x": deep(255, 1)}, "x", "list"),
    ],
)
def test_what_is_not_json_serializable_is_named_by_its_path(
    body: dict[str, object], where: str, what: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        encode_json(body)
    (problem,) = caught.value.problems
    assert (problem.parameter, problem.value) == (where, f"<{what}>")
    assert problem.rule.startswith("is not JSON-serializable (")
    assert caught.value.__cause__ is not None


def test_endless_values() -> None:
    with pytest.raises(InvalidRequestError, match="is not JSON-serializable"):
        encode_json({"x": Endless()})


def test_the_reason_is_short_and_does_not_contain_the_value() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        encode_json({"x": object()})
    assert str(caught.value) == "x=<object>: is not JSON-serializable (object is not a JSON type)."


def test_calls_that_cannot_be_sent_are_rejected() -> None:
    with pytest.raises(InvalidRequestError, match=r"new\.x=<object>"):
        call(None, {"new": {"x": object()}})
