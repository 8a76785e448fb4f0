"""A command: its help in groups, and errors in its own words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from vllmchat.cli.params import GROUPS, ParamOption, param_options, value_of
from vllmchat.cli.server import Server, ServerOption, server_options
from vllmchat.cli.terminal import printable
from vllmchat.cli.wording import OPTIONS, explained, in_options
from vllmchat.errors import InvalidRequestError, VLLMChatError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_ALL: Final = "vllmchat.all"


class FailureError(click.ClickException):
    """A failure that is not the user's: of the server, of a request, of a file. The exit code is 1."""


class Command(click.Command):
    """A command that talks to a server.

    Its function gets `server`, and `params` if the command has the parameters of chats.

    Args:
        name: Its name.
        function: What it does.
        options: Its own arguments and options.
        params: Whether it has the parameters of chats.
        server: The options about the server.
        epilog: Examples, for the end of its help.
        names: The options whose parameters have other names in the library, by those names.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., int | None],
        options: Sequence[click.Parameter],
        *,
        params: bool = False,
        server: Sequence[click.Option] | None = None,
        epilog: str = "",
        names: Mapping[str, str] | None = None,
    ) -> None:
        all_options: list[click.Parameter] = [*options, *(server_options() if server is None else server)]
        if params:
            all_options += [
                *param_options(),
                click.Option(
                    ["--help-all"],
                    is_flag=True,
                    is_eager=True,
                    expose_value=False,
                    callback=_show_all,
                    help="Show all parameters too, and exit.",
                ),
            ]
        super().__init__(
            name,
            callback=function,
            params=all_options,
            help=function.__doc__,
            epilog=epilog,
            context_settings={"help_option_names": ["--help", "-h"]},
        )
        self._has_params = params
        self._names = names or {}

    @property
    def names(self) -> dict[str, str]:
        """The options by the names of their parameters."""
        own = {
            option.name or "": option.opts[0] for option in self.params if isinstance(option, click.Option)
        }
        return {**own, **OPTIONS, **self._names}

    def invoke(self, ctx: click.Context) -> object:
        """Runs it, and turns errors into sentences."""
        try:
            ctx.params = self._arguments(ctx.params)
            return super().invoke(ctx)
        except InvalidRequestError as error:
            raise click.UsageError(printable(explained(error, self.names)), ctx) from error
        except VLLMChatError as error:
            raise FailureError(printable(in_options(error.message, self.names))) from error
        except BrokenPipeError:
            raise
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise FailureError(f"{where}{error.strerror or error}") from error
        except ImportError as error:
            if not isinstance(error, ModuleNotFoundError) and "pip install" in str(error):
                raise FailureError(str(error)) from error
            raise

    def _arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the arguments of the function."""
        own: dict[str, Any] = dict(given)
        about: dict[str, Any] = {}
        params: dict[str, object] = {}
        for option in self.params:
            name = option.name or ""
            if isinstance(option, ParamOption):
                if (value := value_of(option, own.pop(name, None))) is not None:
                    params[option.parameter] = value
            elif isinstance(option, ServerOption) and option.expose_value:
                about[name] = own.pop(name, None)
        own["server"] = Server(**about)
        if self._has_params:
            own["params"] = params
        return own

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the options in groups: its own, those about the server, the parameters."""
        everything = bool(ctx.meta.get(_ALL))
        own: list[tuple[str, str]] = []
        about: list[tuple[str, str]] = []
        groups: dict[str, list[ParamOption]] = {}
        for option in self.get_params(ctx):
            if isinstance(option, ParamOption):
                groups.setdefault(option.group if everything else option.brief_group, []).append(option)
            elif isinstance(option, click.Option) and (row := option.get_help_record(ctx)) is not None:
                (about if isinstance(option, ServerOption) else own).append(row)
        for title, rows in (("Options", own), ("Server", about)):
            with formatter.section(title):
                formatter.write_dl(rows)
        for title in GROUPS if everything else GROUPS[:1]:
            if options := sorted(groups.get(title, ()), key=lambda each: each.rank):
                with formatter.section(title):
                    formatter.write_dl([option.help_row(ctx) for option in options])
        if groups and not everything:
            count = sum(map(len, groups.values()))
            formatter.write_paragraph()
            formatter.write_text(f"All {count} parameters: {ctx.command_path} --help-all")


def _show_all(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[_ALL] = True
        click.echo(ctx.get_help())
        ctx.exit()
