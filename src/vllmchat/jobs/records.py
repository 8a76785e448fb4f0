"""The inputs of a file: requests in OpenAI's batch format, rows with or without a template, lines of text.

What is wrong with one record is kept with it: it is one failed result, and the others go on.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from importlib import import_module
from typing import IO, TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast, get_args

from vllmchat.checking.describe import format_value, type_name
from vllmchat.errors import InvalidRequestError
from vllmchat.jobs.routes import CHAT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Format: TypeAlias = Literal["jsonl", "text", "csv", "parquet"]
"""The format of an input file."""

FORMATS: Final = get_args(Format)

LINE_BYTES: Final = 64 * 1024 * 1024
"""How long a line may be, in bytes."""

_SUFFIXES: Final[Mapping[str, Format]] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".txt": "text",
}


@dataclass(slots=True)
class Record:
    """One input of a file.

    Attributes:
        id: Its id: that of the file, else `line-` and its number.
        line: Its line or row, from 1.
        url: The route that it is for.
        body: What to send, with parameters of its own.
        error: Why it cannot be sent; None if it can.
    """

    id: str
    line: int
    url: str
    body: Mapping[str, object]
    error: InvalidRequestError | None = None


@dataclass(frozen=True, slots=True)
class Template:
    """How a row becomes a chat.

    Attributes:
        prompt: The user's message, with the names of fields in braces; None to take it from the row.
        system: The system message, likewise.
    """

    prompt: str | None = None
    system: str | None = None

    def body(self, row: Mapping[str, object]) -> dict[str, object]:
        """Returns the body of a chat.

        Raises:
            InvalidRequestError: The row lacks a field.
        """
        body: dict[str, object]
        if self.prompt is not None:
            body = {"messages": [{"role": "user", "content": _filled(self.prompt, row)}]}
        elif "messages" in row:
            body = {name: value for name, value in row.items() if name not in ("id", "custom_id")}
        elif isinstance(text := row.get("prompt", row.get("text")), str):
            skipped = ("id", "custom_id", "prompt", "text")
            body = {"messages": [{"role": "user", "content": text}]}
            body.update({name: value for name, value in row.items() if name not in skipped})
        else:
            raise InvalidRequestError(
                f"the row has no messages, prompt or text, but {', '.join(row) or 'nothing'}. "
                "Pass prompt='... {field} ...' to make a prompt of its fields."
            )
        if self.system is not None:
            system = {"role": "system", "content": _filled(self.system, row)}
            body["messages"] = [system, *cast("list[object]", body["messages"])]
        return body


def _filled(template: str, row: Mapping[str, object]) -> str:
    try:
        return template.format_map(row)
    except LookupError as error:
        raise InvalidRequestError(
            f"the row has no {error}, which the prompt needs; it has {', '.join(row) or 'nothing'}."
        ) from None
    except (ValueError, AttributeError, TypeError) as error:
        raise InvalidRequestError(
            f"the prompt {format_value(template)} cannot be filled: {error}. Write {{{{ for a brace."
        ) from None


def format_of(path: str) -> Format | None:
    """Returns the format of a file by its name, or None for `-`: it is read from the first byte."""
    if path == "-":
        return None
    dot = path.rfind(".")
    return _SUFFIXES.get(path[dot:].lower(), "text") if dot >= 0 else "text"


def read_records(
    file: IO[bytes], kind: Format | None, template: Template, *, limit: int = LINE_BYTES
) -> Iterator[Record]:
    """Reads the records of a file.

    Args:
        file: The file.
        kind: Its format; None to tell text and JSONL apart by the first byte.
        template: How rows become chats.
        limit: How long a line may be, in bytes.

    Raises:
        ImportError: The format needs pyarrow.
        InvalidRequestError: The file is not of this format.
    """
    if kind == "parquet":
        return _read_parquet(file, template)
    lines = _lines(file, limit)
    if kind == "csv":
        return _read_csv(lines, template)
    if kind is None:
        first = next(lines, None)
        kind = "jsonl" if first is not None and (first[1] or b"").lstrip()[:1] == b"{" else "text"
        lines = _again(first, lines)
    return _read_lines(lines, template, limit, as_json=kind == "jsonl")


def _again(
    first: tuple[int, bytes | None] | None, rest: Iterator[tuple[int, bytes | None]]
) -> Iterator[tuple[int, bytes | None]]:
    if first is not None:
        yield first
        yield from rest


def _lines(file: IO[bytes], limit: int) -> Iterator[tuple[int, bytes | None]]:
    """Yields each line and its number; None for one that is too long. It is never held whole."""
    number = 0
    while line := file.readline(limit + 1):
        number += 1
        if len(line) > limit and not line.endswith(b"\n"):
            while (rest := file.readline(1 << 20)) and not rest.endswith(b"\n"):
                pass
            yield number, None
        else:
            yield number, line


def _read_lines(
    lines: Iterator[tuple[int, bytes | None]], template: Template, limit: int, *, as_json: bool
) -> Iterator[Record]:
    for number, line in lines:
        if line is not None and not line.strip():
            continue
        record = Record(f"line-{number}", number, CHAT, {})
        try:
            if line is None:
                raise InvalidRequestError(f"line {number} is longer than {limit:,} bytes.")
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            if as_json:
                _fill(record, _object(text, number), template)
            else:
                record.body = template.body({"text": text})
        except UnicodeDecodeError as error:
            record.error = InvalidRequestError(
                f"line {number} is not UTF-8: {error.reason} at byte {error.start}."
            )
        except InvalidRequestError as error:
            record.error = error
        yield record


def _object(text: str, number: int) -> dict[str, object]:
    try:
        row: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"line {number} is not JSON: {error}.") from None
    if not isinstance(row, dict):
        raise InvalidRequestError(f"line {number} is not a JSON object, but {type_name(row)}.")
    return cast("dict[str, object]", row)


def _fill(record: Record, row: Mapping[str, object], template: Template) -> None:
    given = row.get("custom_id", row.get("id"))
    if given is not None:
        record.id = str(given)
    if "body" not in row or "url" not in row:
        record.body = template.body(row)
        return
    body, url = row["body"], row["url"]
    if not isinstance(url, str) or not isinstance(body, dict):
        raise InvalidRequestError(f"line {record.line}: url must be a string and body an object.")
    record.url, record.body = url, cast("dict[str, object]", body)
    method = row.get("method", "POST")
    if method != "POST":
        raise InvalidRequestError(f"line {record.line}: method={format_value(method)}: must be POST.")


def _read_csv(lines: Iterator[tuple[int, bytes | None]], template: Template) -> Iterator[Record]:
    place = 0

    def texts() -> Iterator[str]:
        nonlocal place
        for number, line in lines:
            place = number
            # A line that is too long becomes a row that lacks its fields.
            yield "\n" if line is None else line.decode("utf-8-sig" if number == 1 else "utf-8", "replace")

    rows = csv.DictReader(texts())
    while True:
        record = Record("", place + 1, CHAT, {})
        try:
            row = next(rows, None)
            if row is None:
                return
            record.line = place
            record.id = f"line-{place}"
            _fill(record, {name: value for name, value in row.items() if isinstance(value, str)}, template)
        except csv.Error as error:
            record.id = f"line-{place}"
            record.error = InvalidRequestError(f"line {place} is not CSV: {error}.")
        except InvalidRequestError as error:
            record.error = error
        yield record


def _read_parquet(file: IO[bytes], template: Template) -> Iterator[Record]:
    try:
        # It has no types.
        arrow: Any = import_module("pyarrow")
        parquet: Any = import_module("pyarrow.parquet")
    except ImportError as error:
        raise ImportError(
            "Parquet files need the pyarrow package: pip install 'vllmchat[parquet]'"
        ) from error
    try:
        opened = parquet.ParquetFile(file)
    except arrow.ArrowInvalid as error:
        raise InvalidRequestError(f"the input is not a Parquet file: {error}") from error
    number = 0
    for batch in opened.iter_batches(batch_size=1024):
        for row in cast("list[dict[str, object]]", batch.to_pylist()):
            number += 1
            record = Record(f"line-{number}", number, CHAT, {})
            try:
                _fill(record, row, template)
            except InvalidRequestError as error:
                record.error = error
            yield record
