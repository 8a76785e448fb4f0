"""A MassGen backend for `type: vllm`, built on vllmchat.

Importing this module does not import MassGen; using one of its names does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllmchat.adapters.massgen import installed

if TYPE_CHECKING:
    from vllmchat.adapters.massgen.backend import VLLMBackend
    from vllmchat.adapters.massgen.hook import install
    from vllmchat.adapters.massgen.patch import uninstall

__all__ = ["VLLMBackend", "install", "uninstall"]

_HOME_OF = {"VLLMBackend": "backend", "install": "hook", "uninstall": "patch"}


def __getattr__(name: str) -> object:
    if name in _HOME_OF:
        value: object = getattr(installed.load(f"{__name__}.{_HOME_OF[name]}"), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
