"""The prompt of a completion: text or tokens, or several of either."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from vllmchat.checking.describe import as_list, format_value, type_name, wrong_type
from vllmchat.checking.validator import check_tokens
from vllmchat.errors import InvalidRequestError, Problem

Prompt: TypeAlias = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]
"""A string or a list of token ids; or a list of prompts, all strings or all lists of token ids."""

_MOST_PROBLEMS = 5


def encode_prompt(prompt: Prompt) -> str | Sequence[object]:
    """Returns the prompt for the request body.

    Raises:
        InvalidRequestError: It is not a prompt.
    """
    if isinstance(prompt, str):
        if not prompt:
            raise InvalidRequestError([Problem("prompt", "''", "must not be empty.")])
        return prompt
    items = _items(prompt, "prompt")
    problems: list[Problem] = []
    if not items:
        problems.append(Problem("prompt", format_value(prompt), "must not be empty."))
    elif isinstance(items[0], str):
        for place, item in enumerate(items):
            if not isinstance(item, str):
                problems.append(wrong_type(item, f"prompt[{place}]", "a string, like the first prompt"))
    elif as_list(items[0]) is not None:
        for place, item in enumerate(items):
            path, ids = f"prompt[{place}]", as_list(item)
            if ids is None:
                problems.append(wrong_type(item, path, "a list of token ids, like the first prompt"))
            elif not ids:
                problems.append(Problem(path, "[]", "must not be empty."))
            else:
                problems += check_tokens(ids, path)
    else:
        problems += check_tokens(items, "prompt")
    if problems:
        raise InvalidRequestError(problems[:_MOST_PROBLEMS])
    return items


def count_prompts(prompt: str | Sequence[object]) -> int:
    """Returns the number of prompts in an encoded prompt."""
    if isinstance(prompt, str) or isinstance(prompt[0], int):
        return 1
    return len(prompt)


def _items(value: object, path: str) -> Sequence[object]:
    items = as_list(value)
    if items is None:
        what = "a string, a list of token ids, or a list of prompts"
        if hasattr(value, "tolist"):
            raise InvalidRequestError([wrong_type(value, path, what)])
        raise InvalidRequestError([Problem(path, "", f"must be {what}, not {type_name(value)}.")])
    return items
