"""Encoding request bodies as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from vllmchat.errors import InvalidRequestError, Problem
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pydantic_core
else:
    pydantic_core = LazyModule("pydantic_core")


def encode_json(body: Mapping[str, object]) -> bytes:
    """Encodes a request body as JSON.

    Raises:
        InvalidRequestError: A value is not JSON-serializable; the message says where it is.
    """
    try:
        return _to_json(body)
    except (ValueError, RecursionError) as error:
        where, value = _culprit(body)
        reason = " ".join(str(error).split()).removeprefix("Error serializing to JSON: ")
        reason = reason.removeprefix("ValueError: ")
        raise InvalidRequestError([Problem(where, value, f"is not JSON-serializable ({reason}).")]) from error


def _to_json(value: object) -> bytes:
    return pydantic_core.to_json(value, inf_nan_mode="constants", fallback=_plain)


def _plain(value: object) -> object:
    """A mapping or sequence of a type that the encoder does not know, as a dict or list."""
    if isinstance(value, Mapping):
        return dict(cast("Mapping[object, object]", value))
    if isinstance(value, Sequence):
        return list(cast("Sequence[object]", value))
    raise ValueError(f"{type(value).__name__} is not a JSON type")


def _culprit(body: Mapping[str, object]) -> tuple[str, str]:
    """Finds the value that cannot be encoded: its path and its type."""
    path = ""
    values: list[object] = [body]
    while True:
        value = values[-1]
        bad = next((inner for inner in _inside(value) if not _encodes(inner[1])), None)
        # A value that contains itself has no innermost culprit, nor does an endless one.
        if bad is None or len(values) > 100 or any(bad[1] is each for each in values):
            return path.removeprefix(".") or "request", f"<{type(value).__name__}>"
        path += bad[0]
        values.append(bad[1])


def _inside(value: object) -> Iterator[tuple[str, object]]:
    """The items of a value, each with its step of the path."""
    if isinstance(value, Mapping):
        for key, each in cast("Mapping[object, object]", value).items():
            yield f".{key}", each
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for place, each in enumerate(cast("Sequence[object]", value)):
            yield f"[{place}]", each


def _encodes(value: object) -> bool:
    try:
        _to_json(value)
    except (ValueError, RecursionError):
        return False
    return True
