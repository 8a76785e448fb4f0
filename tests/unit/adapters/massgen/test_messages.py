"""MassGen's conversations become a request's messages."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, strategies as st

from vllmchat.adapters.massgen.messages import request_messages
from vllmchat.chat.messages import encode_messages
from vllmchat.errors import InvalidRequestError

Message = dict[str, Any]


def called(*ids: str, content: str | None = None) -> Message:
    """An assistant's message that calls tools with these ids."""
    calls = [
        {"id": each, "type": "function", "function": {"name": f"tool_{each}", "arguments": "{}"}}
        for each in ids
    ]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def result(call_id: str, content: str = "done") -> Message:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


USER: Message = {"role": "user", "content": "Go on."}


def test_a_plain_conversation_is_passed_on() -> None:
    messages: list[Message] = [
        {"role": "system", "content": "You are terse."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi", "reasoning": "A greeting."},
        USER,
    ]
    assert request_messages(messages) == messages


def test_messages_are_sent_unchecked() -> None:
    odd: Any = [{"role": "moderator", "content": "Vote.", "agent_id": "a"}]
    sent: Any = request_messages(odd)
    assert encode_messages(sent) == odd
    with pytest.raises(InvalidRequestError):
        encode_messages(odd)


def test_a_call_keeps_its_result() -> None:
    messages = [USER, called("a", "b"), result("a"), result("b")]
    assert request_messages(messages) == messages


def test_a_call_without_result_is_left_out() -> None:
    messages = [called("a", "b", content="I look."), result("b"), USER]
    assert request_messages(messages) == [called("b", content="I look."), result("b"), USER]


def test_a_message_with_only_calls_without_results_is_dropped() -> None:
    assert request_messages([USER, called("a"), USER]) == [USER, USER]
    assert request_messages([USER, called("a")]) == [USER]


def test_a_message_with_content_is_kept_without_its_calls() -> None:
    spoken: Message = {"role": "assistant", "content": "I look."}
    assert request_messages([called("a", content="I look."), USER]) == [spoken, USER]


def test_only_the_message_with_the_open_calls_goes() -> None:
    assert request_messages([called("a"), result("a"), USER, called("b"), USER]) == [
        called("a"),
        result("a"),
        USER,
        USER,
    ]


def test_a_result_without_its_call_becomes_a_user_message() -> None:
    assert request_messages([USER, result("x", "You must vote.")]) == [
        USER,
        {"role": "user", "content": "[Result]\nYou must vote."},
    ]


def test_a_result_that_comes_too_late_names_its_tool() -> None:
    assert request_messages([called("a"), USER, result("a", "12 degrees")]) == [
        USER,
        {"role": "user", "content": "[Result of tool_a]\n12 degrees"},
    ]


@pytest.mark.parametrize(
    ("given_arguments", "sent"),
    [
        ({"x": "é"}, '{"x": "é"}'),
        (None, "{}"),
        ("", "{}"),
        ('{"x":  1}', '{"x":  1}'),
        # Servers and chat templates reject a conversation with anything else, also one that they wrote themselves.
        ([1], "{}"),
        ('{"x": 1,}', "{}"),
        ('{"x": 1', "{}"),
        ('"x"', "{}"),
        ("[" * 5000, "{}"),
    ],
)
def test_arguments_are_a_json_object(given_arguments: object, sent: str) -> None:
    message = called("a")
    message["tool_calls"][0]["function"]["arguments"] = given_arguments
    (first, _) = request_messages([message, result("a")])
    assert first["tool_calls"][0]["function"]["arguments"] == sent


def test_a_message_without_content_has_an_empty_one() -> None:
    assert request_messages([{"role": "user", "content": None}]) == [{"role": "user", "content": ""}]
    assert request_messages([{"role": "assistant", "tool_calls": []}]) == [
        {"role": "assistant", "content": ""}
    ]


def test_items_of_the_responses_api_become_messages() -> None:
    items: list[Message] = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
        {"type": "reasoning", "summary": []},
        {"type": "function_call", "call_id": "a", "name": "weather", "arguments": '{"city": "Oslo"}'},
        {"type": "function_call", "call_id": "b", "name": "weather", "arguments": '{"city": "Rome"}'},
        {"type": "function_call_output", "call_id": "a", "output": "-2"},
        {"type": "function_call_output", "call_id": "b", "output": {"degrees": 18}},
    ]
    user, assistant, oslo, rome = request_messages(items)
    assert user == {"role": "user", "content": [{"type": "text", "text": "Weather?"}]}
    assert [call["id"] for call in assistant["tool_calls"]] == ["a", "b"]
    assert oslo == {"role": "tool", "tool_call_id": "a", "content": "-2"}
    assert rome == {"role": "tool", "tool_call_id": "b", "content": '{"degrees": 18}'}


@pytest.mark.parametrize(
    ("part", "sent"),
    [
        ("just text", {"type": "text", "text": "just text"}),
        ({"type": "text", "text": "x"}, {"type": "text", "text": "x"}),
        ({"type": "output_text", "text": "x"}, {"type": "text", "text": "x"}),
        (
            {"type": "image", "url": "https://example.org/a.png"},
            {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        ),
        (
            {"type": "image", "base64": "QUJD", "mime_type": "image/png"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
        ),
        (
            {"type": "audio", "base64": "QUJD", "mime_type": "audio/mpeg"},
            {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "mp3"}},
        ),
        (
            {"type": "video", "base64": "QUJD"},
            {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,QUJD"}},
        ),
        (
            {"type": "video_url", "url": "https://example.org/a.mp4"},
            {"type": "video_url", "video_url": {"url": "https://example.org/a.mp4"}},
        ),
        (
            {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
            {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        ),
    ],
)
def test_parts_take_the_form_of_chat_completions(part: object, sent: object) -> None:
    assert request_messages([{"role": "user", "content": [part]}]) == [{"role": "user", "content": [sent]}]


_ids = st.sampled_from("abc")


@st.composite
def _item(draw: st.DrawFn) -> Message:
    """Anything that may occur in a MassGen conversation, valid or not."""
    match draw(st.integers(0, 5)):
        case 0:
            ids = draw(st.lists(_ids, min_size=1, max_size=3, unique=True))
            return called(*ids, content=draw(st.none() | st.text(max_size=3)))
        case 1:
            return result(draw(_ids))
        case 2:
            return USER
        case 3:
            return {"role": "assistant", "content": "Well."}
        case 4:
            return {"type": "function_call", "call_id": draw(_ids), "name": "f", "arguments": "{}"}
        case _:
            return {"type": "function_call_output", "call_id": draw(_ids), "output": "x"}


@given(st.lists(_item(), max_size=10))
def test_every_call_has_its_result_and_every_result_its_call(items: list[Message]) -> None:
    before = copy.deepcopy(items)
    open_calls: set[str] = set()
    for message in request_messages(items):
        if message["role"] == "tool":
            assert message["tool_call_id"] in open_calls
            open_calls.remove(message["tool_call_id"])
            continue
        assert not open_calls
        open_calls = {call["id"] for call in message.get("tool_calls", ())}
        assert message.get("content") is not None or open_calls
    assert not open_calls
    assert items == before
