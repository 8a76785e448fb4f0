"""What a conversation is made of.

A conversation is a `str`, which is one message of the user, or a list of messages. A message is a mapping
(the TypedDicts below), or the message of an earlier reply as it is: `history.append(reply.message)`.

Unknown keys in a message are kept by the server and handed to the chat template; `custom_message` makes
messages with roles and keys that have no TypedDict here.
"""

# No `from __future__ import annotations` here: it makes TypedDicts slower to import.

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NotRequired, Protocol, TypeAlias, cast

from typing_extensions import TypedDict

from vllmchat.chat.params import FunctionTool
from vllmchat.chat.parts import (
    ContentPart,
    OutputTextPart,
    RefusalPart,
    TextPart,
    ThinkingPart,
    ToolReferencePart,
    audio_part,
    image_part,
    text_part,
    video_part,
)
from vllmchat.checking.words import kind_of
from vllmchat.errors import InvalidRequestError, Problem

if TYPE_CHECKING:
    from vllmchat.chat.completion import ChatMessage

__all__ = [
    "AssistantMessage",
    "AssistantToolCall",
    "DeveloperMessage",
    "FunctionMessage",
    "Message",
    "Messages",
    "SystemMessage",
    "ToolMessage",
    "UserMessage",
    "audio_part",
    "custom_message",
    "encode_messages",
    "image_part",
    "text_part",
    "tool_message",
    "video_part",
]


class SystemMessage(TypedDict):
    """Instructions."""

    role: Literal["system"]
    content: str | Sequence[TextPart]
    name: NotRequired[str]


class DeveloperMessage(TypedDict):
    """Instructions, under the name that newer models know."""

    role: Literal["developer"]
    content: str | Sequence[TextPart]
    name: NotRequired[str]
    tools: NotRequired[Sequence[FunctionTool]]
    """Functions that the template writes into this message; vLLM."""


class UserMessage(TypedDict):
    """What the user says: text, or parts of text, images, sound and video."""

    role: Literal["user"]
    content: str | Sequence[ContentPart]
    name: NotRequired[str]


class CalledFunction(TypedDict):
    """The function of a tool call."""

    name: str
    arguments: str
    """Its arguments: JSON, as a string."""


