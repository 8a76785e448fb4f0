"""The input of a job: a file, which is looked through before anything is sent, or a pipe, which can be read once."""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import zlib
from array import array
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Final, Protocol, cast

from vllmchat.checking.describe import format_value
from vllmchat.errors import InvalidRequestError, JobStoppedError
from vllmchat.jobs.digests import digest_of_file
from vllmchat.jobs.journal import IdSet
from vllmchat.jobs.prefix import order_of_keys, short_key
from vllmchat.jobs.records import Record, read_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from vllmchat.jobs.records import Format
    from vllmchat.jobs.template import Template

PIPE: Final = "-"
_GZIP: Final = b"\x1f\x8b"
_DIGEST: Final = 8


class Input(Protocol):
    """Where records come from.

    Attributes:
        total: How many there are; None if that is not known.
    """

    total: int | None

    def scan(self) -> str:
        """Looks through it, if that is possible; returns what tells it from other inputs."""
        ...

    def records(self) -> Iterator[Record]:
        """Yields the records."""
        ...

    def close(self) -> None:
        """Closes it."""
        ...


class InputFile:
    """A file. It may be deleted once it is open, and grow: what is read is what was there at first.

    Args:
        file: The file. If it is compressed by gzip, it is read as what is in it.
        path: Its path.
        kind: Its format.
        template: How rows become requests; None for the rows alone.
        limit: How long a line may be, in bytes.
    """

    def __init__(
        self, file: IO[bytes], path: str, kind: Format | None, template: Template | None, limit: int
    ) -> None:
        self.total: int | None = None
        self._path = path
        self._kind: Format | None = kind
        self._template = template
        self._limit = limit
        self._size: int | None = None
        self._digest = ""
        self._raw = file
        is_gzip = file.read(2) == _GZIP
        file.seek(0)
        self._file = cast("IO[bytes]", gzip.GzipFile(fileobj=file)) if is_gzip else file

    def scan(self) -> str:
        """Reads it once, and finds ids that are there twice.

        Returns:
            A digest of it.

        Raises:
            InvalidRequestError: An id is there twice, or the file cannot be read.
        """
        ids, total, size = IdSet(), 0, 0
        digest = hashlib.blake2b(digest_size=16)

        def watch(piece: bytes) -> None:
            nonlocal size
            size += len(piece)
            digest.update(piece)

        # The template checks the columns of a table. Otherwise only the ids are wanted, and no bodies.
        template = self._template if self._kind in ("csv", "parquet") else None
        for record in self._read(watch, template):
            if not ids.add(record.id):
                raise twice(record, self._path)
            total += 1
        if self._kind == "parquet":
            self._file.seek(0)
            self._digest = digest_of_file(self._file)
        else:
            self._size, self._digest = size, digest.hexdigest()
        self.total = total
        return self._digest

    def records(self) -> Iterator[Record]:
        """Yields the records.

        Raises:
            JobStoppedError: They are not what they were at first.
        """
        digest = hashlib.blake2b(digest_size=16)
        yield from self._read(digest.update, self._template)
        if self._kind == "parquet":
            return
        if self._digest and digest.hexdigest() != self._digest:
            raise JobStoppedError(
                f"{self._path} has changed while the job ran, so results may be for what it was or for what it is. "
                "What is done is kept. Start the job again with the right file, and with another output if in doubt."
            )

    def _read(self, watch: Callable[[bytes], object], template: Template | None) -> Iterator[Record]:
        self._file.seek(0)
        try:
            yield from read_records(
                self._file, self._kind, template, limit=self._limit, end=self._size, watch=watch
            )
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InvalidRequestError(f"{self._path} is not a whole gzip file: {error}.") from error

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        self._raw.close()


class InputPipe:
    """Stdin, or another pipe. A job that is started again gets it anew, and goes on where it was if it is the same.

    Args:
        file: The pipe.
        path: Its name.
        kind: Its format; None to tell text and JSONL apart.
        template: How rows become requests; None for the rows alone.
        limit: How long a line may be, in bytes.
    """

    def __init__(
        self, file: IO[bytes], path: str, kind: Format | None, template: Template | None, limit: int
    ) -> None:
        self.total: int | None = None
        self._file = file
        self._path = path
        self._kind: Format | None = kind
        self._template = template
        self._limit = limit
        self._log: LineLog | None = None

    def scan(self) -> str:
        """Returns that it is a pipe. What is in it is seen only once."""
        return "stdin"

    def keep(self, log: LineLog) -> None:
        """Compares what is read with what was read before."""
        self._log = log

    def records(self) -> Iterator[Record]:
        """Yields the records.

        Raises:
            InvalidRequestError: An id is there twice, or a line is not what it was.
        """
        ids, log = IdSet(), self._log
        watch = None if log is None else log.read
        for record in read_records(self._file, self._kind, self._template, limit=self._limit, watch=watch):
            if not ids.add(record.id):
                raise twice(record, self._path)
            yield record
        if log is not None:
            log.end()

    def close(self) -> None:
        """Closes it, unless it is stdin."""
        if self._file is not sys.stdin.buffer:
            self._file.close()
        if self._log is not None:
            self._log.close()


