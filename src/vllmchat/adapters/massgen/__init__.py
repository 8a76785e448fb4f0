"""MassGen on vllmchat: a backend for `type: vllm`.

Importing this module does not import MassGen; using one of its names does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllmchat.adapters.massgen.backend import VLLMBackend
    from vllmchat.adapters.massgen.hook import install, uninstall

__all__ = ["VLLMBackend", "install", "uninstall"]


def __getattr__(name: str) -> object:
    if name == "VLLMBackend":
        from vllmchat.adapters.massgen.backend import VLLMBackend

        return VLLMBackend
    if name in ("install", "uninstall"):
        from vllmchat.adapters.massgen import hook

        return getattr(hook, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
