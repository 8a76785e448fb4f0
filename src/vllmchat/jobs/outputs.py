"""Where the results of a job are written: a file, which is its journal, or a stream such as stdout."""

from __future__ import annotations

import os
import stat
import sys
from typing import IO, TYPE_CHECKING

from vllmchat.errors import InvalidRequestError, JobStoppedError
from vllmchat.jobs.inputs import PIPE
from vllmchat.jobs.journal import Journal
from vllmchat.wire.controls import without_controls

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self


class Stream:
    """Stdout, or what is not a file on a disk, such as a named pipe.

    Args:
        file: The file.
        name: Its name, for errors.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file = file
        self._name = name
        self._is_terminal = file.isatty()

    def write(self, lines: Sequence[bytes]) -> None:
        """Writes lines at once.

        Raises:
            BrokenPipeError: Nobody reads it any more.
            JobStoppedError: It cannot be written.
        """
        if self._is_terminal:
            lines = [without_controls(line.decode()).encode() for line in lines]
        try:
            self._file.writelines(lines)
            self._file.flush()
        except BrokenPipeError:
            self._forget()
            raise
        except OSError as error:
            self._forget()
            raise JobStoppedError(f"cannot write to {self._name}: {error.strerror}.") from error

    def _forget(self) -> None:
        """Sends what is still in the buffer nowhere, or Python complains about it at its end."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._file.fileno())
        os.close(nowhere)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not sys.stdout.buffer:
            self._file.close()


def open_output(path: str, source: str) -> Journal | Stream:
    """Opens the output of a job.

    Args:
        path: Its path.
        source: The path of the input.

    Raises:
        InvalidRequestError: They are the same file.
        JobStoppedError: Another job writes to it.
        OSError: It cannot be opened.
    """
    if path == PIPE:
        return Stream(sys.stdout.buffer, "stdout")
    if os.path.exists(path):
        if source != PIPE and os.path.samefile(path, source):
            raise InvalidRequestError(
                f"{path} is the input, and cannot be the output too. Name another file."
            )
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            return Stream(open(path, "wb"), path)
    # Through a symbolic link, so that rewriting the file does not replace the link.
    return Journal(os.path.realpath(path))
