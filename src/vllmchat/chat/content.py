"""The content parts of messages, and helpers that create them from files, bytes and URLs.

Media parts may have vLLM's `uuid`, a cache key chosen by the caller: the server caches the processed media under it,
and a later part with the same `uuid` may leave the media out (`None`). Since vLLM 0.10.2.

The server passes unknown keys in a part to the chat template.
"""

# No `from __future__ import annotations` here: it makes TypedDicts slower to import.

import base64
import errno
import io
import os
import re
from collections.abc import Mapping
from typing import IO, Final, Literal, NotRequired, Protocol, TypeAlias, cast

from typing_extensions import TypedDict

from vllmchat.checking.describe import type_name
from vllmchat.errors import InvalidRequestError, Problem
from vllmchat.wire.media_types import media_type_of

__all__ = [
    "AudioEmbedsPart",
    "AudioPart",
    "AudioURLPart",
    "ContentPart",
    "FilePart",
    "ImageDetail",
    "ImageEmbedsPart",
    "ImagePart",
    "ImageSource",
    "InputAudioPart",
    "InputImagePart",
    "InputTextPart",
    "OutputTextPart",
    "PillowImage",
    "PromptEmbedsPart",
    "RefusalPart",
    "Source",
    "TextPart",
    "ThinkingPart",
    "ToolReferencePart",
    "VideoEmbedsPart",
    "VideoPart",
    "audio_part",
    "image_part",
    "text_part",
    "video_part",
]

ImageDetail: TypeAlias = Literal["auto", "low", "high", "original"]

Source: TypeAlias = str | os.PathLike[str] | bytes | bytearray
"""Media: a URL, the path of a local file, or bytes.

A `str` is a URL if it begins with `http://`, `https://`, `data:` or `file:`; any other `str` is a path. A `Path` is
always a path.
"""


class PillowImage(Protocol):
    """An image of Pillow: a `PIL.Image.Image`."""

    @property
    def mode(self) -> str:
        """The kind of its pixels, such as `"RGB"`."""
        ...

    def save(self, fp: IO[bytes], file_format: str, /) -> None:
        """Writes it to a file."""
        ...


ImageSource: TypeAlias = Source | PillowImage
"""An image: a URL, the path of a local file, bytes, or an image of Pillow, which is sent as a PNG."""


class TextPart(TypedDict):
    """Text."""

    type: Literal["text"]
    text: str


class InputTextPart(TypedDict):
    """Text, in the form of the Responses API."""

    type: Literal["input_text"]
    text: str


class OutputTextPart(TypedDict):
    """Text from an earlier reply, in the form of the Responses API."""

    type: Literal["output_text"]
    text: str


class RefusalPart(TypedDict):
    """A refusal from an earlier reply."""

    type: Literal["refusal"]
    refusal: str


class ThinkingPart(TypedDict):
    """Reasoning from an earlier reply, as text at its position. vLLM only."""

    type: Literal["thinking"]
    thinking: str
    closed: NotRequired[bool]
    """Whether the reasoning is complete."""


class ImageURL(TypedDict):
    """Where an image is."""

    url: str
    """`http(s)`, `data:`, or `file:` if the server was started with `--allowed-local-media-path`."""
    detail: NotRequired[ImageDetail]
    """The level of detail. vLLM ignores it."""


class ImagePart(TypedDict):
    """An image. See `image_part`."""

    type: Literal["image_url"]
    image_url: ImageURL | None
    uuid: NotRequired[str | None]


class InputImagePart(TypedDict):
    """An image, in the form of the Responses API. Since vLLM 0.10."""

    type: Literal["input_image"]
    image_url: str | None
    detail: NotRequired[ImageDetail]
    uuid: NotRequired[str | None]


class MediaURL(TypedDict):
    """Where media is."""

    url: str
    """`http(s)`, `data:`, or `file:` if the server was started with `--allowed-local-media-path`."""


class AudioURLPart(TypedDict):
    """Audio, by its URL. vLLM only. See `audio_part`."""

    type: Literal["audio_url"]
    audio_url: MediaURL | None
    uuid: NotRequired[str | None]


