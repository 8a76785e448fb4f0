"""`vllmchat ask`: one question, one reply."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from vllmchat.chat.messages import user_message
from vllmchat.cli.command import Command
from vllmchat.cli.constraints import constrained, constraint_options
from vllmchat.cli.replies import Printer, note_end
from vllmchat.cli.terminal import is_terminal
from vllmchat.wire.controls import without_controls

if TYPE_CHECKING:
    from typing import Any

    from vllmchat.chat.completion import ChatCompletion
    from vllmchat.chat.messages import History
    from vllmchat.cli.server import Server

_STDIN: Final = "-"
_URLS: Final = ("http://", "https://", "data:", "file:")


def ask(
    server: Server,
    params: dict[str, Any],
    question: tuple[str, ...],
    system: str | None,
    image: tuple[str, ...],
    schema: str | None,
    regex: str | None,
    json: bool,
    stream: bool,
    reasoning: bool | None,
) -> None:
    """Ask one question, and print the reply as it is generated.

    Piped input is added to the question; with - as the question, it is the whole question. Only the reply goes to
    stdout. Reasoning is shown, dimmed, if stdout is a terminal.
    """
    text = _question(question)
    params = constrained(params, schema, regex)
    for each in image:
        if not (each.startswith(_URLS) or Path(each).is_file()):
            raise click.UsageError(f"--image {each}: no such file", click.get_current_context(silent=True))
    messages: History = [] if system is None else [{"role": "system", "content": system}]
    messages.append(user_message(text, images=list(image)))
    with server.connect() as llm:
        printer = Printer(reasoning=reasoning)
        reply: ChatCompletion | None
        if json or not stream or params.get("n", 1) != 1:
            reply = llm.chat(messages, **params)
            if json:
                sys.stdout.write(f"{without_controls(reply.model_dump_json(indent=2))}\n")
            else:
                printer.print_whole(reply)
        else:
            try:
                with llm.stream(messages, **params) as events:
                    reply = printer.print_events(events.events())
            finally:
                printer.end()
        printer.end()
    if reply is not None and not json:
        note_end(reply)


def _question(words: tuple[str, ...]) -> str:
    """Returns the question, with what comes through a pipe.

    Raises:
        click.UsageError: There is none.
    """
    asked = " ".join(word for word in words if word != _STDIN).strip()
    piped = sys.stdin.read().strip() if _STDIN in words or _is_piped() else ""
    text = "\n\n".join(part for part in (asked, piped) if part)
    if not text:
        raise click.UsageError(
            'what is the question? Write: vllmchat ask "..."', click.get_current_context(silent=True)
        )
    return text


def _is_piped() -> bool:
    """Whether a pipe or a file is connected to stdin. `/dev/null` is neither."""
    if is_terminal(sys.stdin):
        return False
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):  # closed, or not a file at all, as in tests
        return not sys.stdin.closed
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


COMMAND: Final = Command(
    "ask",
    ask,
    [
        click.Argument(["question"], nargs=-1),
        click.Option(["--system", "-s"], metavar="TEXT", help="The system message."),
        click.Option(
            ["--image"],
            multiple=True,
            type=click.Path(),
            metavar="FILE|URL",
            help="An image for the model to look at. Can be repeated.",
        ),
        *constraint_options(),
        click.Option(["--json"], is_flag=True, help="Print the whole reply as JSON."),
        click.Option(
            ["--stream/--no-stream"],
            default=True,
            help="Whether to print the reply as it is generated, or when it is complete. Default: --stream.",
        ),
        click.Option(
            ["--reasoning/--no-reasoning"],
            default=None,
            help="Whether to show the model's reasoning, on stderr. Default: if stdout is a terminal.",
        ),
    ],
    params=True,
    epilog='Example: git diff | vllmchat ask "Write a commit message." --temperature 0',
)
