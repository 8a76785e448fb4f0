"""Install MassGen, for the tests and the demo, into a virtual environment of its own.

MassGen pins an `openai` that vLLM does not accept, so the two can't share an environment; and it is heavy (270
packages, 1.4 GB), so it is in the cache folder next to the vLLM server, once per machine:

    python scripts/massgen_env.py install               # from locks/massgen.txt; prints the interpreter
    python scripts/massgen_env.py run -m vllmchat.adapters.massgen --help

Only MassGen is installed there. `vllmchat` itself comes from the clone that runs the command, by `PYTHONPATH`, so
that several clones share the environment.

Environment:
    VLLMCHAT_MASSGEN_PYTHON: an interpreter that has MassGen already, to use instead of that environment.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import locks
from cached_env import Builder, CachedEnvironment, InstallError, Say, say_to_stderr

MASSGEN_VERSION = "0.1.97"

SOURCE = Path(__file__).resolve().parent.parent / "src"
"""The package of this clone."""

_LOCK = locks.locks()["massgen"]


def install(*, say: Say = say_to_stderr) -> Path:
    """Install MassGen if it is not there yet, and return its interpreter.

    Raises:
        InstallError: It cannot be installed; the message holds the end of the installer's log.
    """
    if chosen := os.environ.get("VLLMCHAT_MASSGEN_PYTHON"):
        return Path(chosen)
    return ENVIRONMENT.install(say=say)


def installed_python() -> Path | None:
    """The interpreter of a complete installation, or None."""
    return ENVIRONMENT.installed_python()


def _build(builder: Builder) -> None:
    builder.must("installing massgen", *builder.pip(*builder.locked(_LOCK)))
    builder.must("importing massgen", builder.python, "-c", "import massgen")


ENVIRONMENT = CachedEnvironment(
    title=f"MassGen {MASSGEN_VERSION}",
    name=f"massgen-{MASSGEN_VERSION}-{_LOCK.contents()}",
    cost="a few minutes, 1.4 GB",
    build=_build,
)


def environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What a process in MassGen's environment needs: this clone's package, and no call home for a price list."""
    dropped = ("PYTHONHOME", "VIRTUAL_ENV", "COVERAGE_")
    env = {name: value for name, value in environ.items() if not name.startswith(dropped)}
    return env | {"PYTHONPATH": str(SOURCE), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="massgen_env.py", description="MassGen in an environment of its own."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("install", help="install MassGen into the cache folder, if it is not there")
    commands.add_parser("run", help="run its Python with this clone's vllmchat; all that follows is Python's")
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = words[1:] if words[:1] == ["run"] else []
    options = parser.parse_args(words[:1] if arguments else words)
    try:
        python = install()
    except InstallError as error:
        say_to_stderr(f"error: {error}")
        return 1
    if options.command == "run":
        return subprocess.run([str(python), *arguments], env=environment(), check=False).returncode
    print(python)
    return 0


if __name__ == "__main__":
    sys.exit(main())
