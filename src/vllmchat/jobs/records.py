"""The inputs of a file: requests in OpenAI's batch format, rows with or without a template, lines of text.

What is wrong with one record is kept with it: it is one failed result, and the others go on. What is wrong with the
whole file, such as its encoding, is raised.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from importlib import import_module
from typing import IO, TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast, get_args

from vllmchat.checking.describe import format_value, type_name
from vllmchat.errors import InvalidRequestError
from vllmchat.jobs.routes import CHAT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Self

    from vllmchat.jobs.template import Template

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
    ".tsv": "csv",
    ".parquet": "parquet",
    ".txt": "text",
}

_PIECE: Final = 1 << 20
_ROWS: Final = 256
"""How many rows of a Parquet file are decoded at once."""


@dataclass(slots=True)
class Record:
    """One input of a file.

    Attributes:
        id: Its id: that of the file, else `line-` and its number.
        line: Its line or row, from 1.
        url: The route that it is for.
        body: What to send, with parameters of its own.
        error: Why it cannot be sent; None if it can.
        row: Its fields. A line of text has the field `text`.
    """

    id: str
    line: int
    url: str
    body: Mapping[str, object]
    error: InvalidRequestError | None = None
    row: Mapping[str, object] = field(default_factory=dict)  # pyright: ignore[reportUnknownVariableType] - `dict[str, object]` takes thrice as long


def format_of(path: str) -> Format | None:
    """Returns the format of a file by its name, or None for `-` and a pipe: it is read from the first byte."""
    if path == "-" or path.startswith("/dev/"):
        return None
    name = path.lower().removesuffix(".gz")
    dot = name.rfind(".")
    return _SUFFIXES.get(name[dot:], "text") if dot >= 0 else "text"


def read_records(
    file: IO[bytes],
    kind: Format | None,
    template: Template | None,
    *,
    limit: int = LINE_BYTES,
    end: int | None = None,
    watch: Callable[[bytes], object] | None = None,
) -> Iterator[Record]:
    """Reads the records of a file.

    Args:
        file: The file.
        kind: Its format; None to tell text and JSONL apart by the first byte.
        template: How rows become requests; None for the rows alone.
        limit: How long a line may be, in bytes.
        end: Where to stop, in bytes; None for the end of the file.
        watch: Called with all that is read, line by line, a long line in pieces. Not for Parquet.

    Raises:
        ImportError: The format needs pyarrow.
        InvalidRequestError: The file is not of this format.
    """
    if kind == "parquet":
        return _read_parquet(file, template)
    lines = Lines(file, limit, end, watch)
    if kind == "csv":
        return _read_csv(lines, template)
    first = lines.first()
    if kind == "jsonl" and first.startswith(b"["):
        raise InvalidRequestError(
            "the input is one JSON array. Write each object on a line of its own: jq -c '.[]' FILE > FILE.jsonl"
        )
    return _read_lines(lines, template, as_json=kind == "jsonl" or (kind is None and first.startswith(b"{")))


class Lines:
    """The lines of a file, each with its number, without a byte order mark.

    A line that is too long is None; it is never held whole.
    """

    def __init__(
        self,
        file: IO[bytes],
        limit: int,
        end: int | None = None,
        watch: Callable[[bytes], object] | None = None,
    ) -> None:
        self._file = file
        self.limit = limit
        self._left = end
        self._watch = watch
        self.number = 0
        self._ahead: list[tuple[int, bytes | None]] = []

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[int, bytes | None]:
        if self._ahead:
            return self._ahead.pop(0)
        line = self._read(self.limit + 1)
        if not line:
            raise StopIteration
        self.number += 1
        if self.number == 1:
            line = _without_mark(line)
        if len(line) > self.limit and not line.endswith(b"\n"):
            while (rest := self._read(_PIECE)) and not rest.endswith(b"\n"):
                pass
            return self.number, None
        return self.number, line

    def first(self) -> bytes:
        """The beginning of the first line that is not empty, without taking it."""
        ahead: list[tuple[int, bytes | None]] = []
        text = b""
        for number, line in self:
            ahead.append((number, line))
            text = (line or b"?").lstrip()
            if text or len(ahead) == 1000:
                break
        self._ahead = ahead
        return text

    def _read(self, size: int) -> bytes:
        if self._left is not None:
            size = min(size, self._left)
            if size == 0:
                return b""
        piece = self._file.readline(size)
        if self._left is not None:
            self._left -= len(piece)
        if piece and self._watch is not None:
            self._watch(piece)
        return piece


def _without_mark(line: bytes) -> bytes:
    """Returns the first line of a text without its byte order mark.

    Raises:
        InvalidRequestError: It is that of a file which is not UTF-8.
    """
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InvalidRequestError("the input is UTF-16, not UTF-8. Convert it: iconv -f UTF-16 -t UTF-8.")
    for start, name in _OTHERS.items():
        if line.startswith(start):
            raise InvalidRequestError(f"the input is not text, but {name}.")
    return line.removeprefix(b"\xef\xbb\xbf")


_OTHERS: Final = {
    b"\x28\xb5\x2f\xfd": "zstd. Decompress it first, or use gzip",
    b"BZh": "bzip2. Decompress it first, or use gzip",
    b"\xfd7zXZ": "xz. Decompress it first, or use gzip",
    b"\x1f\x8b": "gzip. Decompress it first: zcat FILE | ...",
    b"PK\x03\x04": "a ZIP archive or a spreadsheet. Write a CSV file",
    b"PAR1": 'Parquet. Name it .parquet, or pass format="parquet"',
}


def _read_lines(lines: Lines, template: Template | None, *, as_json: bool) -> Iterator[Record]:
    for number, line in lines:
        if line is not None and not line.strip():
            continue
        record = Record(f"line-{number}", number, CHAT, {})
        try:
            text = _decoded(number, line, lines.limit)
            if as_json:
                _fill(record, _object(text, number), template)
            else:
                record.row = {"text": text.rstrip("\r\n")}
                if template is not None:
                    record.url, record.body = template.url, template.body(record.row)
        except InvalidRequestError as error:
            record.error = error
        yield record


def _decoded(number: int, line: bytes | None, limit: int) -> str:
    if line is None:
        raise InvalidRequestError(f"line {number} is longer than {limit:,} bytes.")
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            f"line {number} is not UTF-8: {error.reason} at byte {error.start}."
        ) from None


def _object(text: str, number: int) -> dict[str, object]:
    row: object
    text = text.rstrip("\r\n")
    try:
        # It does not look for white space at both ends, which costs as much as the rest.
        row, end = _DECODER.raw_decode(text) if text.startswith("{") else (None, -1)
        if end != len(text):
            row = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"line {number} is not JSON: {error}.") from None
    if isinstance(row, dict):
        return cast("dict[str, object]", row)
    raise InvalidRequestError(f"line {number} is not a JSON object, but {type_name(row)}.")


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not a number in JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_no_constant)
"""Made once: `json.loads` would make one for each line."""


def _fill(
    record: Record, row: Mapping[str, object], template: Template | None, *, is_table: bool = False
) -> None:
    given = row.get("custom_id", row.get("id"))
    record.row = row
    # An empty cell of a CSV file is like a missing one.
    if given is not None and not (is_table and given == ""):
        if not isinstance(given, str | int | float):
            raise InvalidRequestError(
                f"line {record.line}: an id must be a text or a number, not {type_name(given)}."
            )
        record.id = str(given)
    if template is None:
        return
    if not template.is_request(row):
        record.url, record.body = template.url, template.body(row, is_table=is_table)
        return
    body, url = row["body"], row["url"]
    if not isinstance(url, str) or not isinstance(body, dict):
        raise InvalidRequestError(f"line {record.line}: url must be a string and body an object.")
    record.url, record.body = url, cast("dict[str, object]", body)
    method = row.get("method", "POST")
    if method != "POST":
        raise InvalidRequestError(f"line {record.line}: method={format_value(method)}: must be POST.")


# CSV


class _CSVLines:
    """The lines of a CSV file for its parser, which goes on after an error."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self.number = 0
        self.error: InvalidRequestError | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        self.number, line = next(self._lines)
        try:
            return _decoded(self.number, line, self._lines.limit)
        except InvalidRequestError as error:
            self.error = error
            raise csv.Error from None


