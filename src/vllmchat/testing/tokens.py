"""A tokenizer for doubles: a token is a word with the space before it, or a punctuation mark."""

from __future__ import annotations

import re
import threading
from typing import Final

_TOKEN: Final = re.compile(r" ?\w{1,12}| ?[^\w\s]|\s")


def split(text: str) -> list[str]:
    """The tokens of a text; together they are the text."""
    return _TOKEN.findall(text)


def pieces_of(text: str, chunk: int | None) -> list[str]:
    """The pieces in which a text is streamed: so many characters each, or a token each."""
    if chunk is None:
        return split(text)
    return [text[start : start + chunk] for start in range(0, len(text), chunk)]


class Vocabulary:
    """Numbers the tokens in the order in which it meets them. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids: dict[str, int] = {}
        self._tokens: list[str] = []

    def encode(self, text: str) -> list[int]:
        """The ids of a text's tokens."""
        with self._lock:
            return [self._id(token) for token in split(text)]

    def decode(self, ids: list[int]) -> str:
        """The text of token ids; a replacement character for each id that was never met."""
        known = self._tokens
        return "".join(known[each] if 0 <= each < len(known) else "\ufffd" for each in ids)

    def _id(self, token: str) -> int:
        found = self._ids.get(token)
        if found is None:
            found = self._ids[token] = len(self._tokens)
            self._tokens.append(token)
        return found
