"""Requests to routes that have no method here."""

# No `from __future__ import annotations` here: the annotations are read at run time.

import re
from collections.abc import Hashable, Mapping
from functools import cache, partial
from typing import Any, Final, TypeVar, cast

from pydantic import BaseModel, JsonValue, TypeAdapter, ValidationError
from pydantic_core import from_json

from vllmchat.checking.call_params import TimeoutParams
from vllmchat.checking.describe import format_value
from vllmchat.checking.validator import Validator
from vllmchat.client.request import ServerRequest
from vllmchat.errors import InvalidRequestError, Problem
from vllmchat.http.call import Response
from vllmchat.http.timeout import Timeout
from vllmchat.wire.decode import Received, first_problem, unexpected_body, with_record
from vllmchat.wire.encode import encode_json

T = TypeVar("T")


class _Params(TimeoutParams, total=False):
    extra_headers: Mapping[str, str] | None


_validator = cache(Validator)

_PATH: Final = re.compile(r"/[!-~]*")
_URL: Final = re.compile(r"https?://[^/]*(/.*)?", re.IGNORECASE)


def route_request(
    method: str,
    path: str,
    body: object,
    cast_to: type[T] | None,
    extra_headers: Mapping[str, str] | None,
    timeout: float | Timeout | None,
) -> ServerRequest[T | JsonValue]:
    """The request to any route.

    Args:
        method: The HTTP method.
        path: The path below the server's root.
        body: The body, as a JSON value or a pydantic model; None for no body.
        cast_to: The type of the result; None for plain JSON.
        extra_headers: Headers of this request.
        timeout: The timeouts of the call.

    Raises:
        InvalidRequestError: The path, a header, the timeout or the body cannot be sent.
    """
    given = {"extra_headers": extra_headers, "timeout": timeout}
    checked = _validator(method.lower(), _Params).check(given)
    read = cast("Any", _read_json if cast_to is None else partial(_read_as, cast_to))
    if isinstance(body, BaseModel):
        body = body.model_dump(mode="json", exclude_none=True)
    return ServerRequest(
        _checked_path(path),
        read,
        checked.timeout,
        method=method,
        body=None if body is None else encode_json(cast("Mapping[str, object]", body)),
        headers={name.lower(): value for name, value in (checked.extra_headers or {}).items()},
    )


def _checked_path(path: object) -> str:
    if isinstance(path, str) and _PATH.fullmatch(path):
        return path
    hint = 'Write the route below the root of the server, such as "/v1/models" or "/tokenize".'
    if isinstance(path, str) and (url := _URL.fullmatch(path)):
        hint = f"The server is that of the provider: write {(url[1] or '/')!r}."
    elif isinstance(path, str) and _PATH.fullmatch(f"/{path}"):
        hint = f'Write "/{path}".'
    rule = "must be a path that starts with / and has no spaces."
    raise InvalidRequestError([Problem("path", format_value(path), rule, hint)])


def _read_json(reply: Response) -> JsonValue:
    if not reply.body.strip():
        return None
    try:
        value: JsonValue = from_json(reply.body)
    except ValueError as error:
        raise unexpected_body("JSON", reply.body, str(error)) from error
    return value


def _read_as(cast_to: type[T], reply: Response) -> T:
    what = f"of type {cast_to.__name__ if type(cast_to) is type else cast_to}"
    try:
        value: T = _adapter(cast("Hashable", cast_to)).validate_json(reply.body)
    except ValidationError as error:
        raise unexpected_body(what, reply.body, first_problem(error)) from error
    answer: object = value
    if isinstance(answer, Received):
        with_record(answer, reply.head)
    return value


@cache
def _adapter(cast_to: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(cast_to)