class AudioData(TypedDict):
    """Audio data."""

    data: str
    """The file's bytes in base64."""
    format: str
    """The file format, such as `"wav"` or `"mp3"`. OpenAI's own server accepts only these two."""


class InputAudioPart(TypedDict):
    """Audio, as data. See `audio_part`."""

    type: Literal["input_audio"]
    input_audio: AudioData | None
    uuid: NotRequired[str | None]


class VideoPart(TypedDict):
    """A video. vLLM only. See `video_part`."""

    type: Literal["video_url"]
    video_url: MediaURL | None
    uuid: NotRequired[str | None]


class ImageEmbedsPart(TypedDict):
    """An image as embeddings: one or more saved torch tensors, in base64. Needs `--enable-mm-embeds`."""

    type: Literal["image_embeds"]
    image_embeds: str | Mapping[str, str] | None
    uuid: NotRequired[str | None]


class AudioEmbedsPart(TypedDict):
    """Audio as embeddings. Since vLLM 0.12; needs `--enable-mm-embeds`."""

    type: Literal["audio_embeds"]
    audio_embeds: str | Mapping[str, str] | None
    uuid: NotRequired[str | None]


class VideoEmbedsPart(TypedDict):
    """A video as embeddings. Since vLLM 0.29; needs `--enable-mm-embeds`."""

    type: Literal["video_embeds"]
    video_embeds: str | Mapping[str, str] | None
    uuid: NotRequired[str | None]


class PromptEmbedsPart(TypedDict):
    """Text as embeddings: a saved torch tensor, in base64. Since vLLM 0.21; needs `--enable-prompt-embeds`."""

    type: Literal["prompt_embeds"]
    data: str


class ToolReferencePart(TypedDict):
    """A tool found by a tool search. Since vLLM 0.21."""

    type: Literal["tool_reference"]
    name: str


class FileData(TypedDict, total=False):
    """A file."""

    file_data: str
    """The file's bytes in base64."""
    file_id: str
    """The id of an uploaded file."""
    filename: str
    """Its name."""


class FilePart(TypedDict):
    """A file, for servers that support files. vLLM does not."""

    type: Literal["file"]
    file: FileData


AudioPart: TypeAlias = InputAudioPart | AudioURLPart

ContentPart: TypeAlias = (
    TextPart
    | ImagePart
    | InputAudioPart
    | AudioURLPart
    | VideoPart
    | ImageEmbedsPart
    | AudioEmbedsPart
    | VideoEmbedsPart
    | PromptEmbedsPart
    | ToolReferencePart
    | InputTextPart
    | InputImagePart
    | FilePart
)


PARTS: Final = {
    "text": "text",
    "image_url": "image_url",
    "input_audio": "input_audio",
    "audio_url": "audio_url",
    "video_url": "video_url",
    "input_text": "text",
    "output_text": "text",
    "input_image": "image_url",
    "refusal": "refusal",
    "thinking": "thinking",
    "image_embeds": "image_embeds",
    "audio_embeds": "audio_embeds",
    "video_embeds": "video_embeds",
    "prompt_embeds": "data",
    "image_pil": "image_pil",
    "tool_reference": "name",
    "file": "file",
}
"""The types of content parts, and the key that has what is in the part."""


def text_part(text: str) -> TextPart:
    """Returns text as a content part."""
    return {"type": "text", "text": text}


def image_part(
    source: ImageSource | None,
    *,
    media_type: str | None = None,
    detail: ImageDetail | None = None,
    uuid: str | None = None,
) -> ImagePart:
    """Returns an image as a content part.

    Args:
        source: The image. A URL is sent unchanged; a file, bytes or an image of Pillow are sent in the request. None
            means the image that the server has cached under `uuid`.
        media_type: The media type, such as `"image/png"`. By default, it is detected from the first bytes or the
            file name.
        detail: The level of detail. vLLM ignores it.
        uuid: A cache key that you choose; vLLM 0.10.2 or newer.

    Raises:
        FileNotFoundError: The file does not exist.
        InvalidRequestError: It is not an image, or its type cannot be detected.
    """
    if hasattr(source, "save") and hasattr(source, "mode"):
        source = _png(cast("PillowImage", source))
    url = _url(cast("Source | None", source), "image", media_type, uuid)
    if url is None:
        return {"type": "image_url", "image_url": None, "uuid": uuid}
    part: ImagePart = {"type": "image_url", "image_url": {"url": url}}
    if detail is not None:
        part["image_url"] = {"url": url, "detail": detail}
    if uuid is not None:
        part["uuid"] = uuid
    return part


