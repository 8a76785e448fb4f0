"""A transcription or translation as a call: a file and validated parameters, as a form."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from vllmchat.audio.params import (
    OpenAITranscribeParams,
    OpenAITranslateParams,
    StreamTranscribeParams,
    StreamTranslateParams,
    TranscribeParams,
    TranslateParams,
)
from vllmchat.audio.transcription import read_transcription
from vllmchat.audio.upload import check_file, form_fields, multipart
from vllmchat.checking.describe import format_value
from vllmchat.checking.validator import Validator, check_request
from vllmchat.client.request import ModelRequest
from vllmchat.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from vllmchat.audio.transcription import Transcription
    from vllmchat.audio.upload import AudioFile, File
    from vllmchat.checking.validator import CheckedParams, CrossFieldRule, Explanation


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that has been checked but not read, and its parameters.

    Attributes:
        path: The route.
        file: The file.
        params: The checked parameters.
        stream: Whether the response is streamed.
        route_hint: What the server needs in order to have the route.
    """

    path: str
    file: File
    params: CheckedParams
    stream: bool
    route_hint: str | None

    def read(self) -> ModelRequest[Transcription]:
        """Reads the file and returns the request.

        Raises:
            InvalidRequestError: It cannot be read.
        """
        return ModelRequest(
            self.path,
            {"stream_include_usage": True} if self.stream else {},
            self.params,
            read_transcription,
            self.stream,
            route_hint=self.route_hint,
            encode=partial(_form, name=self.file.name, data=self.file.read()),
        )

    async def aread(self) -> ModelRequest[Transcription]:
        """Reads the file in a thread, so that the event loop does not wait for the disk."""
        if isinstance(self.file.source, bytes):
            return self.read()
        from anyio import to_thread  # needed only to read a file on an event loop

        return await to_thread.run_sync(self.read)


def _form(fields: Mapping[str, object], name: str, data: bytes) -> tuple[bytes, str]:
    return multipart(form_fields(fields), name, data)


_NEEDS: Final = (
    "Only speech models have it: start the server with one, such as openai/whisper-large-v3-turbo (translations since "
    "vLLM 0.9.2)."
)


def upload(method: str, file: AudioFile, params: Mapping[str, object]) -> Upload:
    """The upload of a transcription or a translation.

    Args:
        method: The name of the method, a key of `_METHODS`.
        file: The file.
        params: The keyword arguments of the call.

    Raises:
        InvalidRequestError: With every problem found.
    """
    path, validator = _METHODS[method]
    stream = method.startswith("stream_")
    checked_file, found = check_file(file)
    checked = check_request(found, validator.check, params, stream=stream)
    return Upload(path, checked_file, checked, stream, None if method.startswith("openai_") else _NEEDS)


# Rules between parameters, each under the name that triggers it


def _only_verbose(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    if fields.get("response_format") != "verbose_json" and "response_format" not in wrong:
        rule = 'needs response_format="verbose_json".'
        yield Problem("timestamp_granularities", format_value(fields["timestamp_granularities"]), rule)


def _granularities(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    yield from _only_verbose(fields, stream, wrong)
    if "word" in cast("Sequence[str]", fields["timestamp_granularities"]):
        rule = "is not supported by vLLM, which returns only segment timestamps."
        yield Problem("timestamp_granularities", '"word"', rule, 'Write ["segment"].')


def _beam_only(name: str) -> CrossFieldRule:
    def rule(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
        if fields.get("use_beam_search") is not True and "use_beam_search" not in wrong:
            yield Problem(name, format_value(fields[name]), "has no effect without use_beam_search=True.")

    return rule


def _continuous(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    if fields["stream_continuous_usage_stats"] is True and fields.get("stream_include_usage") is False:
        rule = "has no effect with stream_include_usage=False."
        yield Problem("stream_continuous_usage_stats", "True", rule)


def _in_brackets(fields: dict[str, object]) -> None:
    """Renames a list as forms do."""
    if "timestamp_granularities" in fields:
        fields["timestamp_granularities[]"] = fields.pop("timestamp_granularities")


_BEAM: Final = {name: _beam_only(name) for name in ("n", "length_penalty", "include_stop_str_in_output")}

_WHOLE_ONLY: Final = {
    "response_format": ("is not for streams, which return plain text.", "Leave it out."),
    "timestamp_granularities": ("is not for streams, which are text.", "Leave it out."),
    **dict.fromkeys(("use_beam_search", *_BEAM), ("is not for streams.", "Leave it out.")),
}
_STREAMED_ONLY: Final[Mapping[str, Explanation]] = dict.fromkeys(
    ("stream_include_usage", "stream_continuous_usage_stats"), ("is only for streams.", "Leave it out.")
)
_NOT_STREAMED: Final[Mapping[str, Explanation]] = {
    "stream": ("is not supported: OpenAI's streams of speech differ from vLLM's.", "Leave it out.")
}
_STREAM_RULES: Final = {"stream_continuous_usage_stats": _continuous}

_TRANSCRIBE: Final = "/audio/transcriptions"
_TRANSLATE: Final = "/audio/translations"


def _method(
    path: str,
    name: str,
    params: type,
    rules: Mapping[str, CrossFieldRule],
    own: Mapping[str, Explanation],
    other: type | None = None,
) -> tuple[str, Validator]:
    owner = f"OpenAIProvider.{name.removeprefix('openai_')}" if other is not None else f"VLLMProvider.{name}"
    return path, Validator(owner, params, rules, own=own, other=other, finish=_in_brackets)


_METHODS: Final = {
    "transcribe": _method(
        _TRANSCRIBE,
        "transcribe",
        TranscribeParams,
        {**_BEAM, "timestamp_granularities": _granularities},
        _STREAMED_ONLY,
    ),
    "translate": _method(_TRANSLATE, "translate", TranslateParams, _BEAM, _STREAMED_ONLY),
    "stream_transcribe": _method(
        _TRANSCRIBE, "stream_transcribe", StreamTranscribeParams, _STREAM_RULES, _WHOLE_ONLY
    ),
    "stream_translate": _method(
        _TRANSLATE, "stream_translate", StreamTranslateParams, _STREAM_RULES, _WHOLE_ONLY
    ),
    "openai_transcribe": _method(
        _TRANSCRIBE,
        "openai_transcribe",
        OpenAITranscribeParams,
        {"timestamp_granularities": _only_verbose},
        _NOT_STREAMED,
        TranscribeParams,
    ),
    "openai_translate": _method(
        _TRANSLATE, "openai_translate", OpenAITranslateParams, {}, _NOT_STREAMED, TranslateParams
    ),
}
"""The route and the parameters of each method."""
