"""Content parts from files, bytes and URLs."""

from __future__ import annotations

import base64
import io
import wave
from pathlib import Path
from typing import IO, Any

import pytest

from vllmchat.chat.messages import audio_part, image_part, text_part, video_part
from vllmchat.errors import InvalidRequestError

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
URL = "https://example.com/cat"


def wav() -> bytes:
    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16))
    return held.getvalue()


def ftyp(brand: bytes) -> bytes:
    return b"\0\0\0\x18ftyp" + brand + bytes(8)


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def url_of(part: Any) -> str:
    url: str = part[part["type"]]["url"]
    return url


def test_text() -> None:
    assert text_part("Hello") == {"type": "text", "text": "Hello"}


@pytest.mark.parametrize(
    "url",
    [
        "http://h/a.png",
        "HTTPS://h/a.png",
        "https://h/no-suffix",
        "data:image/png;base64,AAAA",
        "file:///srv/media/a.png",
        "file:/srv/media/a.png",
    ],
)
def test_a_url_is_sent_unchanged(url: str) -> None:
    assert image_part(url) == {"type": "image_url", "image_url": {"url": url}}
    assert audio_part(url) == {"type": "audio_url", "audio_url": {"url": url}}
    assert video_part(url) == {"type": "video_url", "video_url": {"url": url}}


@pytest.mark.parametrize("url", ["s3://bucket/a.png", "ftp://h/a.png", "hf://m/a.png"])
@pytest.mark.parametrize("make", [image_part, audio_part, video_part])
def test_unsupported_url_schemes_are_rejected(make: Any, url: str) -> None:
    with pytest.raises(InvalidRequestError, match="has an unsupported URL scheme: use http://"):
        make(url)


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0" + bytes(9), "image/jpeg"),
        (b"GIF89a" + bytes(9), "image/gif"),
        (b"GIF87a" + bytes(9), "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        (b"BM" + bytes(30), "image/bmp"),
        (b"II*\0" + bytes(9), "image/tiff"),
        (b"MM\0*" + bytes(9), "image/tiff"),
        (ftyp(b"avif"), "image/avif"),
        (ftyp(b"heic"), "image/heic"),
    ],
)
def test_images_are_detected_by_their_first_bytes(data: bytes, media_type: str) -> None:
    assert url_of(image_part(data)) == f"data:{media_type};base64,{encoded(data)}"
    assert image_part(bytearray(data)) == image_part(data)


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (ftyp(b"isom"), "video/mp4"),
        (ftyp(b"qt  "), "video/quicktime"),
        (b"\x1aE\xdf\xa3\x01\0\0\0webm", "video/webm"),
        (b"\x1aE\xdf\xa3\x01\0\0\0matroska", "video/x-matroska"),
        (b"RIFF\0\0\0\0AVI LIST", "video/x-msvideo"),
        (b"\0\0\x01\xba" + bytes(9), "video/mpeg"),
        (b"OggS" + bytes(9), "video/ogg"),
    ],
)
def test_videos_are_detected_by_their_first_bytes(data: bytes, media_type: str) -> None:
    assert url_of(video_part(data)) == f"data:{media_type};base64,{encoded(data)}"


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (wav(), "wav"),
        (b"ID3" + bytes(9), "mp3"),
        (b"\xff\xfb" + bytes(9), "mp3"),
        (b"\xff\xf1" + bytes(9), "aac"),
        (b"fLaC" + bytes(9), "flac"),
        (b"OggS" + bytes(9), "ogg"),
        (ftyp(b"M4A "), "m4a"),
        (ftyp(b"isom"), "m4a"),
        (b"\x1aE\xdf\xa3\x01\0\0\0webm", "webm"),
    ],
)
def test_audio_is_detected_by_its_first_bytes(data: bytes, form: str) -> None:
    assert audio_part(data) == {"type": "input_audio", "input_audio": {"data": encoded(data), "format": form}}


def test_files(tmp_path: Path) -> None:
    picture, sound = tmp_path / "cat.png", tmp_path / "cat.wav"
    picture.write_bytes(PNG)
    sound.write_bytes(wav())
    assert image_part(picture) == image_part(str(picture)) == image_part(PNG)
    assert audio_part(sound) == audio_part(wav())


