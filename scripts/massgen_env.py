"""Install MassGen, for the tests and the demo, into a virtual environment of its own.

MassGen pins an `openai` that vLLM does not accept, so the two can't share an environment; and it is heavy (270
packages, 1.4 GB), so it lies in the cache folder beside the vLLM server, once a machine:

    python scripts/massgen_env.py install               # prints the interpreter
    python scripts/massgen_env.py run -m vllmchat.adapters.massgen --help

Only MassGen is installed there. `vllmchat` itself comes from the clone that runs the command, by `PYTHONPATH`, so
that several clones share the environment; what vllmchat needs, MassGen needs too.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from vllm_server import Say, ServerError, cache_dir, log_tail, say_to_stderr

MASSGEN_VERSION = "0.1.97"

SOURCE = Path(__file__).resolve().parent.parent / "src"
"""The package of this clone."""

_REQUIREMENTS = (f"massgen=={MASSGEN_VERSION}", "mypy>=2.0", "anyio>=4.5", "typing-extensions>=4.13")
"""mypy brings stubtest, which compares our stubs with the installed MassGen and must run beside it."""

_MARKER = "installed.json"


class MassGenError(ServerError):
    """MassGen could not be installed. The message is written for a person."""


def environment_dir(python: tuple[int, int] = sys.version_info[:2]) -> Path:
    """The folder of MassGen's virtual environment for one version of Python."""
    return cache_dir() / f"massgen-{MASSGEN_VERSION}-py{python[0]}.{python[1]}"


def installed_python() -> Path | None:
    """The interpreter of a complete installation for the running Python's version, or None."""
    folder = environment_dir()
    python = folder / "bin" / "python"
    return python if (folder / _MARKER).is_file() and python.exists() else None


def install(*, say: Say = say_to_stderr) -> Path:
    """Install MassGen if it is not there yet, and return its interpreter.

    Two processes may call this at the same time: one installs, the other waits. An installation that was
    interrupted lacks the marker that is written last, and is done again.

    Raises:
        MassGenError: It cannot be installed; the message holds the end of the installer's log.
    """
    if (python := installed_python()) is not None:
        return python
    folder = environment_dir()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder.with_name(folder.name + ".lock"), say):
        if (python := installed_python()) is not None:
            return python
        begun = time.monotonic()
        _build(folder, say)
        say(f"MassGen {MASSGEN_VERSION} installed in {time.monotonic() - begun:.0f} s: {folder}")
    return folder / "bin" / "python"


@contextlib.contextmanager
def _lock(path: Path, say: Say) -> Iterator[None]:
    """Hold an exclusive lock that the system releases when this process ends, however it ends."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process is installing MassGen; waiting for it ...")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(folder: Path, say: Say) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    log = folder.with_name(folder.name + ".install.log")
    python = folder / "bin" / "python"
    say(f"installing MassGen {MASSGEN_VERSION}, once (a few minutes, 1.4 GB); log: {log}")
    with log.open("w", encoding="utf-8") as out:
        for what, command in (
            ("making a virtual environment", (sys.executable, "-m", "venv", str(folder))),
            (
                "installing massgen",
                (
                    str(python),
                    "-m",
                    "pip",
                    "--disable-pip-version-check",
                    "--no-input",
                    "install",
                    *_REQUIREMENTS,
                ),
            ),
            ("importing massgen", (str(python), "-c", "import massgen")),
        ):
            out.write(f"$ {shlex.join(command)}\n")
            out.flush()
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                check=False,
                cwd=folder.parent,
                env=environment(),
            )
            if done.returncode != 0:
                raise MassGenError(
                    f"MassGen {MASSGEN_VERSION} could not be installed: {what} failed. "
                    f"The log's end ({log}):\n{log_tail(log)}"
                )
    (folder / _MARKER).write_text(json.dumps({"massgen": MASSGEN_VERSION}), encoding="utf-8")


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
    run = commands.add_parser("run", help="run its Python with this clone's vllmchat")
    run.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...")
    options = parser.parse_args(argv)
    try:
        python = install()
    except MassGenError as error:
        say_to_stderr(f"error: {error}")
        return 1
    if options.command == "run":
        return subprocess.run([str(python), *options.arguments], env=environment(), check=False).returncode
    print(python)
    return 0


if __name__ == "__main__":
    sys.exit(main())