class AssistantToolCall(TypedDict):
    """A call that an earlier reply made."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class CustomInput(TypedDict):
    """The custom tool of a tool call."""

    name: str
    input: str
    """What it was given."""


class AssistantCustomToolCall(TypedDict):
    """A call of a custom tool that an earlier reply made. vLLM does not know them."""

    id: str
    type: Literal["custom"]
    custom: CustomInput


class AudioReference(TypedDict):
    """The spoken output of an earlier reply, by its id."""

    id: str


class AssistantMessage(TypedDict):
    """What the model said. `reply.message` is one, too."""

    role: Literal["assistant"]
    content: NotRequired[str | Sequence[TextPart | OutputTextPart | RefusalPart | ThinkingPart] | None]
    """None, or absent, beside tool calls."""
    reasoning: NotRequired[str | None]
    """What it thought before. vLLM reads it since 0.11.1."""
    reasoning_content: NotRequired[str | None]
    """The older name of `reasoning`, which some other servers read. vLLM 0.16 to 0.21 ignores it."""
    tool_calls: NotRequired[Sequence[AssistantToolCall | AssistantCustomToolCall]]
    refusal: NotRequired[str | None]
    name: NotRequired[str]
    audio: NotRequired[AudioReference | None]
    function_call: NotRequired[CalledFunction | None]
    """The older form of `tool_calls`."""
    prefix: NotRequired[bool]
    """Go on writing this message, for servers that read it here. vLLM has `continue_final_message`."""


class ToolMessage(TypedDict):
    """The result of a tool call. See `tool_message`."""

    role: Literal["tool"]
    tool_call_id: str
    content: str | Sequence[ContentPart]
    name: NotRequired[str]


class FunctionMessage(TypedDict):
    """The result of a function call, in its older form."""

    role: Literal["function"]
    name: str
    content: str | None


Message: TypeAlias = (
    SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage
)
"""One message, as a mapping."""

Messages: TypeAlias = "str | Sequence[Message | ChatMessage]"
"""A conversation: a `str` is one message of the user."""


class HasId(Protocol):
    """A tool call of a reply."""

    @property
    def id(self) -> str:
        """Its id."""
        ...


def tool_message(call: str | HasId, content: str | Sequence[TextPart | ToolReferencePart]) -> ToolMessage:
    """The result of a tool call, as the message that answers it.

    Args:
        call: The call, from `reply.tool_calls`, or its id.
        content: What the tool gave. For anything but text, write `json.dumps(...)` around it.

    Raises:
        InvalidRequestError: The call has no id, or the content is neither text nor parts.
    """
    call_id = call if isinstance(call, str) else call.id
    if not call_id:
        raise InvalidRequestError([Problem("call", "", "has no id, so its result cannot be told apart.")])
    given = cast("object", content)  # type checkers rule the rest out, but results come from everywhere
    if not isinstance(given, str | list | tuple):
        rule = f"must be text or a list of parts, not {kind_of(given)}."
        raise InvalidRequestError([Problem("content", "", rule, "Write json.dumps(...) around it.")])
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def custom_message(
    role: str, content: str | Sequence[ContentPart] | None = None, /, **keys: object
) -> Message:
    """A message with a role or with keys of its own, for chat templates that read them.

    Args:
        role: Such as `"system"`, or any word that the template knows.
        content: Text or parts. None leaves it out.
        keys: What else goes into the message.
    """
    message: dict[str, object] = {"role": role}
    if content is not None:
        message["content"] = content
    message.update(keys)
    return cast("Message", message)


def encode_messages(messages: Messages) -> list[Mapping[str, object]]:
    """The messages as they go into the request body.

    Only the list and each message's role are looked at, so that it costs the same whatever the messages hold.

    Raises:
        InvalidRequestError: It is not a conversation.
    """
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    encoded: list[Mapping[str, object]] = []
    problems: list[Problem] = []
    for index, message in enumerate(_items(messages)):
        if isinstance(message, Mapping):
            mapping = cast("Mapping[str, object]", message)
            if isinstance(mapping.get("role"), str):
                encoded.append(mapping)
            else:
                problems.append(_no_role(mapping, index))
        elif hasattr(message, "to_request"):
            encoded.append(cast("ChatMessage", message).to_request())
        else:
            problems.append(_no_message(message, index))
    if problems:
        raise InvalidRequestError(problems)
    return encoded


def _is_list(messages: object) -> bool:
    return isinstance(messages, Sequence) and not isinstance(messages, bytes | bytearray | memoryview)


def _items(messages: object) -> Sequence[object]:
    if _is_list(messages):
        return cast("Sequence[object]", messages)
    kind = kind_of(messages)
    hint = None
    if isinstance(messages, Mapping) or hasattr(messages, "to_request"):
        hint = "Write [...] around it."
    elif hasattr(messages, "__iter__"):
        hint = "Write list(...) around it."
    rule = f"must be a str or a list of messages, not {kind}."
    raise InvalidRequestError([Problem("messages", "", rule, hint)])


def _no_role(message: Mapping[str, object], index: int) -> Problem:
    path = f"messages[{index}].role"
    if message.get("role") is not None:
        return Problem(path, "", f"must be a string, not {kind_of(message['role'])}.")
    hint = 'Such as "user", "assistant", "system" or "tool".'
    if message.get("type") is not None:
        hint = 'This is a content part: write {"role": "user", "content": [...]} around it.'
    return Problem(path, "", "is required.", hint)


def _no_message(message: object, index: int) -> Problem:
    hint = None
    if isinstance(message, str):
        hint = 'Write {"role": "user", "content": ...}.'
    elif hasattr(message, "choices") and hasattr(message, "message"):
        hint = "Of a reply, write .message."
    elif hasattr(message, "model_dump"):
        hint = "Write .model_dump(exclude_none=True) after it."
    kind = kind_of(message)
    return Problem(f"messages[{index}]", "", f"must be a message, not {kind}.", hint)
