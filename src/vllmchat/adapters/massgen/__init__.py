"""MassGen on vllmchat: a backend for `type: vllm`.

Importing this module does not import MassGen; using one of its names does.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllmchat.adapters.massgen.backend import VLLMBackend
    from vllmchat.adapters.massgen.hook import install, uninstall

__all__ = ["VLLMBackend", "install", "uninstall"]

OLDEST_MASSGEN = (0, 1, 97)
"""What the backend was written for. Before, MassGen was built differently inside."""


def __getattr__(name: str) -> object:
    if name == "VLLMBackend":
        _require_massgen()
        from vllmchat.adapters.massgen.backend import VLLMBackend

        return VLLMBackend
    if name in ("install", "uninstall"):
        _require_massgen()
        from vllmchat.adapters.massgen import hook

        return getattr(hook, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]


def _require_massgen() -> None:
    """Says what to install where MassGen is missing or too old, before an import fails in the middle of it."""
    oldest = ".".join(map(str, OLDEST_MASSGEN))
    try:
        installed = version("massgen")
    except PackageNotFoundError:
        found = "MassGen is not installed"
    else:
        if tuple(int(number) for number in re.findall(r"\d+", installed)[:3]) >= OLDEST_MASSGEN:
            return
        found = f"MassGen {installed} is too old: {oldest} or newer is needed"
    raise ImportError(f"{found}. Install it beside vllmchat with: pip install -U 'vllmchat[massgen]'")
