"""Switches our backend on and off for every `massgen` of an environment. Does not depend on the MassGen package.

It writes a `.pth` file into the environment's site-packages, which Python runs at its start, and removes it again.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path
from typing import Final

from vllmchat.adapters.massgen import installed

COMMANDS: Final = ("enable", "disable", "status")
"""The commands of `vllmchat-massgen` that are not MassGen's."""

NAME: Final = "vllmchat_massgen.pth"
"""The file's name."""


def run(command: str) -> tuple[int, str]:
    """Runs a command, and returns the exit code and what to print.

    Args:
        command: One of `COMMANDS`. The exit code of `status` is 0 if the backend is enabled, else 1.
    """
    file = Path(sysconfig.get_path("purelib")) / NAME
    try:
        match command:
            case "enable":
                return _enable(file)
            case "disable":
                return _disable(file)
            case _:
                return _status(file)
    except OSError as error:
        return 1, f"{file} cannot be changed: {error.strerror}. Install vllmchat in a virtual environment."


def _enable(file: Path) -> tuple[int, str]:
    try:
        installed.require_massgen()
    except ImportError as error:
        return 1, str(error)
    if str(file.parent) not in sys.path:
        return (
            1,
            f"Python does not read {file.parent} at its start. Install vllmchat in a virtual environment.",
        )
    # A Python that starts meanwhile must not read half a file.
    draft = file.with_suffix(f".{os.getpid()}")
    draft.write_text(_line(file), encoding="ascii")
    draft.replace(file)
    return 0, (
        "Enabled: MassGen uses this backend for `type: vllm` in every program of this environment. "
        f"Undo it with: vllmchat-massgen disable\n{file}"
    )


def _disable(file: Path) -> tuple[int, str]:
    if not file.exists():
        return 0, f"Not enabled: there is no {file}"
    file.unlink()
    return 0, f"Disabled: MassGen uses its own backend again. Removed {file}"


def _status(file: Path) -> tuple[int, str]:
    if not file.exists():
        return 1, f"Not enabled: there is no {file}"
    if file.read_text(encoding="ascii") != _line(file):
        return 0, f"Enabled by another version of vllmchat: run `vllmchat-massgen enable` again\n{file}"
    return 0, f"Enabled\n{file}"


def _line(file: Path) -> str:
    """The file's only line: Python runs a line that begins with `import`."""
    program = Path(__file__).with_name("startup.py").read_text(encoding="utf-8") + "\nwatch()\n"
    return f"import sys; exec({program!a}, { {'__name__': 'vllmchat_massgen', '__file__': str(file)}!a})\n"
