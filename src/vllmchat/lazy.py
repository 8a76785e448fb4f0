"""Defers imports that only some callers need to their first use.

A provider has the methods of a dozen endpoints, and most programs use one or two. Importing all of them would take
longer than everything those programs need. So each module of methods imports its dependencies only for type checkers
and uses a stand-in at run time:

    if TYPE_CHECKING:
        from vllmchat.tokens import tokenize
    else:
        tokenize = LazyModule("vllmchat.tokens.tokenize")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType


class LazyModule:
    """A module that is imported on first access."""

    def __init__(self, home: str) -> None:
        self._home = home
        self._module: ModuleType | None = None

    def __getattr__(self, name: str) -> Any:
        if self._module is None:
            self._module = import_module(self._home)
        # Not cached: a test may have replaced the attribute temporarily.
        return getattr(self._module, name)
