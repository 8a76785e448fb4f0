"""The output file of a job, which is its journal.

It is only appended to, in whole lines. So after a crash everything but the last line is whole, and a last line without
its end is cut off. Next to it, `<output>.job` has what the job is about: digests of the input and of the parameters.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import sys
import threading
import time
from array import array
from typing import TYPE_CHECKING, Final, cast

from vllmchat.errors import InvalidRequestError, JobStoppedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

try:
    import fcntl
except ImportError:  # Windows
    _lock = None
else:
    _lock = fcntl.flock, fcntl.LOCK_EX | fcntl.LOCK_NB

FLUSH_SECONDS: Final = 0.5
FLUSH_BYTES: Final = 1 << 18
_BLOCK: Final = 1 << 20
_MASK: Final = (1 << 64) - 1
_HASH_BITS: Final = sys.hash_info.width


class IdSet:
    """A set of texts, as digests of 64 bits: eight to twelve bytes each, where a set of Python's has a hundred."""

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * 1024))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, text: str) -> bool:
        digest = _digest(text)
        return self._slots[self._place(self._slots, digest)] == digest

    def add(self, text: str) -> bool:
        """Adds a text; returns whether it is new."""
        digest = _digest(text)
        place = self._place(self._slots, digest)
        if self._slots[place] == digest:
            return False
        self._slots[place] = digest
        self._count += 1
        if self._count * 4 > len(self._slots) * 3:
            self._grow()
        return True

    def _grow(self) -> None:
        slots = array("Q", bytes(8 * 2 * len(self._slots)))
        for digest in self._slots:
            if digest:
                slots[self._place(slots, digest)] = digest
        self._slots = slots

    @staticmethod
    def _place(slots: array[int], digest: int) -> int:
        mask = len(slots) - 1
        place = digest & mask
        while slots[place] not in (0, digest):
            place = (place + 1) & mask
        return place


def _digest(text: str) -> int:
    if _HASH_BITS >= 64:
        return hash(text) & _MASK or 1
    raw = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(raw, "little") or 1


