"""Jobs from file to file."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, cast

from vllmchat.checking.describe import format_value
from vllmchat.checking.secrets import hide_secrets
from vllmchat.client.base import ProviderBase
from vllmchat.client.defaults import merge
from vllmchat.errors import InvalidRequestError
from vllmchat.jobs.journal import IdSet, Journal, digest_of_file, digest_of_params
from vllmchat.jobs.map import RETRIES, WAIT, Job, MapResults, Options, server_of
from vllmchat.jobs.records import FORMATS, LINE_BYTES, Template, format_of, read_records
from vllmchat.jobs.routes import call_of, error_line_of, line_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Self

    from vllmchat.chat.completion import ChatCompletion
    from vllmchat.chat.protocols import AsyncProvider
    from vllmchat.jobs.map import InFlight, Progress
    from vllmchat.jobs.records import Format, Record

_PIPE: Final = "-"


@dataclass(frozen=True, slots=True)
class JobSummary:
    """What a job from file to file has done.

    Attributes:
        done: How many inputs it sent or rejected.
        failed: How many of them have an error.
        skipped: How many were done before.
        failures: The errors, by the name of their class.
        seconds: How long it took.
        prompt_tokens: Tokens of the prompts.
        completion_tokens: Tokens generated.
    """

    done: int
    failed: int
    skipped: int
    failures: Mapping[str, int] = field(default_factory=dict[str, int])
    seconds: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failed

    def __str__(self) -> str:
        parts = [f"{self.done:,} done in {self.seconds:,.1f} s"]
        if self.skipped:
            parts.append(f"{self.skipped:,} done before")
        if self.failed:
            kinds = ", ".join(f"{count:,} {name}" for name, count in sorted(self.failures.items()))
            parts.append(f"{self.failed:,} failed ({kinds})")
        if self.completion_tokens:
            parts.append(f"{self.prompt_tokens:,} prompt and {self.completion_tokens:,} generated tokens")
        return ", ".join(parts)


def run_job(
    provider: AsyncProvider,
    input: str | os.PathLike[str],  # noqa: A002 - the word for it
    output: str | os.PathLike[str],
    *,
    format: Format | None = None,  # noqa: A002
    prompt: str | None = None,
    system: str | None = None,
    model: str | None = None,
    force: bool = False,
    retry_failed: bool = False,
    in_flight: InFlight = "auto",
    retries: int = RETRIES,
    progress: Progress = False,
    stop_after_errors: int | None = None,
    wait: float = WAIT,
    max_line_bytes: int = LINE_BYTES,
    **params: object,
) -> JobSummary:
    """Sends each input of a file, and writes the replies to another one. It blocks.

    The output is in the format of `vllm run-batch`, in the order in which replies come, with the errors among them. It
    is also the journal: run again after a crash, the job goes on where it was, and each input has one line in the end.

    Args:
        provider: The provider.
        input: The file: JSONL in OpenAI's batch format (`custom_id`, `url`, `body`), or with `messages`, `prompt` or
            `text` and parameters in each row; CSV; Parquet (needs `pip install 'vllmchat[parquet]'`); or lines of
            text. `"-"` for stdin.
        output: The file. `"-"` for stdout, which cannot be gone on with.
        format: The format of the input, if its name does not say it.
        prompt: How rows become prompts, such as `"Translate: {text}"`. Lines of text have the field `text`.
        system: The system message, likewise.
        model: The model, for inputs that do not name their own.
        force: Whether to go on although the input or the parameters have changed.
        retry_failed: Whether to send the inputs again that failed before.
        in_flight: See `VLLMProvider.map`.
        retries: See `VLLMProvider.map`.
        progress: See `VLLMProvider.map`.
        stop_after_errors: See `VLLMProvider.map`.
        wait: See `VLLMProvider.map`.
        max_line_bytes: How long a line of the input may be.
        **params: The parameters of the calls, for inputs that do not have their own.

    Raises:
        InvalidRequestError: A parameter is wrong, an id is there twice, or the output is that of another job.
        JobStoppedError: The job stopped before its end, or the output cannot be written. What is done is kept.
        OSError: A file cannot be opened.
    """
    params = hide_secrets(params)
    source, target = os.fspath(input), os.fspath(output)
    if format is not None and format not in FORMATS:
        raise InvalidRequestError(f"format={format_value(format)}: must be one of {', '.join(FORMATS)}.")
    options = Options(in_flight, False, retries, progress, stop_after_errors, wait)
    _check_params(provider, model, params)
    reader = _Reader(source, format or format_of(source), Template(prompt, system), max_line_bytes)
    defaults = {**({} if model is None else {"model": model}), **params}
    with reader, _open_output(target) as writer:
        about = {"prompt": prompt, "system": system, **merge(_defaults_of(provider), defaults)}
        if isinstance(writer, Journal):
            writer.open(
                {"input": reader.scan(), "params": digest_of_params(about)},
                force=force,
                retry_failed=retry_failed,
            )
        return _Run(provider, reader, writer, defaults).run(options)


def _defaults_of(provider: object) -> Mapping[str, object]:
    """The defaults of a provider for the parameters of its calls. Other results are to be expected with others."""
    return provider._defaults if isinstance(provider, ProviderBase) else {}  # pyright: ignore[reportPrivateUsage]


def _check_params(provider: object, model: str | None, params: Mapping[str, object]) -> None:
    """Checks the parameters of chats before anything is read."""
    check = cast("Callable[..., object] | None", getattr(provider, "amap", None))
    if check is not None and not {"input", "documents", "encoding_format", "dimensions"} & params.keys():
        check((), model=model, **params)


class _Reader:
    """The input, open for two passes: it may be deleted in the meantime."""

    def __init__(self, path: str, kind: Format | None, template: Template, limit: int) -> None:
        self._kind: Format | None = kind
        self._template = template
        self._limit = limit
        self._path = path
        self._file: IO[bytes] = sys.stdin.buffer if path == _PIPE else Path(path).open("rb")  # noqa: SIM115
        self.total: int | None = None

    def scan(self) -> str:
        """Reads the input once: finds ids that are there twice; returns a digest of it.

        Raises:
            InvalidRequestError: An id is there twice.
        """
        if self._path == _PIPE:
            return f"stdin of {time.time()}"
        digest = digest_of_file(self._file)
        self._file.seek(0)
        ids, self.total = IdSet(), 0
        for record in self._records():
            if not ids.add(record.id):
                raise twice(record, self._path)
            self.total += 1
        self._file.seek(0)
        return digest

    def _records(self) -> Iterator[Record]:
        return read_records(self._file, self._kind, self._template, limit=self._limit)

    def __iter__(self) -> Iterator[Record]:
        return self._records()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._path != _PIPE:
            self._file.close()


def twice(record: Record, where: str) -> InvalidRequestError:
    """The error for an id that is there twice."""
    return InvalidRequestError(
        f"the id {format_value(record.id)} in line {record.line} of {where} is there twice. "
        "Results are matched to inputs by id, so each id must be unique."
    )


class _Stdout:
    """Lines for a pipe."""

    def write(self, line: bytes) -> None:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def _open_output(path: str) -> Journal | _Stdout:
    return _Stdout() if path == _PIPE else Journal(path)


class _Run:
    """One run of a job from file to file."""

    def __init__(
        self, provider: object, reader: _Reader, writer: Journal | _Stdout, defaults: Mapping[str, object]
    ) -> None:
        copy = cast("Callable[..., object] | None", getattr(provider, "with_options", None))
        # The job does the retries.
        self._provider = provider if copy is None else copy(max_retries=0)
        self._server = server_of(provider)
        self._reader = reader
        self._writer = writer
        self._defaults = defaults
        self._done = writer.done if isinstance(writer, Journal) else IdSet()
        self._before = len(self._done)

    def run(self, options: Options) -> JobSummary:
        """Sends what is not done, and writes what comes."""
        total = None if self._reader.total is None else max(self._reader.total - self._before, 0)
        job: Job[Record, object] = Job(self._send, self._records(), options, self._server, total)
        with MapResults(job) as results:
            for result in results:
                key = result.input.id
                line = (
                    error_line_of(key, result.error)
                    if result.error is not None
                    else line_of(key, result.value)
                )
                self._writer.write(line)
            progress = results.progress
        return JobSummary(
            done=progress.done,
            failed=progress.failed,
            skipped=self._before,
            failures=progress.failures,
            seconds=progress.seconds,
            prompt_tokens=progress.prompt_tokens,
            completion_tokens=progress.completion_tokens,
        )

    def _records(self) -> Iterator[Record]:
        here = IdSet() if self._reader.total is None else None
        for record in self._reader:
            # A file was looked through before; a pipe can be read only once.
            if here is not None and not here.add(record.id):
                raise twice(record, "stdin")
            if record.id not in self._done:
                yield record

    async def _send(self, record: Record) -> tuple[object, ChatCompletion | None]:
        if record.error is not None:
            raise record.error
        return await call_of(self._provider, record.url, record.body, self._defaults)(), None
