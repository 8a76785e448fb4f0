"""File uploads: where a file comes from, and how it is encoded in a form."""

from __future__ import annotations

import os
import secrets
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, TypeAlias, cast, runtime_checkable

from vllmchat.checking.describe import as_list, as_mapping, format_value, type_name
from vllmchat.errors import InvalidRequestError, Problem
from vllmchat.wire.encode import encode_json
from vllmchat.wire.media_types import media_type_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MAX_FILE_BYTES: Final = 512 * 1024 * 1024
"""The largest file that is sent, since it is held in memory. A vLLM server accepts 25 MB unless its
`VLLM_MAX_AUDIO_CLIP_FILESIZE_MB` says otherwise."""

AudioFile: TypeAlias = "str | os.PathLike[str] | bytes | BinaryIO | tuple[str, bytes | BinaryIO]"
"""A path, the bytes of a file, a file opened for reading bytes, or one of the last two with a file name."""


@runtime_checkable
class _Readable(Protocol):
    def read(self, size: int, /) -> object: ...


@dataclass(frozen=True, slots=True)
class File:
    """A file that has been checked, but not read.

    Attributes:
        source: A path, the bytes, or an open file.
        name: Its file name in the form. Servers may use its extension.
    """

    source: str | bytes | _Readable
    name: str

    def read(self) -> bytes:
        """Returns its bytes.

        Raises:
            InvalidRequestError: It cannot be read, is empty, is too large, or is not a binary file.
        """
        source = self.source
        if isinstance(source, bytes):
            return source
        try:
            if isinstance(source, str):
                with open(source, "rb") as file:
                    data: object = file.read(MAX_FILE_BYTES + 1)
            else:
                data = source.read(MAX_FILE_BYTES + 1)
        except (OSError, ValueError) as error:
            # ValueError: the file has been closed.
            raise _unreadable(source, error) from error
        if not isinstance(data, (bytes, bytearray)):
            rule = f"must be read as bytes, not as {type_name(data)}."
            raise InvalidRequestError(
                [Problem("file", format_value(source), rule, 'Open it with mode "rb".')]
            )
        found = _check_size(len(data), source)
        if found:
            raise InvalidRequestError(found)
        return bytes(data)


def check_file(value: object) -> tuple[File, Sequence[Problem]]:
    """A file to send, and what is wrong with it."""
    nothing = File(b"", "")
    name: str | None = None
    pair = as_list(value)
    if pair is not None:
        if len(pair) != 2 or not isinstance(pair[0], str):
            return nothing, [_no_file(value)]
        name, value = pair[0], pair[1]
    if isinstance(value, (bytes, bytearray)):
        return File(bytes(value), name or "audio"), _check_size(len(value), value)
    if pair is None and isinstance(value, (str, os.PathLike)):
        return _check_path(os.fsdecode(cast("str | os.PathLike[str]", value)))
    if isinstance(value, _Readable):
        own = getattr(value, "name", None)
        return File(value, name or (os.path.basename(own) if isinstance(own, str) else "") or "audio"), ()
    return nothing, [_no_file(value)]


def _check_path(path: str) -> tuple[File, Sequence[Problem]]:
    file = File(path, os.path.basename(path) or "audio")
    if path.startswith(("http://", "https://", "data:")):
        return file, [
            Problem(
                "file", format_value(path), "must be a file, not a URL.", "Download it and pass its bytes."
            )
        ]
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        return file, _unreadable(path, error).problems
    if stat.S_ISDIR(status.st_mode):
        return file, [Problem("file", format_value(path), "must be a file, not a folder.")]
    # Pipes have no size.
    return file, _check_size(status.st_size, path) if stat.S_ISREG(status.st_mode) else ()


def _check_size(size: int, value: object) -> list[Problem]:
    if size == 0:
        return [Problem("file", format_value(value), "must not be empty.")]
    if size > MAX_FILE_BYTES:
        rule = f"must not be larger than {MAX_FILE_BYTES // 1024**2} MB."
        return [Problem("file", format_value(value), rule)]
    return []


def _no_file(value: object) -> Problem:
    what = "a path, bytes, a file opened for reading bytes, or a tuple of a file name and one of the last two"
    return Problem("file", format_value(value), f"must be {what}, not {type_name(value)}.")


def _unreadable(value: object, error: Exception) -> InvalidRequestError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return InvalidRequestError([Problem("file", format_value(value), f"cannot be read: {reason}.")])


def form_fields(fields: Mapping[str, object]) -> list[tuple[str, str]]:
    """Encodes fields for a form. The items of a list all get the same name.

    Raises:
        InvalidRequestError: A value cannot be sent in a form.
    """
    entries: list[tuple[str, str]] = []
    for name, value in fields.items():
        if value is not None:
            several = as_list(value)
            entries.extend((name, _text(name, each)) for each in ([value] if several is None else several))
    return entries


def _text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    mapping = as_mapping(value)
    if mapping is not None:
        return encode_json(cast("Mapping[str, object]", mapping)).decode()
    if not isinstance(value, str):
        raise InvalidRequestError(
            [Problem(name, format_value(value), f"cannot be sent in a form: {type_name(value)}.")]
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        rule = f"cannot be encoded ({error.reason})."
        raise InvalidRequestError([Problem(name, format_value(value), rule)]) from error
    return value


def multipart(fields: Iterable[tuple[str, str]], name: str, data: bytes) -> tuple[bytes, str]:
    """Encodes a form with one file, named `file`.

    Args:
        fields: The other fields.
        name: The file's name.
        data: Its bytes.

    Returns:
        The body and its media type.
    """
    # Random, so that no file can contain it.
    boundary = secrets.token_hex(16)
    head: list[bytes] = []
    for key, text in fields:
        head.append(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(key)}"\r\n\r\n{text}\r\n'.encode()
        )
    # MP4, WebM and MPEG are containers for video too; here, they have audio.
    kind = media_type_of(name).replace("video/", "audio/") or "application/octet-stream"
    head.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{_quoted(name)}"\r\n'
        f"Content-Type: {kind}\r\n\r\n".encode("utf-8", "replace")
    )
    body = b"".join([*head, data, f"\r\n--{boundary}--\r\n".encode()])
    return body, f"multipart/form-data; boundary={boundary}"


def _quoted(text: str) -> str:
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
