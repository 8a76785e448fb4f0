"""The messages of a conversation.

A conversation is a `str`, which is one user message, or a list of messages. A message is a mapping (the TypedDicts
below) or the message of an earlier reply: `history.append(reply.message)`.

Roles and keys are checked before anything is sent. `custom_message` creates messages with roles and keys that only a
chat template knows; they are sent unchecked.
"""

# No `from __future__ import annotations` here: it makes TypedDicts slower to import.

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal, NotRequired, Protocol, TypeAlias, TypeVar, cast

from typing_extensions import TypedDict

from vllmchat.chat.content import (
    PARTS,
    ContentPart,
    ImageSource,
    OutputTextPart,
    PillowImage,
    RefusalPart,
    Source,
    TextPart,
    ThinkingPart,
    ToolReferencePart,
    audio_part,
    image_part,
    text_part,
    video_part,
)
from vllmchat.chat.roles import KEYS
from vllmchat.checking.describe import as_list, as_mapping, is_list, type_name
from vllmchat.errors import InvalidRequestError, Problem
from vllmchat.lazy import LazyModule
from vllmchat.schemas.tool_params import FunctionTool

if TYPE_CHECKING:
    from vllmchat.chat import wrong_messages
    from vllmchat.chat.completion import ChatMessage
else:
    wrong_messages = LazyModule("vllmchat.chat.wrong_messages")

S = TypeVar("S", bound=PillowImage)

__all__ = [
    "AssistantMessage",
    "AssistantToolCall",
    "DeveloperMessage",
    "FunctionMessage",
    "History",
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
    "user_message",
    "video_part",
]


class SystemMessage(TypedDict):
    """Instructions to the model."""

    role: Literal["system"]
    content: str | Sequence[TextPart]
    name: NotRequired[str]


class DeveloperMessage(TypedDict):
    """Instructions to the model, under the role name of newer models."""

    role: Literal["developer"]
    content: str | Sequence[TextPart]
    name: NotRequired[str]
    tools: NotRequired[Sequence[FunctionTool]]
    """Functions that the template writes into this message. vLLM only."""


class UserMessage(TypedDict):
    """A message from the user: text, or parts with text, images, audio and video."""

    role: Literal["user"]
    content: str | Sequence[ContentPart]
    name: NotRequired[str]


class CalledFunction(TypedDict):
    """The function of a tool call."""

    name: str
    arguments: str
    """Its arguments, as a JSON string."""


