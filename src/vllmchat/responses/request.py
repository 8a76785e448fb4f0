"""The request for a response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from vllmchat.chat.roles import KEYS
from vllmchat.checking.describe import (
    as_list,
    as_mapping,
    format_value,
    one_of,
    suggest,
    type_name,
)
from vllmchat.checking.validator import check_request, collect
from vllmchat.client.request import ModelRequest
from vllmchat.errors import InvalidRequestError, Problem, ResponseError
from vllmchat.http.excerpt import beginning, start_of
from vllmchat.responses.check import check_openai_respond, check_respond
from vllmchat.responses.response import ModelResponse, ResponseItem, decode_response

if TYPE_CHECKING:
    from vllmchat.http.call import Response

NEEDS: Final = "Responses need vLLM 0.10 or newer and a generating model."

ResponseInput: TypeAlias = str | Sequence[Mapping[str, object] | ResponseItem]
"""A string, or a list of items.

Items are messages (`{"role": "user", "content": "..."}`), tool results
(`{"type": "function_call_output", "call_id": "...", "output": "..."}`), and items of an earlier response, unchanged.
"""


def respond_request(
    value: ResponseInput, params: Mapping[str, object], *, stream: bool, openai: bool = False
) -> ModelRequest[ModelResponse]:
    """Returns the request for a response.

    Args:
        value: The input.
        params: The keyword arguments of the call.
        stream: Whether the response is streamed.
        openai: Whether the server may be any OpenAI-compatible one, without vLLM's own parameters.

    Raises:
        InvalidRequestError: With every problem found.
    """
    encoded, found = collect(lambda: encode_input(value), "")
    checked = check_request(found, check_openai_respond if openai else check_respond, params, stream=stream)
    hint = None if openai else NEEDS
    return ModelRequest("/responses", {"input": encoded}, checked, _read, stream, route_hint=hint)


def encode_input(value: ResponseInput) -> str | list[Mapping[str, object]]:
    """Returns the input for the request body.

    Raises:
        InvalidRequestError: It is not a valid input.
    """
    if isinstance(value, str):
        return value
    items = as_list(value)
    if items is None:
        hint = "Wrap it in [...]." if isinstance(value, Mapping | ResponseItem) else None
        rule = f"must be a string or a list of items, not {type_name(value)}."
        raise InvalidRequestError([Problem("input", "", rule, hint)])
    encoded: list[Mapping[str, object]] = []
    problems: list[Problem] = []
    for place, item in enumerate(items):
        path = f"input[{place}]"
        if isinstance(item, ResponseItem):
            encoded.append(item.to_request())
        elif (mapping := as_mapping(item)) is not None:
            encoded.append(cast("Mapping[str, object]", mapping))
            problems += _item_problems(mapping, path)
        elif isinstance(item, ModelResponse):
            problems.append(
                Problem(path, "", "must be an item, not a response.", "Add its .output to the list.")
            )
        else:
            rule = f"must be a mapping or an item of a response, not {type_name(item)}."
            problems.append(Problem(path, format_value(item), rule))
    if not encoded and not problems:
        problems.append(Problem("input", "[]", "must not be empty."))
    if problems:
        raise InvalidRequestError(problems)
    return encoded


def _item_problems(item: Mapping[object, object], path: str) -> list[Problem]:
    """Returns the problems of a message or another item. Items have keys of many kinds: only messages are checked."""
    role = item.get("role")
    if role is None and item.get("type") is None:
        return [Problem(path, format_value(item), 'needs a "role" or a "type".')]
    if role is None or item.get("type", "message") != "message":
        return []
    if isinstance(role, str) and role in KEYS:
        if "content" in item or "tool_calls" in item:
            return []
        return [
            Problem(f"{path}.content", "", "is required.", f'Write {{"role": "{role}", "content": ...}}.')
        ]
    meant = suggest(role, KEYS) if isinstance(role, str) else None
    hint = f'Did you mean "{meant}"?' if meant else None
    return [Problem(f"{path}.role", format_value(role), f"must be {one_of(list(KEYS))}.", hint)]


def _read(reply: Response) -> ModelResponse:
    response = decode_response(reply.body, head=reply.head)
    if response.status in ("failed", "in_progress", "queued") or response.error is not None:
        text = start_of(reply.body)
        status = f"the response is not complete: its status is {response.status!r}; {beginning(text)}"
        raise ResponseError(status, body=text, partial=response)
    return response
