"""Explains messages that are not valid: unknown roles and keys, missing contents, wrong types.

This module is imported only for messages that the quick check of `messages` does not accept. No content is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Final, cast

from vllmchat.chat.content import PARTS
from vllmchat.chat.roles import KEYS
from vllmchat.checking.describe import as_list, as_mapping, format_value, is_list, one_of, suggest, type_name
from vllmchat.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_CUSTOM_KEY: Final = "For a key that the chat template reads, use custom_message(...)."

_ROLE_ALIASES: Final = {
    "human": "user",
    "customer": "user",
    "prompter": "user",
    "ai": "assistant",
    "bot": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "chatbot": "assistant",
    "instructions": "system",
    "ipython": "tool",
    "observation": "tool",
    "tool_result": "tool",
}
"""Roles of other libraries and datasets."""

_KEY_ALIASES: Final = {
    **dict.fromkeys(("text", "message", "parts", "value", "body", "prompt"), "content"),
    **dict.fromkeys(("from", "type", "author", "speaker"), "role"),
    **dict.fromkeys(("id", "call_id", "tool_id", "tool_use_id", "toolCallId"), "tool_call_id"),
    **dict.fromkeys(("calls", "toolCalls"), "tool_calls"),
    **dict.fromkeys(("thinking", "thought", "thoughts"), "reasoning"),
    **dict.fromkeys(("tool_name", "function_name"), "name"),
}
"""Keys of other libraries and datasets."""

_MEDIA: Final = {"image": "image", "images": "image", "audio": "audio", "video": "video", "videos": "video"}

_SAYING: Final = ("tool_calls", "function_call", "reasoning", "reasoning_content", "refusal", "audio")
"""What an assistant message may have in place of a content."""


def explain_message(message: Mapping[str, object], path: str) -> list[Problem]:
    """Returns the problems of a message; none if it is unusual but valid.

    Args:
        message: The message.
        path: Where it is, such as `messages[0]`.
    """
    role = message.get("role")
    if not isinstance(role, str):
        return [_no_role(message, f"{path}.role")]
    keys = KEYS.get(role)
    if keys is None:
        return [_unknown_role(role, f"{path}.role")]
    problems: list[Problem] = []
    meant: set[str] = set()
    for key, value in cast("Mapping[object, object]", message).items():
        kinds = keys.get(key) if isinstance(key, str) else None
        if kinds is None:
            problem, name = _unknown_key(key, value, role, path)
            if problem is not None:
                problems.append(problem)
            meant.add(name or "")
        elif key == "content":
            problems += _content(value, role, message, f"{path}.content")
        elif not (isinstance(value, kinds) or (list in kinds and is_list(value))):
            problems.append(_wrong_type(value, kinds, f"{path}.{key}"))
    if "content" not in message and "content" not in meant and _needs_content(role, message):
        hint = f'Write {{"role": "{role}", "content": ...}}.'
        if role == "assistant":
            hint = f"{hint} It may be left out if there are `tool_calls`."
        problems.append(Problem(f"{path}.content", "", "is required.", hint))
    return problems


def _no_role(message: Mapping[str, object], path: str) -> Problem:
    role, kind = message.get("role"), message.get("type")
    if role is not None:
        return Problem(path, "", f"must be a string, not {type_name(role)}.")
    hint = 'Common roles are "user", "assistant", "system" and "tool".'
    speaker = kind or message.get("from")
    if isinstance(kind, str) and kind in PARTS:
        hint = 'This is a content part: wrap it in {"role": "user", "content": [...]}.'
    elif isinstance(speaker, str) and (meant := _role(speaker)):
        hint = f'Write {{"role": "{meant}", "content": ...}}.'
    else:
        keys = [key for key in cast("Mapping[object, object]", message) if isinstance(key, str)]
        written = next((key for key in keys if suggest_key(key) == "role"), None)
        if written is not None:
            return Problem(path, "", f'is required, but the message has "{written}".', "Did you mean `role`?")
    return Problem(path, "", "is required.", hint)


def _role(name: str) -> str | None:
    return _ROLE_ALIASES.get(name.lower()) or suggest(name, KEYS)


def _unknown_role(role: str, path: str) -> Problem:
    meant = _role(role)
    rule = f"must be {one_of(list(KEYS))}, unless the message is made by custom_message(...)."
    return Problem(path, format_value(role), rule, f'Did you mean "{meant}"?' if meant else None)


def _unknown_key(key: object, value: object, role: str, path: str) -> tuple[Problem | None, str | None]:
    """Returns the problem of a key that messages of a role do not have, if it is one, and the key that was meant."""
    if not isinstance(key, str):
        return Problem(path, "", f"must have strings as keys, not {type_name(key)}."), None
    where = f"{path}.{key}" if len(key) <= _LONGEST_KEY and key.isprintable() else path
    owners = [other for other, keys in KEYS.items() if key in keys]
    if owners:
        # Programs that write all keys into all messages leave the others empty.
        if not value:
            return None, None
        rule = f"is a key of {owners[0]} messages, not of {role} messages."
        return Problem(where, "", rule, "Leave it out."), None
    meant = suggest_key(key)
    rule = f"is not a key of {role} messages."
    if meant is not None and meant in KEYS[role]:
        return Problem(where, "", rule, f"Did you mean `{meant}`?"), meant
    if role == "assistant":
        return None, None  # servers add keys of their own to replies, and get them back
    if key in _MEDIA:
        helper = f"{_MEDIA[key]}_part(...)"
        return Problem(where, "", rule, f'Write "content": [text_part(...), {helper}].'), None
    return Problem(where, "", rule, _CUSTOM_KEY), None


_LONGEST_KEY: Final = 60
_ALL_KEYS: Final = frozenset(key for keys in KEYS.values() for key in keys)


@lru_cache(maxsize=256)
def suggest_key(key: str) -> str | None:
    """Returns the key of a message that was probably meant."""
    return _KEY_ALIASES.get(key) or suggest(key, _ALL_KEYS)


def _needs_content(role: str, message: Mapping[str, object]) -> bool:
    if role == "assistant":
        return not any(message.get(key) for key in _SAYING)
    return not (role == "developer" and message.get("tools"))


def _content(value: object, role: str, message: Mapping[str, object], path: str) -> Iterable[Problem]:
    if isinstance(value, str):
        return ()
    if value is None:
        if role in ("assistant", "function") or not _needs_content(role, message):
            return ()
        hint = 'Write "" for an empty one.' if role == "tool" else None
        return (Problem(path, "", "must be a string or a list of parts, not None.", hint),)
    parts = as_list(value)
    if parts is not None:
        return _parts(parts, path)
    mapping = as_mapping(value)
    hint = "Wrap it in str(...)." if isinstance(value, int | float) else None
    if mapping is not None:
        hint = "Wrap it in [...]." if "type" in mapping else "Wrap it in json.dumps(...)."
    return (Problem(path, "", f"must be a string or a list of parts, not {type_name(value)}.", hint),)


def _parts(parts: Sequence[object], path: str) -> Iterable[Problem]:
    for place, part in enumerate(parts):
        where = f"{path}[{place}]"
        if isinstance(part, str):
            continue
        mapping = as_mapping(part)
        if mapping is None:
            hint = "Use image_part(...)." if isinstance(part, bytes | bytearray) else None
            yield Problem(where, "", f"must be a content part, not {type_name(part)}.", hint)
        else:
            yield from _part(mapping, where)


def _part(part: Mapping[object, object], path: str) -> Iterable[Problem]:
    kind = part.get("type")
    if kind is None:
        if not any(key in part for key in PARTS.values()):
            yield Problem(
                f"{path}.type", "", "is required.", 'For text, write {"type": "text", "text": ...}.'
            )
        return
    if not isinstance(kind, str):
        yield Problem(f"{path}.type", "", f"must be a string, not {type_name(kind)}.")
        return
    key = PARTS.get(kind)
    if key is None:
        meant = suggest(kind, PARTS)
        hint = (
            f'Did you mean "{meant}"?'
            if meant
            else "For a part that only your server knows, use custom_message(...)."
        )
        if kind in _MEDIA:
            hint = f"Use {_MEDIA[kind]}_part(...)."
        yield Problem(f"{path}.type", format_value(kind), f"must be a type of part, such as {_COMMON}.", hint)
    elif key not in part:
        if part.get("uuid") is None:
            yield Problem(
                f"{path}.{key}",
                "",
                f'is required in a part of type "{kind}".',
                f'Write {{"type": "{kind}", "{key}": ...}}.',
            )
    elif key in _TEXTS and not isinstance(part[key], str):
        yield Problem(f"{path}.{key}", "", f"must be a string, not {type_name(part[key])}.")


_COMMON: Final = '"text" or "image_url"'
_TEXTS: Final = frozenset({"text", "refusal", "thinking"})


def _wrong_type(value: object, kinds: tuple[type, ...], path: str) -> Problem:
    what = {list: "a list", Mapping: "a mapping", bool: "True or False"}.get(kinds[0], "a string")
    hint = "Wrap it in [...]." if kinds[0] is list and as_mapping(value) is not None else None
    return Problem(path, "", f"must be {what}, not {type_name(value)}.", hint)
