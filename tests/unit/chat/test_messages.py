"""Encoding of conversations for the request body."""

from __future__ import annotations

import copy
from collections import UserDict, deque
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import pytest

from vllmchat.chat.completion import ChatCompletion, ChatMessage, decode_completion
from vllmchat.chat.messages import (
    audio_part,
    custom_message,
    encode_messages,
    image_part,
    text_part,
    tool_message,
    user_message,
    video_part,
)
from vllmchat.errors import InvalidRequestError
from vllmchat.wire.encode import encode_json

if TYPE_CHECKING:
    from pathlib import Path

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
    user = {"role": "user", "content": [{"type": "text", "text": "x", "a_key_of_the_template": 1}]}
    frozen = MappingProxyType({"role": "assistant", "content": "y"})
    given: Any = (user, frozen, UserDict({"role": "tool", "tool_call_id": "c", "content": "z"}))
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
    class Untouchable(str):
        __slots__ = ()

        def __len__(self) -> int:
            raise AssertionError

        __iter__ = __getitem__ = __contains__ = __eq__ = __hash__ = __len__  # type: ignore[assignment]

    text = Untouchable("x" * 10)
    given: Any = [
        {"role": "user", "content": text},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": text}}]},
        {"role": "assistant", "content": text, "reasoning": text},
    ]
    assert len(encode_messages(given)) == 3