def _read_csv(lines: Lines, template: Template | None) -> Iterator[Record]:
    # For the whole process, but it is only a limit, and that of the csv module is 128 KiB.
    csv.field_size_limit(max(csv.field_size_limit(), lines.limit))
    source = _CSVLines(lines)
    first = lines.first()
    rows = csv.reader(source, delimiter=_delimiter_of(first), strict=True)
    header: list[str] | None = None
    while True:
        number = source.number + 1
        record = Record(f"line-{number}", number, CHAT, {})
        try:
            row = next(rows, None)
        except csv.Error as error:
            found, source.error = source.error, None
            record.error = found or InvalidRequestError(f"line {number} is not CSV: {error}.")
            if header is None:
                raise record.error from None
            yield record
            continue
        if row is None:
            return
        if not row:
            continue
        if header is None:
            header = row
            _check_columns(header, template)
            continue
        try:
            if len(row) != len(header):
                raise InvalidRequestError(
                    f"line {number} has {len(row)} field{'' if len(row) == 1 else 's'}, and the header {len(header)}. "
                    "Put a field that has commas or line breaks in quotes."
                )
            _fill(record, dict(zip(header, row, strict=True)), template, is_table=True)
        except InvalidRequestError as error:
            record.error = error
        yield record


def _delimiter_of(header: bytes) -> str:
    """The separator of a CSV file: a comma, unless its header has none."""
    if b"," not in header:
        for other in (";", "\t"):
            if other.encode() in header:
                return other
    return ","


