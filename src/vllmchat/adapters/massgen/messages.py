"""Converts MassGen's conversations for a vLLM server. Does not depend on the MassGen package."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from vllmchat.chat.messages import CustomMessage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Item = dict[str, Any]
"""A message, of MassGen or of a request: plain JSON data."""


def request_messages(items: Iterable[Mapping[str, Any]]) -> list[Item]:
    """Returns the messages of a request.

    MassGen's messages are almost ready to send, with four exceptions: image, audio and video parts are in MassGen's
    own format; a conversation may contain items of OpenAI's Responses API; the arguments of a tool call may be no JSON
    object, and become an empty one; and after an answer that MassGen did not accept, a tool call may lack its result,
    or a result its call, which chat templates render as nonsense or reject. A call without a result is dropped; a
    result without a call becomes a user message.

    Args:
        items: MassGen's messages. They are not modified.
    """
    # Sent unchecked: whoever runs MassGen cannot correct its messages.
    return [CustomMessage(each) for each in _paired([new for item in items for new in _converted(item)])]


def _converted(item: Mapping[str, Any]) -> Iterable[Item]:
    match item.get("type"):
        case "function_call":
            call = {
                "id": item.get("call_id") or item.get("id") or "",
                "type": "function",
                "function": {"name": item.get("name", ""), "arguments": _arguments(item.get("arguments"))},
            }
            yield {"role": "assistant", "content": None, "tool_calls": [call]}
        case "function_call_output":
            yield {
                "role": "tool",
                "tool_call_id": item.get("call_id") or "",
                "content": _text(item.get("output")),
            }
        case _ if isinstance(item.get("role"), str):
            yield _message(item)
        case _:
            # A reasoning item, or something else from the Responses API that does not belong in a chat.
            return


def _message(item: Mapping[str, Any]) -> Item:
    message = dict(item)
    message.pop("type", None)
    content = message.get("content")
    calls = message.get("tool_calls")
    if calls:
        message["tool_calls"] = [_call(call) for call in calls]
    else:
        message.pop("tool_calls", None)
    if isinstance(content, list):
        message["content"] = [_part(part) for part in cast("list[object]", content)]
    elif content is None and not calls:
        message["content"] = ""
    return message


def _call(call: Mapping[str, Any]) -> Item:
    function: Mapping[str, Any] = call.get("function") or {}
    return {
        "id": call.get("id") or "",
        "type": "function",
        "function": {"name": function.get("name", ""), "arguments": _arguments(function.get("arguments"))},
    }


def _arguments(arguments: object) -> str:
    """The arguments as JSON text of an object; servers reject a conversation in which they are anything else."""
    if isinstance(arguments, dict):
        return json.dumps(arguments, ensure_ascii=False)
    return arguments if isinstance(arguments, str) and is_object(arguments) else "{}"


def is_object(text: str) -> bool:
    """Whether a text is a JSON object."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    return "" if content is None else json.dumps(content, ensure_ascii=False, default=str)


_AUDIO_FORMATS = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav"}


def _part(part: object) -> Item:
    if not isinstance(part, dict):
        return {"type": "text", "text": str(part)}
    known = cast("Item", part)
    match known:
        case {"type": "input_text" | "output_text", "text": str(text)}:
            return {"type": "text", "text": text}
        case {"type": "image", "url": url}:
            return {"type": "image_url", "image_url": {"url": url}}
        case {"type": "image", "base64": data}:
            return {"type": "image_url", "image_url": {"url": _data_url(known, "image/jpeg", data)}}
        case {"type": "audio", "base64": data}:
            kind = str(known.get("mime_type", "audio/wav")).rpartition("/")[2]
            return {
                "type": "input_audio",
                "input_audio": {"data": data, "format": _AUDIO_FORMATS.get(kind, kind)},
            }
        case {"type": "video", "base64": data}:
            return {"type": "video_url", "video_url": {"url": _data_url(known, "video/mp4", data)}}
        case {"type": "video_url", "url": url}:
            return {"type": "video_url", "video_url": {"url": url}}
        case _:
            return known


def _data_url(part: Item, default: str, data: object) -> str:
    return f"data:{part.get('mime_type', default)};base64,{data}"


def _paired(messages: Sequence[Item]) -> list[Item]:
    """The messages with each tool call followed by its result, and no result without its call."""
    kept: list[Item] = []
    waiting: set[str] = set()
    """IDs of calls in the last assistant message that have no result yet."""
    names: dict[str, str] = {}
    orphans: list[Item] = []
    """Messages in words, added once no call is waiting for its result."""

    def settle() -> None:
        if waiting:
            _drop_calls(kept, waiting)
            waiting.clear()
        kept.extend(orphans)
        orphans.clear()

    for message in messages:
        if message["role"] == "tool":
            call_id = str(message.get("tool_call_id") or "")
            if call_id in waiting:
                waiting.remove(call_id)
                kept.append(message)
            else:
                orphans.append(_in_words(message, names.get(call_id)))
            if not waiting:
                settle()
            continue
        calls: list[Item] = message.get("tool_calls") or []
        previous = kept[-1] if kept else {}
        if calls and message.get("content") is None and "tool_calls" in previous and not orphans:
            # The Responses API lists parallel calls one by one; in a chat they belong to one message.
            previous["tool_calls"].extend(calls)
        else:
            settle()
            kept.append(message)
        for call in calls:
            waiting.add(call["id"])
            names[call["id"]] = call["function"]["name"]
    settle()
    return kept


def _drop_calls(kept: list[Item], unanswered: set[str]) -> None:
    """Removes calls without results from the last assistant message, and the message if it is empty then."""
    place = max(place for place, message in enumerate(kept) if message["role"] == "assistant")
    message = kept[place]
    answered = [call for call in message.pop("tool_calls") if call["id"] not in unanswered]
    if answered:
        message["tool_calls"] = answered
    elif not message.get("content"):
        del kept[place]


def _in_words(message: Item, tool: str | None) -> Item:
    name = tool or message.get("name")
    about = f" of {name}" if name else ""
    return {"role": "user", "content": f"[Result{about}]\n{_text(message.get('content'))}"}