ACCEPTED: list[dict[str, object]] = [
    {"role": "developer", "content": "x", "tools": [{"type": "function", "function": {"name": "f"}}]},
    {"role": "developer", "tools": [{"type": "function", "function": {"name": "f"}}]},
    {"role": "system", "content": [{"type": "text", "text": "x"}], "name": "n"},
    {"role": "user", "content": "x", "name": None, "task": "search"},
    {"role": "user", "content": []},
    {"role": "user", "content": ["x", {"type": "text", "text": "y"}]},
    {"role": "user", "content": ({"type": "text", "text": "y"},)},
    {"role": "user", "content": [{"image_url": "https://h/a.png"}]},
    {"role": "user", "content": [{"type": "image_url", "uuid": "u"}]},
    {"role": "user", "content": [{"type": "image_url", "image_url": None, "uuid": "u"}]},
    {"role": "user", "content": [{"type": "input_image", "image_url": "https://h/a.png"}]},
    {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "A", "format": "wav"}}]},
    {"role": "user", "content": [{"type": "audio_url", "audio_url": {"url": "https://h/a.wav"}}]},
    {"role": "user", "content": [{"type": "video_url", "video_url": {"url": "https://h/a.mp4"}}]},
    {"role": "user", "content": [{"type": "image_embeds", "image_embeds": {"a": "A"}}]},
    {"role": "user", "content": [{"type": "audio_embeds", "audio_embeds": "A"}]},
    {"role": "user", "content": [{"type": "video_embeds", "video_embeds": "A"}]},
    {"role": "user", "content": [{"type": "prompt_embeds", "data": "A"}]},
    {"role": "user", "content": [{"type": "input_text", "text": "x"}]},
    {"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]},
    # Programs that write all keys into all messages
    {"role": "user", "content": "x", "tool_calls": None, "tool_call_id": None, "reasoning": ""},
    # openai's own message, dumped
    {
        "role": "assistant", "content": None, "refusal": None, "annotations": [], "audio": None,
        "function_call": None, "tool_calls": None, "reasoning": None, "reasoning_content": None,
    },
    {"role": "assistant", "content": "x", "refusal": None, "prefix": True, "name": "n"},
    {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f"}}]},
    {"role": "assistant", "content": None, "tool_calls": deque([{"id": "c"}])},
    {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
    {"role": "assistant", "refusal": "No."},
    {"role": "assistant", "audio": {"id": "a"}},
    {"role": "assistant", "reasoning": "Hm."},
    {"role": "assistant", "content": [{"type": "thinking", "thinking": "x"}, {"type": "output_text", "text": "y"}]},
    {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
    # What a gateway adds to replies and gets back
    {"role": "assistant", "content": "x", "reasoning_details": [{"type": "x"}]},
    {"role": "tool", "tool_call_id": "c", "content": "x", "name": "f"},
    {"role": "tool", "content": [{"type": "tool_reference", "name": "f"}], "tool_call_id": "c"},
    {"role": "tool", "name": "f", "content": "x"},
    {"role": "function", "name": "f", "content": None},
]  # fmt: skip
"""What vLLM accepts, one message each."""


@pytest.mark.parametrize("message", ACCEPTED, ids=lambda message: f"{message['role']}-{list(message)[1:]}")
def test_what_vllm_accepts(message: dict[str, object]) -> None:
    given: Any = [message]
    assert encode_messages(given) == [message]


class _Role(str, Enum):  # noqa: UP042 - the older kind of enum
    USER = "user"


def test_a_role_may_be_an_enum() -> None:
    given: Any = [{"role": _Role.USER, "content": "x"}]
    assert encode_messages(given) == given


ROLES = (
    '"user", "assistant", "system", "tool", "developer" or "function", '
    "unless the message is made by custom_message(...)."
)
KEY = "For a key that the chat template reads, use custom_message(...)."


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"role": "asistant", "content": "x"}, f'.role=\'asistant\': must be {ROLES} Did you mean "assistant"?'),
        ({"role": "human", "content": "x"}, f'.role=\'human\': must be {ROLES} Did you mean "user"?'),
        ({"role": "ai", "content": "x"}, f'.role=\'ai\': must be {ROLES} Did you mean "assistant"?'),
        ({"role": "User", "content": "x"}, f'.role=\'User\': must be {ROLES} Did you mean "user"?'),
        ({"role": "critic", "content": "x"}, f".role='critic': must be {ROLES}"),
        ({"role": ["user"], "content": "x"}, ".role: must be a string, not a list."),
        ({"role": "user", "contnet": "x"}, ".contnet: is not a key of user messages. Did you mean `content`?"),
        (
            {"role": "assistant", "contnet": "x"},
            ".contnet: is not a key of assistant messages. Did you mean `content`?",
        ),
        ({"role": "user", "text": "x"}, ".text: is not a key of user messages. Did you mean `content`?"),
        ({"role": "user", "parts": ["x"]}, ".parts: is not a key of user messages. Did you mean `content`?"),
        ({"role": "user", "content": "x", "mood": 1}, f".mood: is not a key of user messages. {KEY}"),
        (
            {"role": "user", "content": "x", "images": ["a"]},
            '.images: is not a key of user messages. Write "content": [text_part(...), image_part(...)].',
        ),
        (
            {"role": "user", "content": "x", "tool_calls": [1]},
            ".tool_calls: is a key of assistant messages, not of user messages. Leave it out.",
        ),
        (
            {"role": "tool", "content": "x", "call_id": "c"},
            ".call_id: is not a key of tool messages. Did you mean `tool_call_id`?",
        ),
        ({"role": "user", "content": "x", 5: "y"}, ": must have strings as keys, not an int."),
        ({"role": "user"}, '.content: is required. Write {"role": "user", "content": ...}.'),
        (
            {"role": "assistant"},
            (
                '.content: is required. Write {"role": "assistant", "content": ...}. '
                "It may be left out if there are `tool_calls`."
            ),
        ),
        ({"role": "user", "content": None}, ".content: must be a string or a list of parts, not None."),
        (
            {"role": "tool", "tool_call_id": "c", "content": None},
            '.content: must be a string or a list of parts, not None. Write "" for an empty one.',
        ),
        (
            {"role": "user", "content": 5},
            ".content: must be a string or a list of parts, not an int. Wrap it in str(...).",
        ),
        (
            {"role": "tool", "tool_call_id": "c", "content": {"a": 1}},
            ".content: must be a string or a list of parts, not a dict. Wrap it in json.dumps(...).",
        ),
        (
            {"role": "user", "content": {"type": "text", "text": "x"}},
            ".content: must be a string or a list of parts, not a dict. Wrap it in [...].",
        ),
        ({"role": "user", "content": b"x"}, ".content: must be a string or a list of parts, not a bytes."),
        ({"role": "user", "content": "x", "name": 5}, ".name: must be a string, not an int."),
        ({"role": "tool", "content": "x", "tool_call_id": 5}, ".tool_call_id: must be a string, not an int."),
        ({"role": "assistant", "tool_calls": "f"}, ".tool_calls: must be a list, not a str."),
        (
            {"role": "assistant", "tool_calls": {"id": "c"}},
            ".tool_calls: must be a list, not a dict. Wrap it in [...].",
        ),
        ({"role": "assistant", "function_call": "f"}, ".function_call: must be a mapping, not a str."),
        ({"role": "assistant", "content": "x", "prefix": "yes"}, ".prefix: must be True or False, not a str."),
        (
            {"role": "user", "content": [{"type": "txt", "text": "x"}]},
            '.content[0].type=\'txt\': must be a type of part, such as "text" or "image_url". Did you mean "text"?',
        ),
        (
            {"role": "user", "content": [{"type": "image", "image": "x"}]},
            '.content[0].type=\'image\': must be a type of part, such as "text" or "image_url". Use image_part(...).',
        ),
        (
            {"role": "user", "content": [{"type": "x"}]},
            (
                '.content[0].type=\'x\': must be a type of part, such as "text" or "image_url". '
                "For a part that only your server knows, use custom_message(...)."
            ),
        ),
        ({"role": "user", "content": [{"type": 5}]}, ".content[0].type: must be a string, not an int."),
        (
            {"role": "user", "content": [{"x": 5}]},
            '.content[0].type: is required. For text, write {"type": "text", "text": ...}.',
        ),
        (
            {"role": "user", "content": ["a", {"type": "text", "txt": "x"}]},
            '.content[1].text: is required in a part of type "text". Write {"type": "text", "text": ...}.',
        ),
        ({"role": "user", "content": [{"type": "text", "text": 5}]}, ".content[0].text: must be a string, not an int."),
        (
            {"role": "user", "content": [b"GIF89a"]},
            ".content[0]: must be a content part, not a bytes. Use image_part(...).",
        ),
        ({"from": "human", "value": "x"}, '.role: is required. Write {"role": "user", "content": ...}.'),
        ({"type": "ai", "content": "x"}, '.role: is required. Write {"role": "assistant", "content": ...}.'),
        ({"rol": "user", "content": "x"}, '.role: is required, but the message has "rol". Did you mean `role`?'),
    ],
)  # fmt: skip
def test_invalid_messages(message: dict[object, object], text: str) -> None:
    assert refused([{"role": "user", "content": "x"}, message]) == [f"messages[1]{text}"]
    frozen: MappingProxyType[object, object] = MappingProxyType(message)
    assert refused([frozen]) == [f"messages[0]{text}"]


