"""Runs MassGen's command line with our backend for `type: vllm`."""

from __future__ import annotations

import sys
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, cast

from vllmchat.adapters.massgen import installed, switch
from vllmchat.adapters.massgen.names import FOR_THE_COMMAND

if TYPE_CHECKING:
    from collections.abc import Callable

_INTERRUPTED_EARLY: Final = 130
"""The exit code after Ctrl-C while MassGen is imported: the shell's."""


def main() -> None:
    """Runs the command line; all flags are MassGen's own. `enable`, `disable` and `status` as the only word are ours.

    It exits like MassGen, with two exceptions that MassGen's exit code does not show: if no agent produced an answer,
    with MassGen's code for a failed run, and if the user stopped the last run, with its code for that.
    """
    try:
        if len(sys.argv) == 2 and sys.argv[1] in switch.COMMANDS:
            code, text = switch.run(sys.argv[1])
            print(text, file=sys.stderr if code else sys.stdout)
            sys.exit(code)
        take_over()
    except ImportError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED_EARLY)
    import massgen.cli

    massgen.cli.cli_main()


def take_over() -> None:
    """Makes MassGen use our backend, and its command line exit as `main` does.

    Raises:
        ImportError: MassGen cannot be used.
    """
    installed.load("vllmchat.adapters.massgen.hook")
    installed.require_names(FOR_THE_COMMAND)
    from vllmchat.adapters.massgen.hook import install

    install()
    # `import massgen.cli` would not do: while it is imported, `massgen` has no attribute `cli` yet.
    cli = cast("Any", sys.modules["massgen.cli"])
    if not hasattr(cli.cli_main, "__wrapped__"):
        cli.cli_main = _watched(cli.cli_main)


def _watched(cli_main: Callable[[], None]) -> Callable[[], None]:
    """MassGen's command line, with the exit codes of `main`."""
    from massgen.cli import EXIT_EXECUTION_ERROR, EXIT_INTERRUPTED

    from vllmchat.adapters.massgen.runs import watching

    @wraps(cli_main)
    def run() -> None:
        with watching() as runs:
            try:
                cli_main()
            except KeyboardInterrupt:
                sys.exit(EXIT_INTERRUPTED)
        if runs.interrupted:
            sys.exit(EXIT_INTERRUPTED)
        if (failure := runs.failure) is not None:
            print(failure, file=sys.stderr)  # noqa: T201 - output of a command line
            sys.exit(EXIT_EXECUTION_ERROR)

    return run