class LineLog:
    """What a job has read from a pipe: a digest of each line, eight bytes each, in a file next to the output.

    Args:
        path: The file.
        output: The output, for errors.
        is_new: Whether nothing was read before.
        force: Whether to go on although a line is not what it was.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(self, path: str, output: str, *, is_new: bool, force: bool) -> None:
        self._path = path
        self._output = output
        self._force = force
        self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 - a line is in it before it is sent
        self._known: array[int] = array("Q")
        if is_new:
            self._file.truncate(0)
        else:
            self._file.seek(0)
            data = self._file.read()
            self._known.frombytes(data[: len(data) // _DIGEST * _DIGEST])
            self._file.truncate(len(self._known) * _DIGEST)
        self._digest = hashlib.blake2b(digest_size=_DIGEST)
        self._is_open = False
        self._number = 0

    def read(self, piece: bytes) -> None:
        """Takes a line, or a piece of one.

        Raises:
            InvalidRequestError: It is not what it was.
            JobStoppedError: The disk is full, or something else is wrong with the file.
        """
        self._digest.update(piece)
        self._is_open = True
        if piece.endswith(b"\n"):
            self.end()

    def end(self) -> None:
        """Takes the end of the last line, which may have no line break."""
        if not self._is_open:
            return
        raw = self._digest.digest()
        number, self._number = self._number, self._number + 1
        self._digest, self._is_open = hashlib.blake2b(digest_size=_DIGEST), False
        try:
            if number < len(self._known):
                if self._known[number].to_bytes(_DIGEST, sys.byteorder) == raw:
                    return
                if not self._force:
                    raise InvalidRequestError(
                        f"line {number + 1} of the pipe is not what it was when {self._output} was written. "
                        "Name another file, or pass force=True to go on and mix the results."
                    )
                self._file.truncate(number * _DIGEST)
                del self._known[number:]
            self._file.write(raw)
        except OSError as error:
            raise JobStoppedError(
                f"cannot write to {self._path}: {error.strerror}. What is in {self._output} is kept. "
                "Start the job again to go on."
            ) from error

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def open_input(
    path: str, kind: Format | None, template: Template | None, limit: int
) -> InputFile | InputPipe:
    """Opens the input of a job.

    Raises:
        OSError: It cannot be opened.
    """
    if path == PIPE:
        return InputPipe(sys.stdin.buffer, "stdin", kind, template, limit)
    file = Path(path).open("rb")  # noqa: SIM115 - the input closes it
    if not file.seekable():
        # Such as <(zcat in.jsonl.gz) of a shell.
        return InputPipe(file, path, kind, template, limit)
    return InputFile(file, path, kind, template, limit)


def twice(record: Record, where: str) -> InvalidRequestError:
    """The error for an id that is there twice."""
    return InvalidRequestError(
        f"the id {format_value(record.id)} in line {record.line} of {where} is there twice. "
        "Results are matched to inputs by id, so each id must be unique."
    )


def in_prefix_order(records: Iterable[Record], folder: str | None) -> Iterator[Record]:
    """Yields records in the order in which they find each other in the server's cache.

    They are all read first, and kept in a file without a name. In memory are their places and short keys of their
    beginnings, about 150 bytes for each.

    Args:
        records: The records.
        folder: Where there is room for a copy of them; None for the system's folder for such files.

    Raises:
        JobStoppedError: The disk is full.
    """
    keys: list[bytes] = []
    places: array[int] = array("Q")
    try:
        with TemporaryFile(dir=folder) as file:
            for record in records:
                keys.append(short_key(record.body))
                places.append(file.tell())
                error = None if record.error is None else record.error.message
                fields = [record.id, record.line, record.url, record.body, error]
                file.write(json.dumps(fields, default=str).encode() + b"\n")
            for index in order_of_keys(keys):
                file.seek(places[index])
                key, line, url, body, message = json.loads(file.readline())
                yield Record(key, line, url, body, None if message is None else InvalidRequestError(message))
    except OSError as error:
        raise JobStoppedError(
            f"cannot keep a copy of the inputs in {folder or 'the temporary folder'}: {error.strerror}. "
            'order="prefix" needs as much room as the input has.'
        ) from error
