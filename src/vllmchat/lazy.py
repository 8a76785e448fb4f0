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
from typing import Any


class LazyModule:
    """A module that is imported on first access. From then on it has the attributes of that module."""

    __slots__ = ("__dict__", "_home")

    def __init__(self, home: str) -> None:
        self._home = home

    def __getattr__(self, name: str) -> Any:
        module = import_module(self._home)
        # The same dictionary, not a copy: later accesses find what is in it now, such as the double of a test, and do
        # not come here. Only what the module itself makes on access still does.
        self.__dict__ = module.__dict__
        return getattr(module, name)
