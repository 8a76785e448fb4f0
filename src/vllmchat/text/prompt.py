"""What a completion goes on from: text, or tokens, or several of either."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, cast

from vllmchat.checking.words import as_list, kind_of, not_a, show
from vllmchat.errors import InvalidRequestError, Problem

Prompt: TypeAlias = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]
"""A text or the ids of its tokens; or several prompts, all texts or all lists of ids."""

_MOST_PROBLEMS = 5


def encode_prompt(prompt: Prompt) -> str | Sequence[object]:
    """The prompt as it goes into the request body.

    Raises:
        InvalidRequestError: It is no prompt.
    """
    if isinstance(prompt, str):
        if not prompt:
            raise InvalidRequestError([Problem("prompt", "''", "must not be empty.")])
        return prompt
    items = _items(prompt, "prompt")
    problems: list[Problem] = []
    if not items:
        problems.append(Problem("prompt", show(prompt), "must not be empty."))
    elif isinstance(items[0], str):
        for place, item in enumerate(items):
            if not isinstance(item, str):
                problems.append(not_a(item, f"prompt[{place}]", "a string, as the first prompt is"))
    elif as_list(items[0]) is not None:
        for place, item in enumerate(items):
            path, ids = f"prompt[{place}]", as_list(item)
            if ids is None:
                problems.append(not_a(item, path, "a list of token ids, as the first prompt is"))
            elif not ids:
                problems.append(Problem(path, "[]", "must not be empty."))
            else:
                problems += token_problems(ids, path)
    else:
        problems += token_problems(items, "prompt")
    if problems:
        raise InvalidRequestError(problems[:_MOST_PROBLEMS])
    return items


def count_prompts(prompt: str | Sequence[object]) -> int:
    """How many prompts an encoded prompt holds."""
    if isinstance(prompt, str) or isinstance(prompt[0], int):
        return 1
    return len(prompt)


def token_problems(ids: Sequence[object], path: str) -> list[Problem]:
    """What is wrong with token ids: nothing for whole numbers that are not negative."""
    if set(map(type, ids)) == {int} and min(cast("Sequence[int]", ids)) >= 0:  # thousands of ids at C's speed
        return []
    problems: list[Problem] = []
    for place, each in enumerate(ids):
        if isinstance(each, bool) or not isinstance(each, int):
            problems.append(not_a(each, f"{path}[{place}]", "a token id: an integer"))
        elif each < 0:
            problems.append(Problem(f"{path}[{place}]", show(each), "must be at least 0."))
        if len(problems) >= _MOST_PROBLEMS:
            break
    return problems


def _items(value: object, path: str) -> Sequence[object]:
    items = as_list(value)
    if items is None:
        what = "a text, a list of token ids, or a list of several prompts"
        if hasattr(value, "tolist"):
            raise InvalidRequestError([not_a(value, path, what)])
        raise InvalidRequestError([Problem(path, "", f"must be {what}, not {kind_of(value)}.")])
    return items
