"""The order in which inputs that begin alike find each other in the server's prefix cache."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final, cast

SHARED: Final = 256
"""Inputs are of one group if they share so many characters: a few blocks of the cache, which have 16 tokens each."""


def prefix_order(inputs: Sequence[object]) -> list[int]:
    """Returns the positions of the inputs in the order in which to send them.

    Inputs that share a long beginning follow each other, and the first of each group is sent before the rest of the
    group ahead of it: its beginning is in the cache when the others of its group come.
    """
    keys = [beginning_of(each) for each in inputs]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    groups: list[list[int]] = []
    for index in order:
        if groups and _share(keys[groups[-1][0]], keys[index]):
            groups[-1].append(index)
        else:
            groups.append([index])
    result: list[int] = []
    for place, group in enumerate(groups):
        if place == 0:
            result.append(group[0])
        if place + 1 < len(groups):
            result.append(groups[place + 1][0])
        result += group[1:]
    return result


def _share(first: str, second: str) -> bool:
    # A shorter text that is the whole beginning of the other shares all of itself.
    return first[:SHARED] == second[:SHARED]


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
