"""Transcriptions and translations: the form that is sent, the responses of the server's own models, and streams.

No speech model runs here. The bytes of `vllm-0.32.0-audio.json` are what the response models of vLLM 0.32.0
serialize to.
"""

from __future__ import annotations

import io
import json
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.scripted import DONE
from vllmchat import (
    APIStatusError,
    AsyncTranscriptionStream,
    BadRequestError,
    InvalidRequestError,
    NotFoundError,
    ResponseError,
    StreamError,
    StreamInterruptedError,
    Transcription,
    TranscriptionChunk,
    TranscriptionStream,
    VLLMProvider,
)
from vllmchat.audio import upload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.runners import Runner
    from support.scripted import Request, ScriptedServer

RECORDED = Path(__file__).parents[2] / "recorded" / "vllm-0.32.0-audio.json"
SOUND = b"RIFF\x24\0\0\0WAVEfmt \r\n--\xff\r\n"


@cache
def recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RECORDED.read_text("utf-8"))
    return found


@pytest.fixture
def llm(scripted: ScriptedServer, runner: Runner) -> Iterator[VLLMProvider]:
    provider = VLLMProvider("whisper", base_url=scripted.base_url)
    yield provider
    runner.close(provider)


@dataclass(frozen=True)
class Form:
    """A form as a server reads it."""

    fields: list[tuple[str, str]]
    filename: str
    kind: str
    data: bytes


def form(request: Request) -> Form:
    """Parses a request's form as a server does: parts between boundaries, headers before the first empty line."""
    kind = request.headers["content-type"]
    assert kind.startswith("multipart/form-data; boundary=")
    boundary = b"--" + kind.partition("boundary=")[2].encode()
    first, *parts = (b"\r\n" + request.body).split(b"\r\n" + boundary)
    assert (first, parts[-1]) == (b"", b"--\r\n")
    fields: list[tuple[str, str]] = []
    files: list[Form] = []
    for part in parts[:-1]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        named = re.fullmatch(
            r'Content-Disposition: form-data; name="([^"]*)"(?:; filename="([^"]*)")?', lines[0]
        )
        assert named is not None
        if named[2] is None:
            assert len(lines) == 1
            fields.append((named[1], content.decode()))
        else:
            assert named[1] == "file"
            files.append(Form(fields, named[2], lines[1].removeprefix("Content-Type: "), content))
    [file] = files
    return file


def refused(runner: Runner, llm: VLLMProvider, method: str, *args: object, **params: object) -> list[str]:
    with pytest.raises(InvalidRequestError) as caught:
        runner.do(llm, method, *args, **params)
    return [str(problem) for problem in caught.value.problems]


# Whole responses


