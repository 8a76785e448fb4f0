"""Replies as Python values: complete, partial, or one of several options."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar, cast, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from vllmchat.checking.describe import as_list, kind_of, show
from vllmchat.errors import InvalidRequestError, Problem, StructuredOutputError
from vllmchat.schemas.types import (
    SchemaError,
    adapter_of,
    is_type,
    name_of,
    response_format_of,
    schema_of,
    shown,
    unaliased,
)
from vllmchat.wire.decode import as_object, first_problem
from vllmchat.wire.usage import CUT_REASONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from pydantic import TypeAdapter
    from typing_extensions import TypeForm

    from vllmchat.chat.completion import ChatCompletion
    from vllmchat.chat.stream import AsyncChatStream, ChatStream

T = TypeVar("T")
S = TypeVar("S", bound=str)


@dataclass(frozen=True, slots=True)
class Parsed(Generic[T]):
    """A reply parsed into a value.

    Attributes:
        value: The value.
        completion: The reply that it was parsed from.
    """

    value: T
    completion: ChatCompletion


class PartialValue(Generic[T]):
    """The value of a reply that is still being generated.

    Attributes:
        data: The JSON so far: growing dicts and lists, strings that may be incomplete, and numbers only once they are
            complete.
        complete: Whether the reply is complete; then `value` is the final value.
    """

    __slots__ = ("_make", "_value", "complete", "data")

    def __init__(self, data: object, make: Callable[[], T | None], *, complete: bool = False) -> None:
        self.data = data
        self.complete = complete
        self._make: Callable[[], T | None] | None = make
        self._value: T | None = None

    @property
    def value(self) -> T | None:
        """The value so far, or None while there is no valid value yet.

        An incomplete part at the end is left out if the type requires more of it, for example the last item of a list
        before all its required fields have arrived. Computed when you read it.
        """
        if self._make is not None:
            self._value, self._make = self._make(), None
        return self._value

    def __repr__(self) -> str:
        return f"PartialValue({self.data!r}, complete={self.complete})"


class Shape(Generic[T]):
    """The type that a reply is parsed into.

    Args:
        kind: The type.
        wrap: Whether the server accepts only object schemas, so that other types are wrapped in an object.

    Raises:
        InvalidRequestError: The type has no JSON schema.

    Attributes:
        response_format: The `response_format` for the type.
    """

    __slots__ = ("_adapter", "_name", "_wrapped", "response_format")

    def __init__(self, kind: TypeForm[T], *, wrap: bool) -> None:
        self._name = shown(kind)
        try:
            self._adapter: TypeAdapter[T] = adapter_of(kind)
            schema = schema_of(self._adapter)
        except SchemaError as error:
            raise InvalidRequestError(
                [Problem("kind", self._name, f"has no JSON schema: {error}.")]
            ) from error.__cause__
        self._wrapped = wrap and schema.get("type") != "object"
        self.response_format = response_format_of(
            name_of(kind), _in_object(schema) if self._wrapped else schema
        )

    @property
    def asked(self) -> dict[str, object]:
        """The request parameters for the type."""
        return {"response_format": self.response_format}

    def read(self, completion: ChatCompletion) -> Parsed[T]:
        """Parses a complete reply.

        Raises:
            StructuredOutputError: The reply was truncated, is a refusal, or is not valid.
        """
        check_whole(completion, f"a complete {self._name}")
        try:
            return Parsed(self._adapter.validate_json(self._inner(completion.text)), completion)
        except ValidationError as error:
            raise mismatch(completion, f"is not a valid {self._name} ({first_problem(error)})") from error
        except ValueError as error:
            raise mismatch(completion, f"is not a valid {self._name} ({error})") from error

    def data(self, text: str) -> object:
        """Parses the JSON of an incomplete text.

        Raises:
            ValueError: There is too little text, or it is not JSON.
        """
        return self._unwrapped(_partial_json(text))

    def begun(self, text: str) -> T | None:
        """Returns the value of an incomplete text without an incomplete part at its end, or None if nothing is left."""
        data = self.data(text)
        while True:
            try:
                return self._adapter.validate_json(to_json(data))
            except ValidationError:
                if not _without_end(data):
                    return None

    def _inner(self, text: str) -> str | bytes:
        return to_json(self.whole(text)) if self._wrapped else text

    def whole(self, text: str) -> object:
        """Parses the JSON of a complete text.

        Raises:
            ValueError: It is not JSON.
        """
        return self._unwrapped(from_json(text))

    def _unwrapped(self, data: object) -> object:
        if not self._wrapped:
            return data
        outer = as_object(data) or {}
        if _KEY not in outer:
            raise ValueError(f"it has no {_KEY!r}")
        return outer[_KEY]


_KEY: Final = "value"
_NOTHING: Final = object()


def _in_object(schema: Mapping[str, object]) -> dict[str, object]:
    """Wraps a schema in that of an object with one key."""
    inner = dict(schema)
    outer: dict[str, object] = {
        "type": "object",
        "properties": {_KEY: inner},
        "required": [_KEY],
        "additionalProperties": False,
    }
    if "$defs" in inner:  # references to it start at the root
        outer["$defs"] = inner.pop("$defs")
    return outer


def judge_single(params: Mapping[str, object]) -> list[Problem]:
    """Rejects parameters that a method cannot have if it parses the reply into one value."""
    problems = [
        Problem(
            name, "", "is set by this method and cannot be given.", "To set it yourself, call .chat(...)."
        )
        for name in ("response_format", "structured_outputs")
        if params.get(name) is not None
    ]
    n = params.get("n")
    if n is not None and n != 1:
        problems.append(Problem("n", show(n), "must be 1: this method parses one reply."))
    return problems


def check_whole(completion: ChatCompletion, what: str) -> None:
    """Checks that a reply is complete.

    Raises:
        StructuredOutputError: It was truncated, or it is a refusal.
    """
    refusal = completion.message.refusal
    reason = completion.finish_reason
    if refusal or reason == "content_filter":
        said = f": {refusal}" if refusal else f" (finish reason {reason!r})"
        raise StructuredOutputError(f"the model refused{said}", reason="refused", completion=completion)
    if reason in CUT_REASONS:
        hint = ": raise max_tokens" if reason == "length" else ""
        raise StructuredOutputError(
            f"the reply was truncated before it was {what} (finish reason {reason!r}){hint}; {_excerpt(completion)}",
            reason="cut",
            completion=completion,
        )


def mismatch(completion: ChatCompletion, why: str) -> StructuredOutputError:
    """Returns the error for a reply that is complete but not valid."""
    if completion.tool_calls and not completion.text.strip():
        names = ", ".join(call.name for call in completion.tool_calls)
        why = f"is a tool call: the model called {names}"
    return StructuredOutputError(
        f"the reply {why}; {_excerpt(completion)}", reason="mismatch", completion=completion
    )


def _excerpt(completion: ChatCompletion) -> str:
    text = completion.text
    if not text.strip():
        return "it has no text, only reasoning" if completion.reasoning else "it has no text"
    return f"it is: {text}" if len(text) <= 200 else f"it starts with: {text[:200]}…"


# Partial values


def _partial_json(text: str) -> object:
    if text[-1:].isdigit() and '"' not in _STRING.sub("", text):
        # A number at the end may still get more digits.
        text = text.rstrip("0123456789+-.eE")
    return from_json(text, allow_partial="trailing-strings")


_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


def _without_end(data: object) -> bool:
    """Removes the innermost last item from nested data. Returns False if there is none."""
    holder: dict[str, object] | list[object] | None = None
    inner = data
    while isinstance(inner, dict | list) and inner:
        holder = cast("dict[str, object] | list[object]", inner)
        inner = holder[-1] if isinstance(holder, list) else next(reversed(holder.values()))
    if isinstance(holder, dict):
        holder.popitem()
    elif holder is not None:
        holder.pop()
    return holder is not None


class PartialReader(Generic[T]):
    """Builds partial values from the pieces of a text."""

    __slots__ = ("_data", "_next", "_shape", "_text")

    def __init__(self, shape: Shape[T]) -> None:
        self._shape = shape
        self._text = ""
        self._data: object = _NOTHING
        self._next = 0

    def feed(self, piece: str) -> PartialValue[T] | None:
        """Adds a piece. Returns the value so far, if the piece changed it."""
        self._text += piece
        # Parsing a long text again for each piece would make the cost quadratic.
        if len(self._text) < self._next:
            return None
        try:
            data = self._shape.data(self._text)
        except ValueError:
            return None
        self._next = len(self._text) + len(self._text) // 256
        if data == self._data:
            return None
        self._data = data
        return PartialValue(data, partial(self._shape.begun, self._text))

    def finish(self, parsed: Parsed[T]) -> PartialValue[T]:
        """Returns the last value."""
        return PartialValue(self._shape.whole(parsed.completion.text), lambda: parsed.value, complete=True)


class ParseStream(Iterator[PartialValue[T]]):
    """Streams a reply as partial values (sync).

    Iterate over it once. The last value is `complete` and fully validated. As a context manager it always closes, even
    if you leave early, and the server stops generating:

        with llm.stream_parse("Write JSON for a user named Ada, age 36.", User) as stream:
            for partial in stream:
                print(partial.data)
        print(stream.until_done().value)

    Raises:
        StructuredOutputError: At the end: the reply was truncated, is a refusal, or is not valid.
        APIStatusError: The server returned an error, at first or inside the stream.
        APIConnectionError: No response arrived, or a timeout expired.
        StreamInterruptedError: The connection ended before the reply was complete.
    """

    def __init__(self, shape: Shape[T], stream: ChatStream) -> None:
        self._shape = shape
        self._stream = stream
        self._reader = PartialReader(shape)
        self._parsed: Parsed[T] | None = None
        self._closed = False

    @property
    def completion(self) -> ChatCompletion:
        """The reply so far, from the chunks already read."""
        return self._stream.completion

    def __iter__(self) -> Self:
        iter(self._stream)  # raises if it was read or closed
        return self

    def __next__(self) -> PartialValue[T]:
        while not self._closed:
            chunk = next(self._stream, None)
            if chunk is None:
                self._closed = True
                self._parsed = self._shape.read(self._stream.completion)
                return self._reader.finish(self._parsed)
            if (value := self._reader.feed(chunk.text)) is not None:
                return value
        raise StopIteration

    def until_done(self) -> Parsed[T]:
        """Reads the rest of the stream and returns the value."""
        if self._parsed is None:
            for _ in self:
                pass
        assert self._parsed is not None
        return self._parsed

    def close(self) -> None:
        """Closes the stream. If it has not ended, the server stops generating."""
        self._closed = True
        self._stream.close()

    def __enter__(self) -> Self:
        self._stream.__enter__()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncParseStream(AsyncIterator[PartialValue[T]]):
    """Streams a reply as partial values (async).

    Iterate over it once. The last value is `complete` and fully validated. As a context manager it always closes, even
    if you leave early, and the server stops generating:

        async with llm.astream_parse("Write JSON for a user named Ada, age 36.", User) as stream:
            async for partial in stream:
                print(partial.data)
        print((await stream.until_done()).value)

    Raises:
        StructuredOutputError: At the end: the reply was truncated, is a refusal, or is not valid.
        APIStatusError: The server returned an error, at first or inside the stream.
        APIConnectionError: No response arrived, or a timeout expired.
        StreamInterruptedError: The connection ended before the reply was complete.
    """

    def __init__(self, shape: Shape[T], stream: AsyncChatStream) -> None:
        self._shape = shape
        self._stream = stream
        self._reader = PartialReader(shape)
        self._parsed: Parsed[T] | None = None
        self._closed = False

    @property
    def completion(self) -> ChatCompletion:
        """The reply so far, from the chunks already read."""
        return self._stream.completion

    def __aiter__(self) -> Self:
        aiter(self._stream)  # raises if it was read or closed
        return self

    async def __anext__(self) -> PartialValue[T]:
        while not self._closed:
            chunk = await anext(self._stream, None)
            if chunk is None:
                self._closed = True
                self._parsed = self._shape.read(self._stream.completion)
                return self._reader.finish(self._parsed)
            if (value := self._reader.feed(chunk.text)) is not None:
                return value
        raise StopAsyncIteration

    async def until_done(self) -> Parsed[T]:
        """Reads the rest of the stream and returns the value."""
        if self._parsed is None:
            async for _ in self:
                pass
        assert self._parsed is not None
        return self._parsed

    async def aclose(self) -> None:
        """Closes the stream. If it has not ended, the server stops generating."""
        self._closed = True
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


# Options


class Options(Generic[S]):
    """The options that the model chooses from.

    Args:
        options: A list of strings, a `Literal` of strings, or an enum of strings.

    Raises:
        InvalidRequestError: The options are something else, or empty.

    Attributes:
        names: The options as strings.
    """

    __slots__ = ("_by_name", "names")

    def __init__(self, options: Sequence[S] | TypeForm[S]) -> None:
        self._by_name = {_text_of(option): cast("S", option) for option in _members(options)}
        self.names = list(self._by_name)
        if not self.names:
            raise _no_options("must not be empty.")

    def read(self, completion: ChatCompletion) -> S:
        """Returns the option that a reply is.

        Raises:
            StructuredOutputError: It is not an option, or it was truncated and could have become another one.
        """
        text = completion.text
        name = text if text in self._by_name else text.strip()
        longer = any(other != name and other.startswith(name) for other in self.names)
        if name not in self._by_name or longer:
            check_whole(completion, "one of the options")
        if name not in self._by_name:
            raise mismatch(completion, f"is not one of {', '.join(map(repr, self.names))}")
        return self._by_name[name]

    @property
    def literal(self) -> TypeForm[str]:
        """A `Literal` of the names."""
        return cast("Any", Literal)[tuple(self.names)]  # type: ignore[no-any-return] # built from a list

    def named(self, name: str) -> S:
        """Returns the option with a name."""
        return self._by_name[name]


def _members(given: object) -> Sequence[object]:
    options = unaliased(given)
    if get_origin(options) is Literal:
        return get_args(options)
    members = _members_of_enum(options) or as_list(options)
    if members is None:
        what = shown(given) if is_type(given) else kind_of(given)
        raise _no_options(f"must be a list of strings, a Literal or an enum, not {what}.")
    return members


def _members_of_enum(options: object) -> Sequence[object] | None:
    return list(options) if isinstance(options, type) and issubclass(options, Enum) else None


def _text_of(option: object) -> str:
    text = option.value if isinstance(option, Enum) else option
    if not isinstance(text, str):
        raise _no_options(f"must be strings; {show(option)} is {kind_of(option)}.")
    return str(text)


def _no_options(rule: str) -> InvalidRequestError:
    return InvalidRequestError([Problem("options", "", rule)])
