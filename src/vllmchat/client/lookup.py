"""What a provider looks up about its server before it can send a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from vllmchat.http.clock import Clock
    from vllmchat.http.flow import Flow, Target
    from vllmchat.versions import Version

V = TypeVar("V")


class Found:
    """What is known about a server; shared by a provider and its copies.

    Attributes:
        model: The model that it serves, once it has been looked up.
        lengths: The maximum context lengths that have been looked up, by model.
        version: The version that it reports, or is treated as, once it has been looked up.
    """

    __slots__ = ("lengths", "model", "version")

    def __init__(self) -> None:
        self.model: str | None = None
        self.version: Version | None = None
        self.lengths: dict[str, int] = {}


class Lookup(Generic[V]):
    """Look something up on the server, once for all callers. Result: what was found.

    Attributes:
        name: What is looked up.
        known: Returns it if it is known by now, else None.
        flow: Asks the server, and makes it known.
    """

    __slots__ = ("flow", "known", "name")

    def __init__(
        self, name: str, known: Callable[[], V | None], flow: Callable[[Target, Clock], Flow[V]]
    ) -> None:
        self.name = name
        self.known = known
        self.flow = flow

    def __iter__(self) -> Generator[Lookup[V], V, V]:
        return (yield self)