def test_a_transcription(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.reply(recorded()["transcription"].encode())
    result: Transcription = runner.do(
        llm, "transcribe", SOUND, language="en", temperature=0.5, seed=-1, prompt='Say "ü"\r\nplease'
    )
    [request] = scripted.requests
    assert (request.method, request.path) == ("POST", "/v1/audio/transcriptions")
    assert form(request) == Form(
        [
            ("model", "whisper"),
            ("language", "en"),
            ("temperature", "0.5"),
            ("seed", "-1"),
            ("prompt", 'Say "ü"\r\nplease'),
        ],
        "audio",
        "application/octet-stream",
        SOUND,
    )
    assert result.text == " Grüße, 世界."
    assert result.usage is not None
    assert (result.usage.type, result.usage.seconds) == ("duration", 4)
    assert (result.segments, result.language) == (None, None)
    assert result.request_id == request.headers["x-request-id"]


def test_verbose_json(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.version = "0.33.0"
    scripted.reply(recorded()["transcription_verbose"].encode())
    result: Transcription = runner.do(
        llm,
        "transcribe",
        SOUND,
        response_format="verbose_json",
        timestamp_granularities=["segment"],
        use_beam_search=True,
        n=2,
        vllm_xargs={"a": [1, "x"]},
    )
    assert form(scripted.requests[0]).fields[1:] == [
        ("response_format", "verbose_json"),
        ("use_beam_search", "true"),
        ("n", "2"),
        ("vllm_xargs", '{"a":[1,"x"]}'),
        ("timestamp_granularities[]", "segment"),
    ]
    assert (result.duration, result.language, result.words) == (3.5, "en", None)
    assert result.segments is not None
    [segment] = result.segments
    assert (segment.id, segment.start, segment.end, segment.text) == (0, 0.0, 2.5, " Hello.")
    assert (segment.tokens, segment.no_speech_prob, segment.speaker) == ([15947, 13], None, None)


def test_diarized_json(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.reply(recorded()["transcription_diarized"].encode())
    result: Transcription = runner.do(llm, "transcribe", SOUND, response_format="diarized_json")
    assert result.segments is not None
    assert [(each.id, each.speaker, each.text) for each in result.segments] == [
        ("seg_0", "A", "Hello."),
        ("seg_1", "B", "Hi."),
    ]


def test_the_usage_of_old_servers(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.reply({"text": "x", "duration": "3.5", "language": "en", "segments": None})
    result: Transcription = runner.do(llm, "transcribe", SOUND)
    assert (result.duration, result.usage) == (3.5, None)


def test_plain_text_is_a_transcription_too(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    scripted.reply(b"Hello.\n", headers={"content-type": "text/plain; charset=utf-8"})
    result: Transcription = runner.do(llm, "transcribe", SOUND, response_format="text")
    assert result.text == "Hello.\n"
    assert result.request_id


@pytest.mark.parametrize("name", ["translation", "translation_verbose"])
def test_a_translation(name: str, scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.version = "0.33.0"
    scripted.reply(recorded()[name].encode())
    result: Transcription = runner.do(llm, "translate", SOUND, to_language="en", model="other")
    [request] = scripted.requests
    assert request.path == "/v1/audio/translations"
    assert form(request).fields == [("model", "other"), ("to_language", "en")]
    assert result.text == " Hello."
    assert result.usage is None


def test_escape_hatches(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.reply(recorded()["translation"].encode())
    extra: Any = {"new": [1, True, "x"], "gone": None, "deep": {"a": 1}, "language": "fr"}
    runner.do(
        llm, "transcribe", SOUND, language="en", extra_body=extra, extra_headers={"x-a": "b"}, timeout=9
    )
    [request] = scripted.requests
    assert request.headers["x-a"] == "b"
    assert form(request).fields == [
        ("model", "whisper"),
        ("language", "fr"),
        ("new", "1"),
        ("new", "true"),
        ("new", "x"),
        ("deep", '{"a":1}'),
    ]


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (object(), "cannot be sent in a form: an object."),
        ([[1]], "cannot be sent in a form: a list."),
        ("\ud800", "cannot be encoded (surrogates not allowed)."),
    ],
)
def test_what_cannot_be_sent_in_a_form(value: object, rule: str, runner: Runner, llm: VLLMProvider) -> None:
    [problem] = refused(runner, llm, "transcribe", SOUND, extra_body={"new": value})
    assert problem.startswith("new=")
    assert problem.endswith(f": {rule}")


@pytest.mark.parametrize("body", [b"[]", b"{}", b"oops"])
def test_other_responses_are_not_transcriptions(
    body: bytes, scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    scripted.reply(body)
    with pytest.raises(ResponseError, match="not a transcription"):
        runner.do(llm, "transcribe", SOUND)


def test_a_model_that_does_not_accept_audio(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    scripted.reply({"detail": "Not Found"}, 404)
    with pytest.raises(NotFoundError, match="whisper-large-v3-turbo"):
        runner.do(llm, "transcribe", SOUND)
    error = {"message": "Maximum file size exceeded", "type": "BadRequestError", "param": "audio_filesize_mb"}
    scripted.reply({"error": {**error, "code": 400}}, 400)
    with pytest.raises(BadRequestError, match="Maximum file size exceeded") as caught:
        runner.do(llm, "translate", SOUND)
    assert caught.value.param == "audio_filesize_mb"


def test_a_retry_sends_the_file_again(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.busy(1, retry_after="0")
    scripted.reply(recorded()["transcription"].encode())
    runner.do(llm, "transcribe", io.BytesIO(SOUND))
    assert [form(request).data for request in scripted.requests] == [SOUND, SOUND]


# Files


class Nameless(io.RawIOBase):
    def read(self, size: int | None = -1, /) -> bytes:
        return SOUND


def test_files(tmp_path: Path, scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    path = tmp_path / 'sp"ech.mp3'
    path.write_bytes(SOUND)
    with path.open("rb") as opened:
        files: list[tuple[object, str, str]] = [
            (path, "sp%22ech.mp3", "audio/mpeg"),
            (str(path), "sp%22ech.mp3", "audio/mpeg"),
            (opened, "sp%22ech.mp3", "audio/mpeg"),
            (SOUND, "audio", "application/octet-stream"),
            (bytearray(SOUND), "audio", "application/octet-stream"),
            (io.BytesIO(SOUND), "audio", "application/octet-stream"),
            (Nameless(), "audio", "application/octet-stream"),
            (("a\r\n.wav", SOUND), "a%0D%0A.wav", "audio/wav"),
            (("ü.flac", io.BytesIO(SOUND)), "ü.flac", "audio/flac"),
        ]
        for file, name, kind in files:
            scripted.reply(recorded()["transcription"].encode())
            runner.do(llm, "transcribe", file)
            assert form(scripted.requests[-1]) == Form([("model", "whisper")], name, kind, SOUND)


def test_what_is_not_a_file(tmp_path: Path, runner: Runner, llm: VLLMProvider) -> None:
    empty = tmp_path / "empty.wav"
    empty.touch()
    closed = io.BytesIO(b"x")
    closed.close()
    wrong: list[tuple[object, str]] = [
        (tmp_path / "none.wav", "cannot be read: No such file or directory."),
        (str(tmp_path), "must be a file, not a folder."),
        (empty, "must not be empty."),
        (b"", "must not be empty."),
        (io.BytesIO(), "must not be empty."),
        (closed, "cannot be read: I/O operation on closed file"),
        (io.StringIO("text"), 'must be read as bytes, not as a str. Open it with mode "rb".'),
        ("https://example.com/a.wav", "must be a file, not a URL. Download it and pass its bytes."),
        ("nul\0byte", "embedded null"),
        (3, "must be a path, bytes, a file opened for reading bytes"),
        (None, "must be a path, bytes, a file opened for reading bytes"),
        (("a.wav",), "must be a path, bytes"),
        ((1, b"x"), "must be a path, bytes"),
        (("a.wav", "b.wav"), "must be a path, bytes"),
    ]
    for file, rule in wrong:
        [problem] = refused(runner, llm, "transcribe", file)
        assert problem.startswith("file=")
        assert rule in problem, problem


def test_a_file_that_is_gone_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(SOUND)
    file, problems = upload.check_file(path)
    assert not problems
    path.unlink()
    with pytest.raises(InvalidRequestError, match="cannot be read: No such file"):
        file.read()


def test_files_have_a_maximum_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: Runner, llm: VLLMProvider
) -> None:
    monkeypatch.setattr(upload, "MAX_FILE_BYTES", 2 * 1024**2)
    path = tmp_path / "a.wav"
    path.write_bytes(bytes(2 * 1024**2 + 1))
    for file in (path, path.read_bytes(), io.BytesIO(path.read_bytes())):
        [problem] = refused(runner, llm, "transcribe", file)
        assert problem.endswith("must not be larger than 2 MB.")


def test_a_pipe_has_no_size(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    out, into = os.pipe()
    os.write(into, SOUND)
    os.close(into)
    scripted.reply(recorded()["transcription"].encode())
    runner.do(llm, "transcribe", f"/dev/fd/{out}")
    os.close(out)
    assert form(scripted.requests[0]).data == SOUND


# Parameters


def test_off_is_sent_in_a_form_that_all_versions_understand(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    for top_k, sent in ((0, "-1"), (5, "5")):
        scripted.reply({"text": ""})
        runner.do(llm, "transcribe", SOUND, top_k=top_k)
        assert ("top_k", sent) in form(scripted.requests[-1]).fields
    scripted.reply({"text": ""})
    runner.do(llm, "transcribe", SOUND, extra_body={"top_k": 0})
    assert ("top_k", "0") in form(scripted.requests[-1]).fields


def test_word_timestamps_are_rejected(runner: Runner, llm: VLLMProvider) -> None:
    given = {"response_format": "verbose_json", "timestamp_granularities": ["segment", "word"]}
    [problem] = refused(runner, llm, "transcribe", SOUND, **given)
    assert problem.startswith('timestamp_granularities="word": is not supported by vLLM')
    assert problem.endswith('Write ["segment"].')


def test_rules_between_parameters(runner: Runner, llm: VLLMProvider) -> None:
    assert refused(
        runner,
        llm,
        "transcribe",
        3,
        timestamp_granularities=["segment"],
        n=2,
        length_penalty=1.5,
        stream=True,
        stream_include_usage=True,
        temperatur=0,
        top_p=0,
    )[1:] == [
        "timestamp_granularities=['segment']: needs response_format=\"verbose_json\".",
        "n=2: has no effect without use_beam_search=True.",
        "length_penalty=1.5: has no effect without use_beam_search=True.",
        (
            "stream=True: is not a parameter: the method decides whether to stream. "
            "Call .stream_transcribe(...) to stream, .transcribe(...) for the whole response."
        ),
        "stream_include_usage=True: is only for streams. Leave it out.",
        "temperatur=0: is not a parameter of VLLMProvider.transcribe. Did you mean `temperature`?",
        "top_p=0: must be greater than 0 and at most 1.",
    ]
    # What is wrong anyway is reported once.
    assert refused(runner, llm, "transcribe", SOUND, use_beam_search=1, n=2) == [
        "use_beam_search=1: must be True or False, not an int."
    ]
    [one] = refused(
        runner, llm, "transcribe", SOUND, response_format="srt", timestamp_granularities=["segment"]
    )
    assert one.startswith("response_format='srt': must be")
    [one] = refused(runner, llm, "translate", SOUND, response_format="diarized_json")
    assert one.startswith("response_format='diarized_json': must be")


def test_what_streams_do_not_accept(llm: VLLMProvider) -> None:
    params: Any = {
        "response_format": "verbose_json",
        "n": 2,
        "stream_continuous_usage_stats": True,
        "stream_include_usage": False,
    }
    for method in (
        llm.stream_transcribe,
        llm.astream_transcribe,
        llm.stream_translate,
        llm.astream_translate,
    ):
        with pytest.raises(InvalidRequestError) as caught:
            method(SOUND, **params)
        assert [str(problem) for problem in caught.value.problems] == [
            "response_format='verbose_json': is not for streams, which return plain text. Leave it out.",
            "n=2: is not for streams. Leave it out.",
            "stream_continuous_usage_stats=True: has no effect with stream_include_usage=False.",
        ]


# Streams


class Stream:
    """A sync or async stream, as a sync one."""

    def __init__(
        self, runner: Runner, llm: VLLMProvider, method: str, *args: object, **params: object
    ) -> None:
        self._portal = runner.portal
        name = f"stream_{method}" if self._portal is None else f"astream_{method}"
        self.inner: TranscriptionStream | AsyncTranscriptionStream = getattr(llm, name)(*args, **params)

    def chunks(self) -> list[TranscriptionChunk]:
        inner = self.inner
        if isinstance(inner, TranscriptionStream):
            return list(inner)
        assert self._portal is not None

        async def listed() -> list[TranscriptionChunk]:
            return [chunk async for chunk in inner]

        return self._portal.call(listed)


def events(name: str) -> list[bytes]:
    return [f"data: {event}\n\n".encode() for event in recorded()[name]]


@pytest.mark.parametrize("method", ["transcribe", "translate"])
def test_a_stream(method: str, scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    kind = "transcription" if method == "transcribe" else "translation"
    scripted.stream([*events(f"{kind}_stream"), DONE], done=False)
    stream = Stream(runner, llm, method, SOUND, language="en")
    assert scripted.requests == []
    assert stream.inner.request_id is None
    chunks = stream.chunks()
    [request] = scripted.requests
    assert request.path == f"/v1/audio/{kind}s"
    assert request.headers["accept"] == "text/event-stream"
    assert form(request).fields == [
        ("model", "whisper"),
        ("stream_include_usage", "true"),
        ("language", "en"),
        ("stream", "true"),
    ]
    assert [chunk.text for chunk in chunks] == [" Grüße,", " 世界.", " Hello", "", ""]
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None, "stop", None, "stop"]
    assert chunks[0].object == f"{kind}.chunk"
    whole = stream.inner.transcription
    assert whole.request_id == stream.inner.request_id == request.headers["x-request-id"]
    assert whole.text == " Grüße, 世界. Hello"
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens, whole.usage.total_tokens) == (
        154,
        9,
        163,
    )
    assert (whole.usage.seconds, whole.usage.type) == (None, None)
    assert stream.inner.request_id == request.headers["x-request-id"]
    with pytest.raises(StreamError, match=r"is in \.transcription"):
        stream.chunks()


def test_the_usage_proves_the_end(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.stream(events("transcription_stream"), done=False)
    stream = Stream(runner, llm, "transcribe", SOUND)
    assert len(stream.chunks()) == 5


def test_a_finish_reason_does_not(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.stream(events("transcription_stream")[:2], done=False)
    stream = Stream(runner, llm, "transcribe", SOUND, stream_include_usage=False)
    with pytest.raises(StreamInterruptedError) as caught:
        stream.chunks()
    assert caught.value.partial is not None
    assert caught.value.partial.text == " Grüße, 世界."
    assert form(scripted.requests[0]).fields[-2:] == [("stream_include_usage", "false"), ("stream", "true")]


def test_usage_together_with_text_proves_nothing(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    chunk = {"choices": [{"delta": {"content": "x"}}], "usage": {"prompt_tokens": 1, "total_tokens": 2}}
    scripted.stream([chunk], done=False)
    stream = Stream(runner, llm, "transcribe", SOUND, stream_continuous_usage_stats=True)
    with pytest.raises(StreamInterruptedError):
        stream.chunks()
    usage = stream.inner.transcription.usage
    assert usage is not None
    assert usage.total_tokens == 2


def test_an_error_inside_the_stream(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    error = {"error": {"message": "engine died", "type": "InternalServerError", "param": None, "code": 500}}
    scripted.stream([*events("transcription_stream")[:1], error])
    stream = Stream(runner, llm, "transcribe", SOUND)
    with pytest.raises(APIStatusError, match="engine died") as caught:
        stream.chunks()
    assert caught.value.partial is not None
    assert caught.value.partial.text == " Grüße,"


@pytest.mark.parametrize("event", [b"data: []\n\n", b"data: 3\n\n", b'data: {"text": "x"}\n\n'])
def test_other_events(event: bytes, scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.stream([event])
    with pytest.raises(ResponseError, match="not a transcription chunk"):
        Stream(runner, llm, "transcribe", SOUND).chunks()


def test_lenient_chunks(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.stream(
        [{"choices": [{"delta": None}, {"finish_reason": "stop"}]}, {"choices": None, "usage": None}]
    )
    stream = Stream(runner, llm, "transcribe", SOUND)
    assert [chunk.text for chunk in stream.chunks()] == ["", ""]
    assert stream.inner.transcription.text == ""


@pytest.mark.parametrize("choice", [{"message": {"content": "ab"}}, {"delta": {}, "text": "ab"}])
def test_the_text_of_servers_that_only_pretend_to_stream(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider, choice: dict[str, object]
) -> None:
    scripted.stream([{"choices": [{**choice, "finish_reason": "stop"}]}])
    stream = Stream(runner, llm, "transcribe", SOUND)
    assert [chunk.text for chunk in stream.chunks()] == ["ab"]
    assert stream.inner.transcription.text == "ab"


def test_the_finish_reason_null_does_not_count(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    scripted.stream([{"choices": [{"delta": {"content": "a"}, "finish_reason": "null"}]}])
    with pytest.raises(StreamInterruptedError, match="no finish reason"):
        Stream(runner, llm, "transcribe", SOUND).chunks()


def test_the_file_of_a_stream_is_read_when_it_opens(
    tmp_path: Path, scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(SOUND)
    stream = Stream(runner, llm, "transcribe", path)
    path.write_bytes(SOUND * 2)
    scripted.stream(events("transcription_stream"))
    stream.chunks()
    assert form(scripted.requests[0]).data == SOUND * 2
    other = Stream(runner, llm, "transcribe", path)
    path.unlink()
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        other.chunks()