class AssistantToolCall(TypedDict):
    """A tool call from an earlier reply."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class CustomInput(TypedDict):
    """The custom tool of a tool call."""

    name: str
    input: str
    """Its input."""


class AssistantCustomToolCall(TypedDict):
    """A custom tool call from an earlier reply. vLLM does not support them."""

    id: str
    type: Literal["custom"]
    custom: CustomInput


class AudioReference(TypedDict):
    """The audio output of an earlier reply, by its id."""

    id: str


class AssistantMessage(TypedDict):
    """A message from the model. `reply.message` can be used in its place."""

    role: Literal["assistant"]
    content: NotRequired[str | Sequence[TextPart | OutputTextPart | RefusalPart | ThinkingPart] | None]
    """May be None or absent if there are tool calls."""
    reasoning: NotRequired[str | None]
    """The reasoning before the reply. Read since vLLM 0.11.1."""
    reasoning_content: NotRequired[str | None]
    """The older name of `reasoning`, for some other servers. vLLM 0.16 to 0.21 ignores it."""
    tool_calls: NotRequired[Sequence[AssistantToolCall | AssistantCustomToolCall]]
    refusal: NotRequired[str | None]
    name: NotRequired[str]
    audio: NotRequired[AudioReference | None]
    function_call: NotRequired[CalledFunction | None]
    """The older form of `tool_calls`."""
    prefix: NotRequired[bool]
    """Continue this message, on servers that read it here. For vLLM, use `continue_final_message`."""


class ToolMessage(TypedDict):
    """The result of a tool call. See `tool_message`."""

    role: Literal["tool"]
    tool_call_id: str
    content: str | Sequence[ContentPart]
    name: NotRequired[str]


class FunctionMessage(TypedDict):
    """The result of a function call (old form)."""

    role: Literal["function"]
    name: str
    content: str | None


TRUNCATED: Final = "truncated"
"""The key of a truncated tool call in a stored history. It is not sent."""

Message: TypeAlias = (
    SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage
)
"""One message, as a mapping."""

Messages: TypeAlias = "str | Sequence[Message | ChatMessage | Mapping[str, str]]"
"""A conversation. A `str` is one user message."""

History: TypeAlias = "list[Message | ChatMessage]"
"""A conversation to append to: `history: History = []`, then messages as mappings and `reply.message`."""


class HasId(Protocol):
    """A tool call of a reply."""

    @property
    def id(self) -> str:
        """Its id."""
        ...


def user_message(
    text: str,
    *,
    images: ImageSource | Sequence[ImageSource] = (),
    audio: Source | Sequence[Source] = (),
    videos: Source | Sequence[Source] = (),
) -> UserMessage:
    """Returns a message from the user, with images, audio and videos in front of the text.

    Args:
        text: The text.
        images: One image or several, each as for `image_part`: a URL, a path, bytes, or an image of Pillow.
        audio: One recording or several, each as for `audio_part`.
        videos: One video or several, each as for `video_part`.

    Raises:
        FileNotFoundError: A file does not exist.
        InvalidRequestError: A file is not what it should be, or its type cannot be detected.
    """
    parts: list[ContentPart] = [image_part(each) for each in _several(images)]
    parts += [audio_part(each) for each in _several(audio)]
    parts += [video_part(each) for each in _several(videos)]
    return {"role": "user", "content": [*parts, text_part(text)] if parts else text}


def _several(sources: Source | S | Sequence[Source | S]) -> Sequence[Source | S]:
    single = isinstance(sources, (str, bytes, bytearray)) or not isinstance(sources, Sequence)
    return cast("Sequence[Source | S]", [sources] if single else sources)


def tool_message(call: str | HasId, content: str | Sequence[TextPart | ToolReferencePart]) -> ToolMessage:
    """Returns the message with the result of a tool call.

    Args:
        call: The call, from `reply.tool_calls`, or its id.
        content: The result. Anything other than text must be wrapped in `json.dumps(...)`.

    Raises:
        InvalidRequestError: The call has no id, or the content is neither text nor parts.
    """
    call_id = call if isinstance(call, str) else call.id
    if not call_id:
        raise InvalidRequestError([Problem("call", "", "has no id, so a result cannot refer to it.")])
    value = cast("object", content)  # type checkers rule the rest out, but results come from everywhere
    if not isinstance(value, str | list | tuple):
        rule = f"must be text or a list of parts, not {type_name(value)}."
        raise InvalidRequestError([Problem("content", "", rule, "Wrap it in json.dumps(...).")])
    return {"role": "tool", "tool_call_id": call_id, "content": content}


class CustomMessage(dict[str, object]):
    """A message that is sent unchecked."""

    __slots__ = ()

    def copy(self) -> "CustomMessage":
        """Returns a copy that is sent unchecked too."""
        return CustomMessage(self)


def custom_message(role: str, content: str | Sequence[ContentPart] | None = None, **keys: object) -> Message:
    """Returns a message that is sent unchecked, for chat templates with roles and keys of their own.

    A message read from a file is marked again by `custom_message(**message)`.

    Args:
        role: A role such as `"system"`, or any other that the template knows.
        content: Text or parts. None leaves it out.
        keys: Further keys of the message.
    """
    message = CustomMessage(role=role)
    if content is not None:
        message["content"] = content
    message.update(keys)
    return cast("Message", message)


_MOST_PROBLEMS: Final = 5
"""A long history of wrong messages is one mistake."""


def encode_messages(messages: Messages) -> list[Mapping[str, object]]:
    """Returns the messages for the request body.

    The list, the roles, the keys and the types are checked. The cost does not depend on how long texts or media are.

    Raises:
        InvalidRequestError: `messages` is not a conversation.
    """
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    encoded: list[Mapping[str, object]] = []
    problems: list[Problem] = []
    for index, message in enumerate(_items(messages)):
        if isinstance(message, (dict, Mapping)):  # a dict is recognized faster as such
            mapping = cast("Mapping[str, object]", message)
            encoded.append(_without_marks(mapping) if mapping.get("tool_calls") else mapping)
            if not _is_usual(mapping) and not isinstance(mapping, CustomMessage):
                problems += wrong_messages.explain_message(mapping, f"messages[{index}]")
        elif hasattr(message, "to_request"):
            encoded.append(_without_marks(cast("ChatMessage", message).to_request()))
        else:
            problems.append(_no_message(message, index))
        if len(problems) >= _MOST_PROBLEMS:
            break
    if problems:
        raise InvalidRequestError(problems)
    return encoded


def _is_usual(message: Mapping[str, object]) -> bool:
    """Whether a message is certainly valid. What is unusual is looked at more closely."""
    role = message.get("role")
    if type(role) is not str or (keys := KEYS.get(role)) is None:
        return False
    content = message.get("content")
    if type(content) is str:
        if len(message) == 2:
            return True
    elif type(content) is list:
        if not _are_usual(cast("list[object]", content)):
            return False
    elif content is not None or role != "assistant" or not message.get("tool_calls"):
        return False
    for key, value in message.items():
        if key != "content" and not ((kinds := keys.get(key)) and isinstance(value, kinds)):
            return False
    return True


def _are_usual(parts: list[object]) -> bool:
    for part in parts:
        if type(part) is not dict:
            return False
        values = cast("dict[object, object]", part)
        kind = values.get("type")
        if type(kind) is not str or (key := PARTS.get(kind)) is None or key not in values:
            return False
        if kind == "text" and type(values["text"]) is not str:
            return False
    return True


def _without_marks(message: Mapping[str, object]) -> Mapping[str, object]:
    """Returns a message without the marks of truncated tool calls, which are only for stored histories."""
    calls = as_list(message.get("tool_calls")) or ()
    if not any(isinstance(call, Mapping) and TRUNCATED in call for call in calls):
        return message
    unmarked = [
        {key: each for key, each in (as_mapping(call) or {}).items() if key != TRUNCATED} for call in calls
    ]
    return {**message, "tool_calls": unmarked}


def _items(messages: object) -> Sequence[object]:
    if is_list(messages):
        return cast("Sequence[object]", messages)
    kind = type_name(messages)
    hint = None
    if isinstance(messages, Mapping) or hasattr(messages, "to_request"):
        hint = "Wrap it in [...]."
    elif hasattr(messages, "__iter__"):
        hint = "Wrap it in list(...)."
    rule = f"must be a str or a list of messages, not {kind}."
    raise InvalidRequestError([Problem("messages", "", rule, hint)])


def _no_message(message: object, index: int) -> Problem:
    hint = None
    if isinstance(message, str):
        hint = 'Write {"role": "user", "content": ...}.'
    elif hasattr(message, "choices") and hasattr(message, "message"):
        hint = "Use its .message."
    elif hasattr(message, "model_dump"):
        hint = "Call .model_dump(exclude_none=True) on it."
    kind = type_name(message)
    return Problem(f"messages[{index}]", "", f"must be a message, not {kind}.", hint)
