"""Checks which MassGen is installed, and says what to install if it cannot be used."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING

from vllmchat.adapters.massgen.names import FOR_THE_BACKEND, NEWEST_MASSGEN, missing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

OLDEST_MASSGEN = (0, 1, 97)
"""The version that the backend was written for. Earlier ones have different internals."""


def load(module: str) -> ModuleType:
    """Imports a module of MassGen, or one that depends on it.

    Raises:
        ImportError: MassGen is missing or too old, lacks a name that the backend uses, or cannot be imported together
            with another installed package. The message names the package and the command that helps.
    """
    require_names(FOR_THE_BACKEND)
    try:
        return import_module(module)
    # Whatever a module raises on import: a removed name causes AttributeError as often as ImportError.
    except Exception as error:
        raise ImportError(_explain(error)) from error


def require_names(names: Iterable[str]) -> None:
    """Checks that the installed MassGen has names that we use.

    Raises:
        ImportError: As `load`.
    """
    require_massgen()
    try:
        lacking = list(missing(names))
    except Exception as error:
        raise ImportError(_explain(error)) from error
    if lacking:
        shown = ", ".join(name.replace(":", ".") for name in lacking[:3])
        more = f" and {len(lacking) - 3} more names" if len(lacking) > 3 else ""
        raise ImportError(
            f"MassGen {version('massgen')} has no {shown}{more}, which this backend uses. {_way_back()}"
        )


def _way_back() -> str:
    """How to get the newest version that works."""
    again = "--force-reinstall --no-deps " if version("massgen") == NEWEST_MASSGEN else ""
    return f"The newest version known to work is {NEWEST_MASSGEN}: pip install {again}'massgen=={NEWEST_MASSGEN}'"


def require_massgen() -> None:
    """Checks that MassGen is installed, without importing it.

    Raises:
        ImportError: MassGen is missing or too old. The message names the command that helps.
    """
    oldest = ".".join(map(str, OLDEST_MASSGEN))
    try:
        installed = version("massgen")
    except PackageNotFoundError:
        found = "MassGen is not installed"
    else:
        if tuple(int(number) for number in re.findall(r"\d+", installed)[:3]) >= OLDEST_MASSGEN:
            return
        found = f"MassGen {installed} is too old: {oldest} or newer is needed"
    raise ImportError(f"{found}. Install it with: pip install -U 'vllmchat[massgen]'")


def _explain(error: Exception) -> str:
    """Names the faulty package and the command that fixes it."""
    failed = f"MassGen {version('massgen')} cannot be imported"
    distributions = packages_distributions()
    for module in _suspects(error):
        package = module.partition(".")[0]
        if package in ("massgen", "vllmchat"):
            continue
        if package in distributions:
            name = distributions[package][0]
            installed = version(name)
            fitting = _bound(name) or f"{name}<{installed}"
            return f"{failed} with {name} {installed}: {error}. Install a compatible version: pip install '{fitting}'"
        if isinstance(error, ModuleNotFoundError) and error.name == module:
            return f"{failed}: the package {package} is missing. Install it with: pip install {package}"
    return f"{failed}: {type(error).__name__}: {error}. {_way_back()}"


def _suspects(error: Exception) -> Iterator[str]:
    """Names of modules that may have caused an error, the most likely first."""
    if isinstance(error, ImportError) and error.name:
        yield error.name
    if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        yield error.obj.__name__
    yield from reversed(list(_modules(error.__traceback__)))


def _modules(traceback: TracebackType | None) -> Iterator[str]:
    while traceback is not None:
        yield str(traceback.tb_frame.f_globals.get("__name__", ""))
        traceback = traceback.tb_next


def _bound(name: str) -> str | None:
    """The requirement of our extra `massgen` for a package, such as `mcp<2`."""
    try:
        requirements = requires("vllmchat") or []
    except PackageNotFoundError:
        return None
    for requirement in requirements:
        specifier, _, marker = requirement.partition(";")
        if "massgen" in marker and re.split(r"[<>=!~\[ ]", specifier, maxsplit=1)[0] == name:
            return specifier.strip()
    return None
