"""Defers imports that only some callers need to their first use.

A provider has the methods of a dozen endpoints, and most programs use one or two. Importing all of them would take
longer than everything those programs need. So each module of methods imports its dependencies only for type checkers
and uses a stand-in at run time:

    if TYPE_CHECKING:
        from vllmchat.tokens.tokenize import count_request
    else:
        count_request = lazy("vllmchat.tokens.tokenize", "count_request")
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def lazy(home: str, name: str) -> Callable[..., Any]:
    """A function or class that is imported when it is first called.

    Args:
        home: The full name of its module.
        name: Its name in that module.
    """
    module = cache(lambda: import_module(home))

    def call(*args: Any, **options: Any) -> Any:
        # Not cached: a test may have replaced the function temporarily.
        return getattr(module(), name)(*args, **options)

    return call


class LazyModule:
    """A module that is imported on first access."""

    def __init__(self, home: str) -> None:
        self._home = home

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self._home), name)
