"""What only some callers need is imported when they first call it.

A provider has the verbs of a dozen endpoints, and most programs use one or two. Importing the rest would take longer
than all that they need. Each module of verbs therefore imports what its verbs are made of for type checkers only, and
puts a stand-in in its place:

    if TYPE_CHECKING:
        from vllmchat.tokens import count_request
    else:
        count_request = later("vllmchat.tokens", "count_request")
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def later(home: str, name: str) -> Callable[..., Any]:
    """A function or class of a module that is imported when it is first called.

    Args:
        home: The module's full name.
        name: The name in it.
    """
    module = cache(lambda: import_module(home))

    def call(*args: Any, **options: Any) -> Any:
        # Not the function itself, which a test may have replaced for a while.
        return getattr(module(), name)(*args, **options)

    return call


class LaterModule:
    """A module that is imported when something in it is first asked for."""

    def __init__(self, home: str) -> None:
        self._home = home

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self._home), name)
