"""Jobs from file to file."""

from __future__ import annotations

import os
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from vllmchat.checking.describe import format_value
from vllmchat.checking.secrets import hide_secrets
from vllmchat.client.base import ProviderBase
from vllmchat.client.defaults import merge
from vllmchat.errors import InvalidRequestError, JobStoppedError
from vllmchat.jobs.digests import digest_of_params
from vllmchat.jobs.inputs import PIPE, InputPipe, LineLog, in_prefix_order, open_input
from vllmchat.jobs.journal import IdSet, Journal
from vllmchat.jobs.map import RETRIES, WAIT, Job, MapResults, Options, check_names, check_options, server_of
from vllmchat.jobs.outputs import Stream, open_output
from vllmchat.jobs.records import FORMATS, LINE_BYTES, format_of
from vllmchat.jobs.routes import CHAT, Sender, check_params, error_line_of, line_of
from vllmchat.jobs.template import Template

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from typing_extensions import TypeForm

    from vllmchat.chat.protocols import AsyncProvider
    from vllmchat.jobs.inputs import Input
    from vllmchat.jobs.map import InFlight, Order, Progress
    from vllmchat.jobs.records import Format, Record
    from vllmchat.jobs.result import Result


_ARGUMENTS: Final = (
    *("format", "url", "prompt", "system", "kind", "model", "order", "force", "retry_failed", "in_flight"),
    *("retries", "progress", "stop_after_errors", "wait", "max_line_bytes"),
)
"""The arguments of `run_job` that are not parameters of the calls."""