def audio_part(
    source: Source | None, *, media_type: str | None = None, uuid: str | None = None
) -> InputAudioPart | AudioURLPart:
    """Returns audio as a content part: `audio_url` for a URL (vLLM only), `input_audio` for a path or bytes.

    Args:
        source: The audio. A URL is sent unchanged; a file or bytes are sent in the request. None means the audio
            that the server has cached under `uuid`.
        media_type: The media type, such as `"audio/wav"`. By default, it is detected from the first bytes or the
            file name.
        uuid: A cache key that you choose; vLLM 0.10.2 or newer.

    Raises:
        FileNotFoundError: The file does not exist.
        InvalidRequestError: It is not audio, or its type cannot be detected.
    """
    if source is None:
        _needs_uuid(uuid, "audio")
        return {"type": "input_audio", "input_audio": None, "uuid": uuid}
    if isinstance(source, str) and _is_url(source):
        linked: AudioURLPart = {"type": "audio_url", "audio_url": {"url": source}}
        if uuid is not None:
            linked["uuid"] = uuid
        return linked
    data, found = _read(source, "audio", media_type)
    held: InputAudioPart = {
        "type": "input_audio",
        "input_audio": {"data": _base64(data), "format": _AUDIO_FORMATS.get(found, found.partition("/")[2])},
    }
    if uuid is not None:
        held["uuid"] = uuid
    return held


def video_part(source: Source | None, *, media_type: str | None = None, uuid: str | None = None) -> VideoPart:
    """Returns a video as a content part. vLLM only.

    Args:
        source: The video. A URL is sent unchanged; a file or bytes are sent in the request. None means the video
            that the server has cached under `uuid`.
        media_type: The media type, such as `"video/mp4"`. By default, it is detected from the first bytes or the
            file name.
        uuid: A cache key that you choose; vLLM 0.10.2 or newer.

    Raises:
        FileNotFoundError: The file does not exist.
        InvalidRequestError: It is not a video, or its type cannot be detected.
    """
    url = _url(source, "video", media_type, uuid)
    if url is None:
        return {"type": "video_url", "video_url": None, "uuid": uuid}
    part: VideoPart = {"type": "video_url", "video_url": {"url": url}}
    if uuid is not None:
        part["uuid"] = uuid
    return part


# From a source to a URL

_SCHEME: Final = r"([A-Za-z][A-Za-z0-9+.-]+):(//)?"
_SCHEMES: Final = ("http", "https", "data", "file")

_AUDIO_FORMATS: Final = {
    "audio/mpeg": "mp3",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/vnd.wave": "wav",
    "audio/x-flac": "flac",
    "audio/mp4": "m4a",
    "audio/x-m4a": "m4a",
}
"""The names of formats in `input_audio` that differ from the subtype of the media type."""


def _is_url(text: str) -> bool:
    """Whether a `str` is a URL rather than a path.

    Raises:
        InvalidRequestError: It is a URL with an unsupported scheme.
    """
    match = re.match(_SCHEME, text)
    if match is None:
        return False
    scheme = match[1].lower()
    if scheme in _SCHEMES and (match[2] or scheme in ("data", "file")):
        return True
    if match[2]:
        rule = "has an unsupported URL scheme: use http://, https://, data: or file:."
        raise InvalidRequestError([Problem("source", repr(text[:60]), rule)])
    return False


def _url(source: Source | None, family: str, media_type: str | None, uuid: str | None) -> str | None:
    if source is None:
        _needs_uuid(uuid, family)
        return None
    if isinstance(source, str) and _is_url(source):
        return source
    data, found = _read(source, family, media_type)
    return f"data:{found};base64,{_base64(data)}"


