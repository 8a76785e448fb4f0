"""The library's messages in the words of a YAML file. Does not depend on the MassGen package.

The library speaks of keyword arguments and methods; users of MassGen write keys of a backend block.
"""

from __future__ import annotations

import re
from typing import Final

from vllmchat.chat.check import VLLM_CHAT_NAMES

_KEYS: Final = "|".join(sorted({*VLLM_CHAT_NAMES, "api_key", "base_url", "model"}, key=len, reverse=True))

_PHRASES: Final = (
    (re.compile(r"What (?:had )?arrived is in \.partial; t"), "T"),
    (re.compile(r"\s*What (?:had )?arrived is in \.partial\b\.?"), ""),
    (re.compile(r"timeout=Timeout\((\w+)=([^)]*)\)"), r"`timeout: {\1: \2}`"),
    (re.compile(r"\bTimeout\.(?=\w)"), "timeout."),
    (re.compile(r"a number or a Timeout\b"), "a number of seconds or a mapping such as {idle: 60}"),
    (re.compile(r"\bmapping or a type\b"), "mapping"),
    (re.compile(r"\bmappings or functions\b"), "mappings"),
    # Not in the query of a URL, nor in a flag.
    (re.compile(rf"(?<![\w?&/.-])({_KEYS})=(?=\S)"), r"\1: "),
)

_VALUES: Final = {"True": "true", "False": "false", "None": "null"}
_VALUE: Final = re.compile(r"\b(True|False|None)\b")


def in_yaml(text: str) -> str:
    """A message with keys in place of keyword arguments."""
    for pattern, words in _PHRASES:
        text = pattern.sub(words, text)
    return text


def value_in_yaml(text: str) -> str:
    """A Python value, or a message that quotes some, with YAML's words for it."""
    return _VALUE.sub(lambda found: _VALUES[found[0]], text)