@dataclass(frozen=True, slots=True)
class JobSummary:
    """What a job from file to file has done.

    Attributes:
        done: How many inputs it sent or rejected.
        failed: How many of them have an error.
        skipped: How many were done before.
        failures: The errors, by the name of their class.
        first_errors: The message of the first error of each class.
        seconds: How long it took.
        prompt_tokens: Tokens of the prompts.
        completion_tokens: Tokens generated.
        cached_tokens: Tokens of the prompts that came from the server's prefix cache, of the replies that report it.
    """

    done: int
    failed: int
    skipped: int
    failures: Mapping[str, int] = field(default_factory=dict[str, int])
    first_errors: Mapping[str, str] = field(default_factory=dict[str, str])
    seconds: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

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
    url: str = CHAT,
    prompt: str | None = None,
    system: str | None = None,
    kind: TypeForm[Any] | None = None,
    model: str | None = None,
    order: Order = "given",
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
            text. They may be compressed by gzip. `"-"` for stdin.
        output: The file. `"-"` for stdout, which cannot be gone on with.
        format: The format of the input, if its name does not say it.
        url: The route for rows that do not name theirs, such as `"/v1/embeddings"`.
        prompt: How rows become prompts, such as `"Translate: {text}"`. Lines of text have the field `text`.
        system: The system message, likewise.
        kind: The type that replies of chats must be of, see `VLLMProvider.parse`. A reply that is not is a failure. For
            a JSON schema, pass `structured_outputs={"json": schema}`, for a regular expression
            `structured_outputs={"regex": pattern}`.
        model: The model, for inputs that do not name their own.
        order: `"prefix"` sends inputs with the same long beginning together, so that the server finds it in its cache.
            The input is read to its end first, and needs as much room again next to the output.
        force: Whether to go on although the input or the parameters have changed.
        retry_failed: Whether to send the inputs again that failed before.
        in_flight: See `VLLMProvider.map`.
        retries: See `VLLMProvider.map`.
        progress: See `VLLMProvider.map`.
        stop_after_errors: See `VLLMProvider.map`.
        wait: See `VLLMProvider.map`.
        max_line_bytes: How long a line of the input may be.
        **params: The parameters of the calls, for inputs that do not have their own.

    Returns:
        What was done. A job whose reader has closed stdout ends early.

    Raises:
        InvalidRequestError: A parameter is wrong, the input cannot be read, an id is there twice, or the output is that
            of another job.
        JobStoppedError: The job stopped before its end, or the output cannot be written. What is done is kept.
        OSError: A file cannot be opened.
    """
    params = hide_secrets(params)
    source, target = os.fspath(input), os.fspath(output)
    _check_choice("format", format, (None, *FORMATS))
    _check_choice("order", order, ("given", "prefix"))
    template = Template(prompt, system, url)
    if not isinstance(cast("object", max_line_bytes), int) or max_line_bytes < 1:
        raise InvalidRequestError(
            f"max_line_bytes={format_value(max_line_bytes)}: must be a positive integer."
        )
    check_names("run_job", params, _ARGUMENTS)
    check_params(provider, url, params, kind)
    options = Options(in_flight, False, retries, progress, stop_after_errors, wait)
    check_options((), options)
    about = {
        "prompt": prompt,
        "system": system,
        "url": url,
        "kind": kind,
        "model": model or _model_of(provider),
    }
    about.update(merge(_defaults_of(provider), params))
    defaults = {**({} if model is None else {"model": model}), **params}
    reader = open_input(source, format or format_of(source), template, max_line_bytes)
    with closing(reader), open_output(target, source) as writer:
        found = reader.scan()
        if isinstance(writer, Journal):
            digests = {"input": found, "params": digest_of_params(about)}
            writer.open(digests, force=force, retry_failed=retry_failed)
            if isinstance(reader, InputPipe):
                log = LineLog(f"{target}.stdin", target, is_new=not len(writer.done), force=force)
                reader.keep(log)
        folder = None if target == PIPE else os.path.dirname(os.path.abspath(target))
        run = _Run(provider, reader, writer, defaults, kind)
        records = run.pending()
        if order == "prefix":
            records = in_prefix_order(records, folder)
        return run.run(records, options)


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        shown = ", ".join(str(each) for each in choices if each is not None)
        raise InvalidRequestError(f"{name}={format_value(value)}: must be one of {shown}.")


def _defaults_of(provider: object) -> Mapping[str, object]:
    """The defaults of a provider for the parameters of its calls. Other results are to be expected with others."""
    return provider._defaults if isinstance(provider, ProviderBase) else {}  # pyright: ignore[reportPrivateUsage]


def _model_of(provider: object) -> object:
    """The model that a provider was given. One that it has found may be found again, or not yet."""
    if isinstance(provider, ProviderBase):
        return provider._model  # pyright: ignore[reportPrivateUsage]
    return getattr(provider, "model", None)


class _Results(MapResults["Record", object]):
    """Results that one thread takes, many at a time."""

    def take_ready(self) -> list[Result[Record, object]]:
        """Returns the results that need no waiting."""
        return self._engine.pop_ready()


class _Run:
    """One run of a job from file to file."""

    def __init__(
        self,
        provider: object,
        reader: Input,
        writer: Journal | Stream,
        defaults: Mapping[str, object],
        kind: TypeForm[Any] | None,
    ) -> None:
        copy = cast("Callable[..., object] | None", getattr(provider, "with_options", None))
        # The job does the retries.
        self._sender = Sender(provider if copy is None else copy(max_retries=0), defaults, kind)
        self._server = server_of(provider)
        self._reader = reader
        self._writer = writer
        self._done = writer.done if isinstance(writer, Journal) else IdSet()
        self._before = len(self._done)

    def pending(self) -> Iterator[Record]:
        """Yields the records that are not done."""
        if not self._before:
            return self._reader.records()
        return (record for record in self._reader.records() if record.id not in self._done)

    def run(self, records: Iterator[Record], options: Options) -> JobSummary:
        """Sends records, and writes what comes."""
        total = None if self._reader.total is None else max(self._reader.total - self._before, 0)
        job: Job[Record, object] = Job(self._send, records, options, self._server, total)
        # A reader that has closed stdout has enough.
        with _Results(job) as results, suppress(BrokenPipeError):
            try:
                self._write(results)
            except JobStoppedError as error:
                # Those of files do not know it.
                error.done, error.failed = results.progress.done, results.progress.failed
                raise
        progress = results.progress
        return JobSummary(
            done=progress.done,
            failed=progress.failed,
            skipped=self._before,
            failures=progress.failures,
            first_errors=progress.first_errors,
            seconds=progress.seconds,
            prompt_tokens=progress.prompt_tokens,
            completion_tokens=progress.completion_tokens,
            cached_tokens=progress.cached_tokens,
        )

    def _write(self, results: _Results) -> None:
        for result in results:
            self._writer.write([_line_of(each) for each in (result, *results.take_ready())])

    def _send(self, record: Record) -> Awaitable[object]:
        if record.error is not None:
            raise record.error
        return self._sender.send(record.url, record.body)


def _line_of(result: Result[Record, object]) -> bytes:
    key, error = result.input.id, result.error
    return line_of(key, result.value) if error is None else error_line_of(key, error)
