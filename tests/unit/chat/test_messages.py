"""Encoding of conversations for the request body."""

from __future__ import annotations

from collections import UserDict, deque
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import pytest

from vllmchat.chat.completion import ChatCompletion, ChatMessage, decode_completion
from vllmchat.chat.messages import custom_message, encode_messages, text_part, tool_message
from vllmchat.errors import InvalidRequestError

if TYPE_CHECKING:
    from vllmchat.chat.messages import Messages

REPLY = b"""{"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [{"index": 0,
"finish_reason": "tool_calls", "message": {"role": "assistant", "content": null, "reasoning": "Look it up.",
"tool_calls": [{"id": "call-1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}}]}"""


def reply() -> ChatCompletion:
    return decode_completion(REPLY)


def refused(messages: object) -> list[str]:
    with pytest.raises(InvalidRequestError) as caught:
        encode_messages(cast("Messages", messages))
    return [str(problem) for problem in caught.value.problems]


def test_a_str_is_one_user_message() -> None:
    assert encode_messages("Hello") == [{"role": "user", "content": "Hello"}]


def test_mappings_are_sent_unchanged() -> None:
    user = {"role": "user", "content": [{"type": "text", "text": "x"}], "a_key_of_the_template": 1}
    frozen = MappingProxyType({"role": "critic", "content": "y"})
    given: Any = (user, frozen, UserDict({"role": "tool"}))
    encoded = encode_messages(given)
    assert encoded[0] is user
    assert encoded[1] is frozen
    assert len(encoded) == 3


def test_any_sequence_of_messages_is_accepted() -> None:
    given: Any = deque([{"role": "user", "content": "x"}])
    assert encode_messages(given) == [{"role": "user", "content": "x"}]
    assert encode_messages([]) == []  # the chat template decides


def test_a_replys_message_is_sent_back_with_reasoning_and_tool_calls() -> None:
    message = reply().message
    assert isinstance(message, ChatMessage)
    assert encode_messages([message]) == [
        {
            "role": "assistant",
            "content": None,
            "reasoning": "Look it up.",
            "tool_calls": [
                {"id": "call-1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        }
    ]


def test_contents_are_not_inspected() -> None:
    class Untouchable:
        def __getattribute__(self, name: str) -> object:
            raise AssertionError(name)

    given: Any = [{"role": "user", "content": Untouchable()}] * 3
    assert len(encode_messages(given)) == 3


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        (
            {"role": "user"},
            "messages: must be a str or a list of messages, not a dict. Wrap it in [...].",
        ),
        (b"Hello", "messages: must be a str or a list of messages, not a bytes. Wrap it in list(...)."),
        (None, "messages: must be a str or a list of messages, not None."),
        (5, "messages: must be a str or a list of messages, not an int."),
        (
            (each for each in [{"role": "user"}]),
            "messages: must be a str or a list of messages, not a generator. Wrap it in list(...).",
        ),
        (["Hi"], 'messages[0]: must be a message, not a str. Write {"role": "user", "content": ...}.'),
        ([None], "messages[0]: must be a message, not None."),
        (
            [{"content": "x"}],
            'messages[0].role: is required. Common roles are "user", "assistant", "system" and "tool".',
        ),
        ([{"role": 5}], "messages[0].role: must be a string, not an int."),
        (
            [{"type": "text", "text": "x"}],
            (
                "messages[0].role: is required. This is a content part: "
                'wrap it in {"role": "user", "content": [...]}.'
            ),
        ),
    ],
)
def test_invalid_conversations(messages: object, text: str) -> None:
    assert refused(messages) == [text]


def test_a_reply_in_place_of_its_message_gets_a_hint() -> None:
    assert refused([reply()]) == [
        "messages[0]: must be a message, not a vllmchat.ChatCompletion. Use its .message."
    ]
    assert refused(reply().message) == [
        "messages: must be a str or a list of messages, not a vllmchat.ChatMessage. Wrap it in [...]."
    ]
    assert refused([reply().usage or reply().choices[0]]) == [
        "messages[0]: must be a message, not a vllmchat.Choice. Call .model_dump(exclude_none=True) on it."
    ]


def test_every_problem_is_reported() -> None:
    assert len(refused([{"role": "user"}, "x", {"content": "y"}])) == 2


def test_errors_do_not_show_contents() -> None:
    assert "secret" not in "".join(
        refused(["a secret", {"content": "a secret"}, {"role": 5, "content": "secret"}])
    )


def test_tool_message_refers_to_its_call() -> None:
    call = reply().tool_calls[0]
    assert tool_message(call, "21 °C") == {"role": "tool", "tool_call_id": "call-1", "content": "21 °C"}
    assert tool_message("call-2", [text_part("a")]) == {
        "role": "tool",
        "tool_call_id": "call-2",
        "content": [{"type": "text", "text": "a"}],
    }


@pytest.mark.parametrize("content", [{"a": 1}, 5, None])
def test_a_tool_result_must_be_text(content: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"json\.dumps"):
        tool_message("call-1", content)


def test_a_call_without_an_id_is_rejected() -> None:
    with pytest.raises(InvalidRequestError, match="has no id"):
        tool_message("", "x")


def test_custom_message() -> None:
    assert custom_message("critic", "Hm.", score=3) == {"role": "critic", "content": "Hm.", "score": 3}
    assert custom_message("end") == {"role": "end"}
    assert encode_messages([custom_message("critic", "Hm.", score=3)]) == [
        {"role": "critic", "content": "Hm.", "score": 3}
    ]
