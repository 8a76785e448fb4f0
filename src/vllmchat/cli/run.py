"""Runs the command line, and decides how it ends."""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TextIO, cast

import click

from vllmchat.cli.main import INTERRUPTED
from vllmchat.cli.terminal import say
from vllmchat.cli.wording import in_options
from vllmchat.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vllmchat.cli.command import Command

CLOSED_PIPE: Final = 141
"""The exit code when nobody reads the output any more: that of a program that is stopped by SIGPIPE."""


class Entry(NamedTuple):
    """A command: its module in this package, and what it does.

    Attributes:
        module: The name of the module.
        about: What the command does, in a line.
    """

    module: str
    about: str


COMMANDS: Final = {
    "ask": Entry("ask", "Ask one question, and print the reply as it is generated."),
    "chat": Entry("chat", "Talk with a model."),
    "models": Entry("models", "List the models that the server serves."),
    "map": Entry("map", "Send each input of a file, and write the replies to another one."),
    "check": Entry("check", "Find out what works with a server, and what to change."),
    "top": Entry("top", "Watch servers: requests, cache, tokens per second."),
}


def command_of(entry: Entry) -> Command:
    """Returns a command. Its module is imported only now."""
    return cast("Command", import_module(f"vllmchat.cli.{entry.module}").COMMAND)


class _Commands(click.Group):
    """The commands, each imported when it is used, so that the list of them comes at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        return command_of(entry)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.about) for name, entry in COMMANDS.items()])


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["--help", "-h"]},
    epilog="Each command has its own help, such as: vllmchat ask --help",
)
@click.version_option(__version__, message="vllmchat %(version)s")
def vllmchat() -> None:
    """Talk to a vLLM server: one question, a conversation, or a file of prompts.

    The server is $VLLM_BASE_URL, else http://localhost:8000/v1. A key is taken from $VLLM_API_KEY.
    """


def run(arguments: Sequence[str]) -> int:
    """Runs the command line.

    Args:
        arguments: What stands after `vllmchat`.

    Returns:
        The exit code: 0 if all went well, 1 if the server or a request failed, 2 for a wrong command line, 130 after
        Ctrl-C, 141 if nobody reads the output any more.
    """
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        _never_fail(stream)
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = _show_warning
        try:
            code = cast(
                "int | None", vllmchat.main(list(arguments), prog_name="vllmchat", standalone_mode=False)
            )
            sys.stdout.flush()
        except click.ClickException as error:
            _show(error)
            return error.exit_code
        except (click.Abort, KeyboardInterrupt):
            return INTERRUPTED
        except (BrokenPipeError, SystemExit):
            # click exits so when it writes to a closed pipe.
            _forget_output()
            return CLOSED_PIPE
        except OSError as error:
            # Outside of a command: help, or what was still in the buffer.
            _forget_output()
            say(error.strerror or str(error), label="error", color="red")
            return 1
        return code or 0


def _open_streams() -> None:
    """Opens nothing in place of streams that are closed, as after `>&-`; Python has None there."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - it stays open


def _show(error: click.ClickException) -> None:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        sys.stderr.write(f"{error.format_message()}\n")
        return
    say(_sentence(error), label="error", color="red")
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    if ctx is not None:
        sys.stderr.write(f"See: {ctx.command_path} --help\n")


def _sentence(error: click.ClickException) -> str:
    if isinstance(error, click.BadParameter) and error.param is not None:
        # "Invalid value for '--top-k': ..." has the option twice.
        option = error.param.opts[0] if isinstance(error.param, click.Option) else error.param.make_metavar
        if isinstance(option, str) and not isinstance(error, click.MissingParameter):
            return f"{option}: {error.message}"
    text = error.format_message()
    if isinstance(error, click.NoSuchOption) and error.ctx is not None and error.ctx.parent is None:
        return f"{text} The options of a command stand after it: vllmchat ask {error.option_name} ..."
    return text


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    ctx = click.get_current_context(silent=True)
    # Those of a `Command`; the group of all commands has none.
    names: Mapping[str, str] = getattr(ctx and ctx.command, "names", {})
    say(in_options(str(message), names), label="warning", color="yellow")


def _never_fail(stream: TextIO) -> None:
    """Prints what the encoding of a stream does not have as a question mark."""
    reconfigure: Any = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")


def _forget_output() -> None:
    """Keeps Python from writing to the closed pipe again when it ends."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
