"""`vllmchat chat`: a conversation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from vllmchat.cli.command import Command
from vllmchat.cli.constraints import constrained, constraint_options
from vllmchat.cli.conversation import Conversation
from vllmchat.cli.line_editor import LineEditor
from vllmchat.cli.terminal import is_terminal, printable, say, write
from vllmchat.cli.wording import in_options
from vllmchat.client.discovery import the_only_model
from vllmchat.errors import ContextWindowExceededError, InvalidRequestError, VLLMChatError

if TYPE_CHECKING:
    from vllmchat.cli.server import AnyProvider, Server

_HELP: Final = """\
/system TEXT   Set the system message; without a text, show it.
/reset         Forget the conversation. The system message stays.
/save FILE     Write the conversation to a file, as JSON.
/help          Show this.
/exit          Leave, as Ctrl-D does.

A message of several lines begins and ends with three quotes: \"\"\"
Ctrl-C stops a reply. A message that begins with a slash is sent if a space comes first.
"""


def chat(
    server: Server,
    params: dict[str, Any],
    system: str | None,
    schema: str | None,
    regex: str | None,
    reasoning: bool | None,
) -> int:
    """Talk with a model. Ctrl-C stops a reply and keeps the conversation, Ctrl-D leaves, /help lists the commands.

    Each line of a pipe or a file is one message.
    """
    talk = Conversation(constrained(params, schema, regex), system, reasoning=reasoning)
    with server.connect() as llm:
        if not is_terminal(sys.stdin):
            for line in sys.stdin:
                if line.strip():
                    talk.send(llm, line.strip())
            return 0
        model = llm.model or the_only_model(llm.models())
        say(f"talking to {printable(model)} at {llm.base_url}. /help for help, Ctrl-D to leave.")
        with LineEditor() as lines:
            _talk(llm, talk, lines)
    return 0


def _talk(llm: AnyProvider, talk: Conversation, lines: LineEditor) -> None:
    while True:
        try:
            text = lines.read()
        except EOFError:
            write("\n")
            return
        except KeyboardInterrupt:
            write("\n")
            say("Ctrl-D leaves.")
            continue
        if text.startswith("/") and not text[1:].partition(" ")[0].count("/"):
            if not _obey(talk, *text[1:].partition(" ")[::2]):
                return
        elif text.strip():
            _send(llm, talk, text.strip())


def _send(llm: AnyProvider, talk: Conversation, text: str) -> None:
    """Sends one message. Errors are printed, and the conversation goes on without it."""
    try:
        talk.send(llm, text)
    except KeyboardInterrupt:
        say("stopped.")
    except ContextWindowExceededError as error:
        say(
            f"{printable(error.message)}\nThe conversation has become too long for the model: /reset begins a new one."
        )
    except InvalidRequestError:
        raise  # of the command line: it would be the same for each message
    except VLLMChatError as error:
        say(printable(in_options(error.message, COMMAND.names)))


def _obey(talk: Conversation, command: str, argument: str) -> bool:
    """Runs a command; returns False if the conversation is over."""
    argument = argument.strip()
    match command:
        case "exit" | "quit" | "bye":
            return False
        case "help" | "?":
            write(_HELP)
        case "reset" | "clear":
            talk.reset()
            say("the conversation is forgotten.")
        case "system":
            if argument:
                talk.system = argument
            else:
                write(f"{talk.system}\n" if talk.system else "There is no system message.\n")
        case "save":
            _save(talk, argument)
        case _:
            say(f"/{printable(command)} is not a command. /help lists them.")
    return True


def _save(talk: Conversation, path: str) -> None:
    if not path:
        say("name a file: /save FILE")
        return
    try:
        Path(path).expanduser().write_text(talk.to_json(), encoding="utf-8")
    except OSError as error:
        say(f"{printable(path)}: {error.strerror}")
    else:
        say(f"saved to {printable(path)}.")


COMMAND: Final = Command(
    "chat",
    chat,
    [
        click.Option(["--system", "-s"], metavar="TEXT", help="The system message."),
        *constraint_options(),
        click.Option(
            ["--reasoning/--no-reasoning"],
            default=None,
            help="Whether to show the model's reasoning, on stderr. Default: if stdout is a terminal.",
        ),
    ],
    params=True,
    epilog='Example: vllmchat chat --system "You are terse." --temperature 0.7',
)