class Journal:
    """The output file, open for appending.

    Args:
        path: The file.

    Raises:
        JobStoppedError: Another job writes to it.
        OSError: It cannot be opened.

    Attributes:
        done: The ids that it has.
        failed: How many of them have an error.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._about = f"{path}.job"
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._flushed = time.monotonic()
        self._failure: OSError | None = None
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._flusher: threading.Thread | None = None
        self.done = IdSet()
        self.failed = 0
        try:
            if _lock is not None:
                _lock[0](self._fd, _lock[1])
                if not os.path.samestat(os.fstat(self._fd), os.stat(path)):
                    # It has just been written anew, without its failures.
                    raise BlockingIOError
            self._size = self._whole_size()
        except BlockingIOError:
            os.close(self._fd)
            raise JobStoppedError(
                f"another job is writing to {path}. Wait for it, or name another file."
            ) from None
        except BaseException:
            os.close(self._fd)
            raise

    # What it is about

    def open(self, about: Mapping[str, str], *, force: bool, retry_failed: bool) -> None:
        """Begins to write: checks what the file is about, cuts off a torn line, and finds what is done.

        Args:
            about: Digests by name.
            force: Whether to go on although something has changed.
            retry_failed: Whether to forget the failures.

        Raises:
            InvalidRequestError: The file belongs to another job.
        """
        if os.fstat(self._fd).st_size and not force:
            self._check(about)
        self._end_last_line()
        self._write_about(about)
        if retry_failed:
            self._forget_failures()
        for line in self._lines():
            key, ok = _read(line)
            if key is not None and self.done.add(key):
                self.failed += not ok
        self._flusher = threading.Thread(target=self._flush_often, name="vllmchat-journal", daemon=True)
        self._flusher.start()

    def _check(self, about: Mapping[str, str]) -> None:
        try:
            with open(self._about, encoding="utf-8") as file:
                known: object = json.load(file)
            if not isinstance(known, dict):
                raise ValueError
        except FileNotFoundError:
            raise InvalidRequestError(
                f"{self._path} exists and is not the output of a job. Name another file, or pass force=True to append."
            ) from None
        except ValueError:
            raise InvalidRequestError(
                f"{self._about} cannot be read. Pass force=True to go on with {self._path} all the same."
            ) from None
        digests = cast("Mapping[str, object]", known)
        changed = [name for name, value in about.items() if digests.get(name) != value]
        if changed:
            raise InvalidRequestError(
                f"{self._path} has results for {_another(changed)}. Name another file, or pass force=True to go on and "
                "mix the results."
            )

    def _write_about(self, about: Mapping[str, str]) -> None:
        with contextlib.suppress(OSError, ValueError), open(self._about, encoding="utf-8") as file:
            if json.load(file) == about:
                return
        temporary = f"{self._about}.new"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(dict(about), file)
        os.replace(temporary, self._about)

    def _forget_failures(self) -> None:
        """Writes the file anew without its failures, under its own name only when it is complete."""
        # One name, so that what a killed job has left of it is overwritten. The lock keeps others away.
        temporary = f"{self._path}.new"
        try:
            self._replace_without_failures(temporary)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise JobStoppedError(
                f"cannot write {self._path} anew without its failures: {error.strerror}. It is as it was."
            ) from error
        self._size = os.fstat(self._fd).st_size

    def _replace_without_failures(self, temporary: str) -> None:
        with open(temporary, "w+b") as file:
            os.chmod(temporary, stat.S_IMODE(os.fstat(self._fd).st_mode))
            for line in self._lines():
                if _read(line)[1]:
                    file.write(line)
            file.flush()
            os.fsync(file.fileno())
            if _lock is not None:
                _lock[0](file.fileno(), _lock[1])
            os.replace(temporary, self._path)
            os.close(self._fd)
            self._fd = os.dup(file.fileno())

    def _whole_size(self) -> int:
        """The size of the file up to the end of its last whole line."""
        size = os.fstat(self._fd).st_size
        while size:
            start = max(size - _BLOCK, 0)
            os.lseek(self._fd, start, os.SEEK_SET)
            end = os.read(self._fd, size - start).rfind(b"\n")
            if end >= 0:
                return start + end + 1
            size = start
        return 0

    def _end_last_line(self) -> None:
        """Cuts off a torn last line. One that lacks only its line break, as some editors leave it, gets one."""
        os.lseek(self._fd, self._size, os.SEEK_SET)
        rest = bytearray()
        while piece := os.read(self._fd, _BLOCK):
            rest += piece
        os.ftruncate(self._fd, self._size)
        is_foreign = bool(rest) and not os.path.exists(self._about)
        if is_foreign or _read(bytes(rest))[0] is not None:
            self._pending = [bytes(rest), b"\n"]
            self._flush()
            self._check_failure()

    def _lines(self) -> Iterator[bytes]:
        with open(os.dup(self._fd), "rb") as file:
            file.seek(0)
            yield from file

    # Writing

    def write(self, lines: Sequence[bytes]) -> None:
        """Writes lines, within a second.

        Raises:
            JobStoppedError: The disk is full, or something else is wrong with the file.
        """
        with self._lock:
            self._pending.extend(lines)
            self._pending_bytes += sum(map(len, lines))
            if self._pending_bytes >= FLUSH_BYTES:
                self._flush()
            self._check_failure()

    def close(self) -> None:
        """Writes what is left, and closes the file.

        Raises:
            JobStoppedError: See `write`.
        """
        self._closing.set()
        if self._flusher is not None:
            self._flusher.join()
        try:
            with self._lock:
                self._flush()
                if self._failure is None and self._flusher is not None:
                    os.fsync(self._fd)
                self._check_failure()
        finally:
            os.close(self._fd)

    def _flush_often(self) -> None:
        while not self._closing.wait(FLUSH_SECONDS):
            with self._lock:
                self._flush()

    def _flush(self) -> None:
        if not self._pending or self._failure is not None:
            return
        whole = b"".join(self._pending)
        data = memoryview(whole)
        try:
            # Ctrl-C may end this at any line. What is written then is written over.
            os.lseek(self._fd, self._size, os.SEEK_SET)
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            self._failure = error
            # What was written of the last lines goes: each line is whole or absent.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            return
        # Without a call between them, where an interrupt could come in.
        self._size, self._pending, self._pending_bytes = self._size + len(whole), [], 0

    def _check_failure(self) -> None:
        if self._failure is not None:
            raise JobStoppedError(
                f"cannot write to {self._path}: {self._failure.strerror}. What is in it is kept. Start the job again "
                f"to go on; {len(self._pending):,} results were not written and will be asked for again."
            ) from self._failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc is None:
            self.close()
        else:
            # The error that is there says more than one of closing.
            with contextlib.suppress(JobStoppedError):
                self.close()


def _read(line: bytes) -> tuple[str | None, bool]:
    """The id of a line, and whether it has a reply."""
    try:
        entry: object = json.loads(line)
    except ValueError:
        return None, True
    if not isinstance(entry, dict):
        return None, True
    fields = cast("dict[str, object]", entry)
    key = fields.get("custom_id")
    return (key if isinstance(key, str) else None), fields.get("error") is None


def _another(changed: list[str]) -> str:
    return " and ".join("another input" if name == "input" else "other parameters" for name in changed)