def _check_columns(names: Sequence[str], template: Template | None) -> None:
    """Checks the columns of a table.

    Raises:
        InvalidRequestError: One is there twice, or one is missing that each row needs.
    """
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        raise InvalidRequestError(
            f"the input has the column {twice!r} twice: {', '.join(names)}. Rename one of them."
        )
    if template is not None:
        template.check_columns(names)


# Parquet


def _read_parquet(file: IO[bytes], template: Template | None) -> Iterator[Record]:
    try:
        # It has no types.
        arrow: Any = import_module("pyarrow")
        parquet: Any = import_module("pyarrow.parquet")
    except ImportError as error:
        raise ImportError(
            "Parquet files need the pyarrow package: pip install 'vllmchat[parquet]'"
        ) from error
    if not file.seekable():
        raise InvalidRequestError("a Parquet file cannot be read from a pipe. Pass the path of the file.")
    try:
        # Read by and by: a row group may be larger than the memory.
        opened = parquet.ParquetFile(file, buffer_size=_PIECE, pre_buffer=False)
        names: list[str] = opened.schema_arrow.names
        _check_columns(names, template)
        wanted = _columns_of(names, template)
        number = 0
        for batch in opened.iter_batches(batch_size=_ROWS, columns=wanted):
            for row in _rows_of(batch, arrow):
                number += 1
                record = Record(f"line-{number}", number, CHAT, {})
                try:
                    _fill(record, row, template, is_table=True)
                except InvalidRequestError as error:
                    record.error = error
                yield record
    except (arrow.ArrowException, OSError) as error:
        raise InvalidRequestError(f"the input is not a whole Parquet file: {error}") from error


def _columns_of(names: Sequence[str], template: Template | None) -> list[str]:
    """The columns that are needed, so that the others are not read."""
    if template is None or template.columns is None:
        return list(names)
    needed = {"id", "custom_id", *template.columns}
    if template.is_request(names):
        needed |= {"url", "body", "method"}
    return [name for name in names if name in needed]


def _rows_of(batch: Any, arrow: Any) -> Iterator[Mapping[str, object]]:
    """The rows of a batch, without what is null in them."""
    columns: list[list[object]] = [_python_times(column, arrow).to_pylist() for column in batch.columns]
    names: list[str] = batch.schema.names
    for values in zip(*columns, strict=True):
        row: zip[tuple[str, object]] = zip(names, values, strict=True)
        yield {name: _without_nulls(value) for name, value in row if value is not None}


def _python_times(column: Any, arrow: Any) -> Any:
    """Times of nanoseconds become those of microseconds, which Python has."""
    kind = column.type
    if arrow.types.is_timestamp(kind) and kind.unit == "ns":
        return column.cast(arrow.timestamp("us", tz=kind.tz), safe=False)
    if arrow.types.is_duration(kind) and kind.unit == "ns":
        return column.cast(arrow.duration("us"), safe=False)
    return column


def _without_nulls(value: object) -> object:
    """A field that a message lacks is null in a table."""
    if isinstance(value, list):
        return [_without_nulls(each) for each in cast("list[object]", value)]
    if isinstance(value, dict):
        fields = cast("dict[str, object]", value)
        return {name: _without_nulls(each) for name, each in fields.items() if each is not None}
    return value
