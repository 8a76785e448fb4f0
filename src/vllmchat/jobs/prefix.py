"""The order in which inputs that begin alike find each other in the server's prefix cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARED: Final = 256
"""Inputs are of one group if they share so many characters: a few blocks of the cache, which have 16 tokens each."""

_LENGTHS: Final = tuple(SHARED << power for power in range(8))
_DIGEST: Final = 4


def prefix_order(inputs: Sequence[object]) -> list[int]:
    """Returns the positions of the inputs in the order in which to send them.

    Inputs that share a long beginning follow each other, and the first of each group is sent before the rest of the
    group ahead of it: its beginning is in the cache when the others of its group come.
    """
    return list(_by_group([beginning_of(each) for each in inputs], SHARED))


def short_key(item: object) -> bytes:
    """Returns a key of a fixed length for `order_of_keys`: digests of longer and longer beginnings of an input."""
    text = beginning_of(item).encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(digest_size=_DIGEST)
    key, start = b"", 0
    for end in _LENGTHS:
        digest.update(text[start:end])
        key += digest.digest()
        start = end
    return key


def order_of_keys(keys: Sequence[bytes]) -> Iterator[int]:
    """Yields the positions of the inputs as `prefix_order` does, of their short keys."""
    return _by_group(keys, _DIGEST)


def _by_group(keys: Sequence[str] | Sequence[bytes], shared: int) -> Iterator[int]:
    """Yields positions by groups of the same beginning, and the first of each before the rest of the group ahead."""
    group: list[int] = []
    for index in sorted(range(len(keys)), key=keys.__getitem__):
        # A shorter text that is the whole beginning of the other shares all of itself.
        if group and keys[group[0]][:shared] == keys[index][:shared]:
            group.append(index)
            continue
        yield index
        yield from group[1:]
        group = [index]
    yield from group[1:]


def beginning_of(item: object) -> str:
    """Returns what an input begins with, in the order in which a chat template writes it."""
    if isinstance(item, str):
        return item
    tools: object = None
    if isinstance(item, Mapping):
        fields = cast("Mapping[str, object]", item)
        tools = fields.get("tools")
        names = ("messages", "prompt", "input", "body")
        item = next((fields[name] for name in names if name in fields), str(fields))
        if isinstance(item, Mapping):
            return beginning_of(cast("Mapping[str, object]", item))
    if isinstance(item, str):
        text = item
    elif isinstance(item, Sequence):
        text = "".join(_text_of(each) for each in cast("Sequence[object]", item))
    else:
        text = str(item)
    return text if tools is None else json.dumps(tools, default=str) + text


def _text_of(message: object) -> str:
    if isinstance(message, Mapping):
        fields = cast("Mapping[str, object]", message)
        content = fields.get("content")
        text = content if isinstance(content, str) else json.dumps(content, default=str)
        return f"\n{fields.get('role')}:{text}"
    return f" {message}"
