"""`vllmchat map`: a job from file to file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, get_args

import click

from vllmchat.cli.command import Command, FailureError
from vllmchat.cli.constraints import constrained, constraint_options
from vllmchat.cli.main import INTERRUPTED
from vllmchat.cli.progress import rates, reporting
from vllmchat.cli.terminal import printable, say
from vllmchat.cli.values import Number
from vllmchat.cli.wording import in_options
from vllmchat.errors import JobStoppedError
from vllmchat.jobs.files import run_job
from vllmchat.jobs.map import RETRIES, WAIT, Order
from vllmchat.jobs.records import FORMATS
from vllmchat.jobs.result import duration
from vllmchat.jobs.routes import CHAT

if TYPE_CHECKING:
    from vllmchat.cli.server import Server
    from vllmchat.jobs.files import JobSummary
    from vllmchat.jobs.result import JobProgress

_PIPE: Final = "-"

_LONGEST: Final = 200
"""How many characters of an error the summary shows."""


class _Width(Number):
    """`auto`, or how many."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "auto":
            return value
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r} is neither auto nor an integer.", param, ctx)


def map_file(
    server: Server,
    params: dict[str, Any],
    input: str,  # noqa: A002 - the word for it
    output: str,
    schema: str | None,
    regex: str | None,
    route: str,
    **options: Any,
) -> int:
    """Send each input of a file, and write the replies to another one.

    INPUT is JSONL in OpenAI's batch format or with a prompt in each row, CSV, Parquet, or lines of text; `-` is stdin.
    OUTPUT gets one line for each input, in the format of `vllm run-batch`, with the errors among them. It is also the
    journal: run the same command again, and it goes on where it was.
    """
    params = constrained(params, schema, regex)
    llm = server.connect()
    with reporting() as report:
        try:
            summary = run_job(
                llm, input, output, url=route, model=server.model, progress=report, **options, **params
            )
        except KeyboardInterrupt:
            summary = None
        except JobStoppedError as error:
            message = in_options(error.message, COMMAND.names)
            raise FailureError(printable(f"{message}{_go_on(output)}")) from error
    if summary is None:
        say(f"stopped: {report.last.done:,} done, {report.last.failed:,} of them failed.{_go_on(output)}")
        return INTERRUPTED
    _print_summary(summary, report.last, output)
    return 0 if summary.ok else 1


def _go_on(output: str) -> str:
    if output == _PIPE:
        return ""
    return "\nWhat is done is kept. Run the same command again to go on."


def _print_summary(summary: JobSummary, last: JobProgress, output: str) -> None:
    where = "" if output == _PIPE else f" {output}"
    say(f"{summary.done:,} done in {duration(summary.seconds)} ({', '.join(rates(last))}).")
    if summary.skipped:
        say(f"{summary.skipped:,} were done before.")
    if summary.failed:
        kinds = "".join(
            f"\n  {count:>7,}  {name}{_such_as(summary.first_errors.get(name, ''))}"
            for name, count in sorted(summary.failures.items(), key=lambda item: -item[1])
        )
        again = "" if output == _PIPE else f" Their errors are in{where}; --retry-failed sends them again."
        say(f"{summary.failed:,} failed.{again}{kinds}")


def _such_as(message: str) -> str:
    line = printable(message.partition("\n")[0])
    if len(line) > _LONGEST:
        line = f"{line[:_LONGEST]}…"
    return f": {line}" if line else ""


COMMAND: Final = Command(
    "map",
    map_file,
    [
        click.Argument(["input"], metavar="INPUT", type=click.Path()),
        click.Argument(["output"], metavar="OUTPUT", type=click.Path()),
        click.Option(
            ["--prompt"],
            metavar="TEMPLATE",
            help='How a row becomes a prompt, such as "Translate: {text}". A line of text has the field text.',
        ),
        click.Option(["--system", "-s"], metavar="TEMPLATE", help="The system message, likewise."),
        *constraint_options(),
        click.Option(
            ["--format"],
            type=click.Choice(FORMATS),
            help="The format of the input, if its name does not show it.",
        ),
        click.Option(
            ["--route"],
            metavar="ROUTE",
            default=CHAT,
            show_default=True,
            help="The route for rows that do not name theirs, such as /v1/embeddings.",
        ),
        click.Option(
            ["--order"],
            type=click.Choice(get_args(Order)),
            default="given",
            show_default=True,
            help="prefix: send inputs that begin alike together, so that the server finds them in its cache.",
        ),
        click.Option(
            ["--in-flight"],
            type=_Width(whole=True),
            metavar="auto|N",
            default="auto",
            help="How many inputs at once. Default: auto, what the server can take.",
        ),
        click.Option(
            ["--retries"],
            type=Number(whole=True),
            default=RETRIES,
            show_default=True,
            help="How often to send an input again after an error that may pass.",
        ),
        click.Option(
            ["--wait"],
            type=Number(whole=False),
            metavar="SECONDS",
            default=WAIT,
            show_default=True,
            help="How long to wait for a server that is down.",
        ),
        click.Option(
            ["--stop-after-errors"],
            type=Number(whole=True),
            metavar="N",
            help="Stop after so many errors in a row.",
        ),
        click.Option(["--retry-failed"], is_flag=True, help="Send the inputs again that failed before."),
        click.Option(
            ["--force"], is_flag=True, help="Go on although the input or the parameters have changed."
        ),
    ],
    params=True,
    epilog="Example: vllmchat map questions.txt answers.jsonl --max-tokens 200",
    names={"url": "--route"},
)