def test_a_long_history_of_wrong_messages_is_one_mistake() -> None:
    assert len(refused([{"role": "usr", "content": "x"}] * 1000)) == 5


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
    assert len(refused([{"role": "user"}, "x", {"content": "y"}])) == 3


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
    message = custom_message("critic", "Hm.", score=3)
    assert message == {"role": "critic", "content": "Hm.", "score": 3}
    assert custom_message("end") == {"role": "end"}
    again: Any = {**message}
    copies: Any = [
        message,
        copy.copy(message),
        copy.deepcopy(message),
        message.copy(),
        custom_message(**again),
    ]
    assert encode_messages(copies) == [message] * 5
    assert encode_json({"messages": encode_messages(copies)}) == encode_json({"messages": [again] * 5})
    assert refused([again])


def test_user_message_has_its_media_in_front_of_the_text(tmp_path: Path) -> None:
    png = b"\x89PNG\r\n\x1a\n"
    path = tmp_path / "cat.png"
    path.write_bytes(png)
    assert user_message("Hello") == {"role": "user", "content": "Hello"}
    message = user_message(
        "What is it?",
        images=["https://h/a.png", path, png],
        audio="https://h/a.wav",
        videos=("https://h/a.mp4",),
    )
    assert message == {
        "role": "user",
        "content": [
            image_part("https://h/a.png"),
            image_part(path),
            image_part(png),
            audio_part("https://h/a.wav"),
            video_part("https://h/a.mp4"),
            text_part("What is it?"),
        ],
    }
    assert (
        user_message("x", images=path) == user_message("x", images=str(path)) == user_message("x", images=png)
    )
    assert encode_messages([message]) == [message]
