"""Messages in forms of their own, as some servers send them, brought into the usual form.

Only messages that the compiled validator rejects come here, so none of this costs the usual message anything.
"""

from __future__ import annotations

from typing import cast

from vllmchat.wire.decode import JsonObject, as_object, has_thinking, text_of_parts


def usual_form(value: object) -> JsonObject:
    """Returns the fields of a message, or of what a chunk adds to one, in the usual form.

    - No message at all is an empty one, as are the empty lists of servers that do not tell lists from objects.
    - Parts of thoughts in the content become the reasoning, as from Mistral's models.
    - Tool calls in an object become a list.

    Raises:
        ValueError: It is not a message.
    """
    if value is None or value == []:
        return {}
    fields = as_object(value)
    if fields is None:
        raise ValueError("not a message")
    fields = dict(fields)
    if has_thinking(fields.get("content")):
        thoughts, fields["content"] = _split(fields["content"])
        if not fields.get("reasoning") and not fields.get("reasoning_content"):
            fields["reasoning"] = thoughts
    calls = as_object(fields.get("tool_calls"))
    if calls is not None:
        fields["tool_calls"] = [calls] if "function" in calls else list(calls.values())
    return fields


def _split(content: object) -> tuple[str, str]:
    """The thoughts and the text of content in parts."""
    parts = cast("list[object]", content if isinstance(content, list) else [content])
    thoughts = [each["thinking"] for part in parts if (each := as_object(part)) and "thinking" in each]
    return "".join(map(text_of_parts, thoughts)), text_of_parts(parts)
