"""Reads the output of a job from file to file."""

from __future__ import annotations

import json
import os
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, overload

from pydantic_core import from_json, to_json

from vllmchat.chat.completion import ChatCompletion, decode_completion
from vllmchat.checking.describe import format_value
from vllmchat.errors import InvalidRequestError, RecordedError, ResponseError, StructuredOutputError
from vllmchat.jobs.inputs import open_input
from vllmchat.jobs.records import FORMATS, LINE_BYTES, format_of
from vllmchat.jobs.result import Result
from vllmchat.structured.output_type import OutputType
from vllmchat.wire.decode import Answer, decode

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping
    from typing import IO

    from typing_extensions import TypeForm

    from vllmchat.jobs.records import Format

T = TypeVar("T")


@overload
def read_results(
    output: str | os.PathLike[str],
    kind: None = None,
    *,
    input: None = None,
    format: Format | None = None,
) -> Iterator[Result[None, ChatCompletion]]: ...


@overload
def read_results(
    output: str | os.PathLike[str],
    kind: None = None,
    *,
    input: str | os.PathLike[str],
    format: Format | None = None,
) -> Iterator[Result[Mapping[str, object], ChatCompletion]]: ...


@overload
def read_results(
    output: str | os.PathLike[str],
    kind: TypeForm[T],
    *,
    input: None = None,
    format: Format | None = None,
) -> Iterator[Result[None, T]]: ...


@overload
def read_results(
    output: str | os.PathLike[str],
    kind: TypeForm[T],
    *,
    input: str | os.PathLike[str],
    format: Format | None = None,
) -> Iterator[Result[Mapping[str, object], T]]: ...


def read_results(
    output: str | os.PathLike[str],
    kind: TypeForm[Any] | None = None,
    *,
    input: str | os.PathLike[str] | None = None,  # noqa: A002
    format: Format | None = None,  # noqa: A002
) -> Iterator[Result[Any, Any]]:
    """Yields the results in an output of `run_job`, or of `vllm run-batch`, one at a time.

    They are like those of `map`: a `value`, `completion` and `text`, or an `error`, which is a `RecordedError`. Their
    `attempts` and `seconds` are not in the file. A job that is running may write to it meanwhile.

        for result in read_results("out.jsonl"):
            print(result.id, result.text if result.ok else result.error)

    Args:
        output: The file.
        kind: What a `value` is, if not a `ChatCompletion`: the class of the replies, such as `Embeddings`, or the type
            that replies of chats are parsed into, as in `run_job(..., kind=...)`.
        input: The input of the job. Results then come in its order, each with the fields of its row as `input` and
            its position as `index`; a line of text has the field `text`. Inputs that are not done are left out. It
            takes about 200 bytes of memory for each result.
        format: The format of the input, if its name does not say it.

    Raises:
        InvalidRequestError: The output is not that of a job, or the input cannot be read.
        OSError: A file cannot be opened.
    """
    if format is not None and format not in FORMATS:
        raise InvalidRequestError(f"format={format_value(format)}: must be one of {', '.join(FORMATS)}.")
    value_of = _chat if kind is None else _reader_of(kind)
    path = os.fspath(output)
    # Opened here, so that a file that is missing is an error of this call.
    file = open(path, "rb")  # noqa: SIM115 - the generators close it
    if input is None:
        return _in_order_of_output(file, path, value_of)
    source = os.fspath(input)
    return _in_order_of_input(file, path, value_of, source, format or format_of(source))


_CUT: Final = 80


def _in_order_of_output(
    file: IO[bytes], path: str, value_of: Callable[[bytes], object]
) -> Generator[Result[Any, Any], None, None]:
    with file:
        number = 0
        for line in file:
            if line.endswith(b"\n"):
                yield _result(line, path, number, value_of)
                number += 1


def _in_order_of_input(
    file: IO[bytes], path: str, value_of: Callable[[bytes], object], source: str, kind: Format | None
) -> Generator[Result[Any, Any], None, None]:
    with file, closing(open_input(source, kind, None, LINE_BYTES)) as rows:
        places: dict[str, int] = {}
        place = 0
        for line in file:
            if line.endswith(b"\n"):
                places[_entry(line, path)[0]] = place
            place += len(line)
        for index, record in enumerate(rows.records()):
            if record.id in places:
                file.seek(places[record.id])
                yield _result(file.readline(), path, index, value_of, record.row)


def _entry(line: bytes, path: str) -> tuple[str, Mapping[str, Any]]:
    """Returns the id of a line, and its fields."""
    try:
        entry: object = from_json(line)
    except ValueError:
        entry = _leniently(line)
    if isinstance(entry, dict):
        fields = cast("dict[str, Any]", entry)
        key = fields.get("custom_id")
        if isinstance(key, str) and "response" in fields:
            return key, fields
    start = line[:_CUT].decode("utf-8", "replace").rstrip("\n")
    raise InvalidRequestError(f"{path} has a line that is not a result of a job: {format_value(start)}.")


def _leniently(line: bytes) -> object:
    """What a line holds that strict parsers reject, such as half of a surrogate pair in an id or an error."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _result(
    line: bytes,
    path: str,
    index: int,
    value_of: Callable[[bytes], object],
    row: Mapping[str, object] | None = None,
) -> Result[Any, Any]:
    key, fields = _entry(line, path)
    response: Mapping[str, Any] = fields["response"] or {}
    body = response.get("body")
    result = Result[Any, Any]
    if fields.get("error") is not None or body is None:
        return result(index, row, id=key, error=_error_of(fields.get("error"), response))
    try:
        value = value_of(to_json(body))
    except (StructuredOutputError, ResponseError) as error:
        return result(index, row, id=key, error=error)
    completion = value if isinstance(value, ChatCompletion) else None
    return result(index, row, id=key, value=value, completion=completion)


def _error_of(found: object, response: Mapping[str, Any]) -> RecordedError:
    """The error of a line. What `vllm run-batch` writes is a text, or the body of an error response."""
    details = _fields(found)
    details = _fields(details.get("error", details))
    code = details.get("code") or response.get("status_code")
    body = response.get("body")
    reply = decode_completion(to_json(body)) if isinstance(body, dict) and "choices" in body else None
    return RecordedError(
        str(details.get("message") or "there is no reply"),
        type=str(details.get("type") or ""),
        status_code=code if isinstance(code, int) else None,
        partial=reply,
    )


def _fields(error: object) -> dict[str, Any]:
    return cast("dict[str, Any]", error) if isinstance(error, dict) else {"message": error}


def _chat(body: bytes) -> object:
    return decode_completion(body)


def _decoded(kind: type[Answer], body: bytes) -> object:
    return decode(kind, body, f"a reply of the type {kind.__name__}")


def _reader_of(kind: TypeForm[Any]) -> Callable[[bytes], object]:
    given: object = kind
    if isinstance(given, type) and issubclass(given, Answer):
        return _chat if issubclass(given, ChatCompletion) else partial(_decoded, given)
    plain: OutputType[object] = OutputType(kind, wrap=False)
    wrapped: OutputType[object] = OutputType(kind, wrap=True)

    def parse(body: bytes) -> object:
        completion = decode_completion(body)
        try:
            return plain.read(completion).value
        except StructuredOutputError as error:
            # Other servers than vLLM accept only objects, so the value is in one.
            try:
                return wrapped.read(completion).value
            except StructuredOutputError:
                raise error from None

    return parse
