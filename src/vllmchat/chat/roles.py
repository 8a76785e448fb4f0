"""The roles of messages, and the keys that a message of each role has."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Final

_TEXT: Final = (str, NoneType)
_COMMON: Final[dict[str, tuple[type, ...]]] = {
    "role": (str,),
    "content": (str,),
    "name": _TEXT,
    "task": _TEXT,
}

KEYS: Final[dict[str, dict[str, tuple[type, ...]]]] = {
    "user": _COMMON,
    "assistant": {
        **_COMMON,
        "reasoning": _TEXT,
        "reasoning_content": _TEXT,
        "tool_calls": (list, tuple, NoneType),
        "refusal": _TEXT,
        "audio": (Mapping, NoneType),
        "function_call": (Mapping, NoneType),
        "annotations": (object,),
        "prefix": (bool, NoneType),
    },
    "system": _COMMON,
    "tool": {**_COMMON, "tool_call_id": _TEXT},
    "developer": {**_COMMON, "tools": (list, tuple, NoneType)},
    "function": _COMMON,
}
"""The roles, and the keys of their messages with the types of their values; contents are checked in addition."""