def test_unusual_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("http:x.png", "a:b.png", "data", "C:x.png", "cat?.png"):
        Path(name).write_bytes(PNG)
        assert image_part(name) == image_part(PNG)


def test_the_first_bytes_take_precedence_over_the_file_name(tmp_path: Path) -> None:
    wrong = tmp_path / "cat.jpg"
    wrong.write_bytes(PNG)
    assert url_of(image_part(wrong)).startswith("data:image/png;")


def test_the_file_name_is_the_fallback(tmp_path: Path) -> None:
    drawing = tmp_path / "cat.SVG"
    drawing.write_bytes(b"<svg/>")
    assert url_of(image_part(drawing)).startswith("data:image/svg+xml;")


def test_a_given_media_type_takes_precedence() -> None:
    assert url_of(image_part(PNG, media_type="image/x-mine")).startswith("data:image/x-mine;")
    assert url_of(video_part(b"raw", media_type="video/mp4")).startswith("data:video/mp4;")
    raw: Any = audio_part(b"raw", media_type="audio/x-wav")
    assert raw["input_audio"]["format"] == "wav"


def test_detail_and_uuid() -> None:
    assert image_part(URL, detail="low", uuid="u") == {
        "type": "image_url",
        "image_url": {"url": URL, "detail": "low"},
        "uuid": "u",
    }
    assert video_part(URL, uuid="u").get("uuid") == "u"
    assert audio_part(URL, uuid="u").get("uuid") == "u"
    assert audio_part(wav(), uuid="u").get("uuid") == "u"


def test_cached_media() -> None:
    assert image_part(None, uuid="u") == {"type": "image_url", "image_url": None, "uuid": "u"}
    assert audio_part(None, uuid="u") == {"type": "input_audio", "input_audio": None, "uuid": "u"}
    assert video_part(None, uuid="u") == {"type": "video_url", "video_url": None, "uuid": "u"}


@pytest.mark.parametrize("make", [image_part, audio_part, video_part])
def test_none_without_uuid_is_rejected(make: Any) -> None:
    with pytest.raises(
        InvalidRequestError, match=r"source=None: must be a URL, a path or bytes; None requires"
    ):
        make(None)


@pytest.mark.parametrize("make", [image_part, audio_part, video_part])
def test_a_missing_file(make: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="a str is a URL only if it begins with http://") as caught:
        make(str(tmp_path / "none.png"))
    assert caught.value.filename == str(tmp_path / "none.png")


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        image_part(tmp_path)


@pytest.mark.parametrize(
    ("make", "source", "media_type", "text"),
    [
        (image_part, b"", None, "source=<0 bytes>: is empty."),
        (image_part, b"abc", None, ("has a media type that cannot be detected from its first bytes. "
         'Set it, such as media_type="image/png".')),
        (image_part, wav(), None, "is audio/wav, not image. Use audio_part."),
        (audio_part, PNG, None, "is image/png, not audio. Use image_part."),
        (video_part, PNG, None, "is image/png, not video. Use image_part."),
        (image_part, PNG, "png", 'media_type=\'png\': must be a media type, such as "image/png".'),
        (image_part, b"x", "text/plain", "is text/plain, not image."),
        (image_part, 5, None, "source: must be a URL, a path or bytes, not an int."),
        (video_part, ["x"], None, "source: must be a URL, a path or bytes, not a list."),
    ],
)  # fmt: skip
def test_invalid_media(make: Any, source: object, media_type: str | None, text: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        make(source, media_type=media_type)
    assert str(caught.value).endswith(text)


class Picture:
    """What this package uses of an image of Pillow, which the tests do not need."""

    def __init__(self, mode: str) -> None:
        self.mode = mode

    def save(self, fp: IO[bytes], file_format: str) -> None:
        if self.mode == "CMYK":
            raise OSError(f"cannot write mode CMYK as {file_format}")
        assert file_format == "PNG"
        fp.write(PNG)


def test_an_image_of_pillow_is_sent_as_a_png() -> None:
    assert image_part(Picture("RGB"), uuid="u") == image_part(PNG, uuid="u")


def test_an_image_that_a_png_cannot_hold() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        image_part(Picture("CMYK"))
    assert str(caught.value) == (
        'source=<Picture>: has the mode CMYK, which cannot be sent as a PNG. Call .convert("RGB") on it.'
    )
