"""Replies that grow into a value."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from vllmchat.http.wrong_use import AwaitedOnly, SyncOnly
from vllmchat.wire import markdown

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from vllmchat.chat.completion import ChatCompletion
    from vllmchat.chat.stream import AsyncChatStream, ChatStream
    from vllmchat.structured.output_type import OutputType, Parsed


T = TypeVar("T")


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
        """The value so far, or None until it is valid for the first time.

        An incomplete part at the end is left out if the type requires more of it, for example the last item of a list
        before all its required fields have arrived. Computed when you read it.
        """
        if self._make is not None:
            self._value, self._make = self._make(), None
        return self._value

    def __repr__(self) -> str:
        return f"PartialValue({self.data!r}, complete={self.complete})"


_NOTHING: Final = object()


class PartialReader(Generic[T]):
    """Builds partial values from the pieces of a text.

    Attributes:
        parsed: The final value; None before the end.
    """

    __slots__ = ("_data", "_next", "_output_type", "_text", "parsed")

    def __init__(self, output_type: OutputType[T]) -> None:
        self._output_type = output_type
        self._text = ""
        self._data: object = _NOTHING
        self._next = 0
        self.parsed: Parsed[T] | None = None

    def feed(self, piece: str) -> PartialValue[T] | None:
        """Adds a piece. Returns the value so far, if the piece changed it."""
        self._text += piece
        # Parsing a long text again for each piece would make the cost quadratic.
        if len(self._text) < self._next:
            return None
        try:
            data = self._output_type.data(self._text)
        except ValueError:
            return None
        self._next = len(self._text) + len(self._text) // 256
        if data == self._data:
            return None
        self._data = data
        return PartialValue(data, partial(self._output_type.parse_partial, self._text))

    def finish(self, completion: ChatCompletion) -> PartialValue[T]:
        """Returns the last value.

        Raises:
            StructuredOutputError: The reply was truncated, is a refusal, or is not valid.
        """
        parsed = self.parsed = self._output_type.read(completion)
        data = self._output_type.whole(completion.text)
        return PartialValue(data, lambda: parsed.value, complete=True)


class ParseStream(SyncOnly, Iterator[PartialValue[T]]):
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

    def __init__(self, output_type: OutputType[T], stream: ChatStream) -> None:
        self._stream = stream
        self._reader = PartialReader(output_type)
        self._closed = False

    @property
    def completion(self) -> ChatCompletion:
        """The reply so far, from the chunks already read."""
        return self._stream.completion

    def _repr_markdown_(self) -> str | None:
        """What a notebook shows: the reply so far, and the state."""
        return markdown.shown(self._stream)

    def __iter__(self) -> Self:
        iter(self._stream)  # raises if it was read or closed
        return self

    def __next__(self) -> PartialValue[T]:
        while not self._closed:
            chunk = next(self._stream, None)
            if chunk is None:
                self._closed = True
                return self._reader.finish(self._stream.completion)
            if (value := self._reader.feed(chunk.text)) is not None:
                return value
        raise StopIteration

    def until_done(self) -> Parsed[T]:
        """Reads the rest of the stream and returns the value."""
        if self._reader.parsed is None:
            for _ in self:
                pass
        assert self._reader.parsed is not None
        return self._reader.parsed

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


class AsyncParseStream(AwaitedOnly, AsyncIterator[PartialValue[T]]):
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

    def __init__(self, output_type: OutputType[T], stream: AsyncChatStream) -> None:
        self._stream = stream
        self._reader = PartialReader(output_type)
        self._closed = False

    @property
    def completion(self) -> ChatCompletion:
        """The reply so far, from the chunks already read."""
        return self._stream.completion

    def _repr_markdown_(self) -> str | None:
        """What a notebook shows: the reply so far, and the state."""
        return markdown.shown(self._stream)

    def __aiter__(self) -> Self:
        aiter(self._stream)  # raises if it was read or closed
        return self

    async def __anext__(self) -> PartialValue[T]:
        while not self._closed:
            chunk = await anext(self._stream, None)
            if chunk is None:
                self._closed = True
                return self._reader.finish(self._stream.completion)
            if (value := self._reader.feed(chunk.text)) is not None:
                return value
        raise StopAsyncIteration

    async def until_done(self) -> Parsed[T]:
        """Reads the rest of the stream and returns the value."""
        if self._reader.parsed is None:
            async for _ in self:
                pass
        assert self._reader.parsed is not None
        return self._reader.parsed

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