def _needs_uuid(uuid: str | None, family: str) -> None:
    if uuid is None:
        rule = f"must be a URL, a path or bytes; None requires `uuid`, the key of cached {family}."
        raise InvalidRequestError([Problem("source", "None", rule)])


def _read(source: Source, family: str, media_type: str | None) -> tuple[bytes, str]:
    """Returns the bytes and the media type of a source."""
    value: object = cast("object", source)  # for callers that do not use a type checker
    name = ""
    if isinstance(value, bytes | bytearray):
        data = bytes(value)
    elif isinstance(value, str) or hasattr(value, "__fspath__"):
        name = os.fspath(cast("str | os.PathLike[str]", value))
        data = _read_file(name)
    else:
        rule = f"must be a URL, a path or bytes, not {type_name(value)}."
        raise InvalidRequestError([Problem("source", "", rule)])
    shown = repr(name) if name else f"<{len(data)} bytes>"
    if not data:
        raise InvalidRequestError([Problem("source", shown, "is empty.")])
    found = media_type or _sniff(data) or media_type_of(name)
    if not found:
        rule = "has a media type that cannot be detected from its first bytes."
        hint = f'Set it, such as media_type="{_EXAMPLES[family]}".'
        raise InvalidRequestError([Problem("source", shown, rule, hint)])
    kind, slash, _ = found.partition("/")
    if media_type is not None and not slash:
        rule = f'must be a media type, such as "{_EXAMPLES[family]}".'
        raise InvalidRequestError([Problem("media_type", repr(media_type), rule)])
    # WebM, Ogg and MP4 are containers for audio, video or both.
    if kind != family and not {kind, family} <= {"audio", "video"}:
        rule = f"is {found}, not {family}."
        other = f"Use {kind}_part." if kind in _EXAMPLES else None
        raise InvalidRequestError([Problem("source", shown, rule, other)])
    return data, found if kind == family else f"{family}{found[len(kind) :]}"


_EXAMPLES: Final = {"image": "image/png", "audio": "audio/wav", "video": "video/mp4"}


def _png(image: PillowImage) -> bytes:
    file = io.BytesIO()
    try:
        image.save(file, "PNG")
    except OSError as error:  # such as "cannot write mode CMYK as PNG"
        rule = f"has the mode {image.mode}, which cannot be sent as a PNG."
        problem = Problem("source", f"<{type(image).__name__}>", rule, 'Call .convert("RGB") on it.')
        raise InvalidRequestError([problem]) from error
    return file.getvalue()


def _read_file(name: str) -> bytes:
    try:
        with open(name, "rb") as file:
            return file.read()
    except FileNotFoundError:
        reason = "no such file (a str is a URL only if it begins with http://, https://, data: or file:)"
        raise FileNotFoundError(errno.ENOENT, reason, name) from None


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


_MAGIC: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"\xff\xf3", "audio/mpeg"),
    (b"\xff\xf2", "audio/mpeg"),
    (b"\xff\xf1", "audio/aac"),
    (b"\xff\xf9", "audio/aac"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
    (b"\x00\x00\x01\xba", "video/mpeg"),
    (b"\x00\x00\x01\xb3", "video/mpeg"),
)
_RIFF: Final = {b"WAVE": "audio/wav", b"WEBP": "image/webp", b"AVI ": "video/x-msvideo"}
_BRANDS: Final = {
    b"avif": "image/avif",
    b"avis": "image/avif",
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"mif1": "image/heic",
    b"M4A ": "audio/mp4",
    b"M4B ": "audio/mp4",
    b"qt  ": "video/quicktime",
}


def _sniff(data: bytes) -> str | None:
    """Detects the media type from the first bytes."""
    head = data[:64]
    for start, media_type in _MAGIC:
        if head.startswith(start):
            return media_type
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12])
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "video/mp4")
    if head[:4] == b"\x1aE\xdf\xa3":
        return "video/webm" if b"webm" in head else "video/x-matroska"
    if head[:2] == b"BM" and len(data) >= 26:
        return "image/bmp"
    return None
