"""The failures of an agent's turns. Does not depend on the MassGen package."""

from __future__ import annotations

from typing import Final

MOST: Final = 3
"""How many turns in a row may fail. MassGen's limit is the same, but it does not count turns in which a tool ran."""


class Failures:
    """Decides when repeating an agent's turn is pointless.

    Attributes:
        last: The last failure, as a sentence for the user. None after a turn that did not fail.
    """

    def __init__(self) -> None:
        self.last: str | None = None
        self._turns = 0
        self._refused = 0

    def add(self, why: str, *, refused: bool, fatal: bool) -> bool:
        """Adds a failed turn. Returns whether the agent must be given up.

        Args:
            why: The failure, as a sentence for the user.
            refused: Whether the server rejected the request. It may be a different one next time, so it is repeated
                once.
            fatal: Whether repeating it is pointless from the start.
        """
        self.last = why
        self._turns += 1
        self._refused += refused
        if final := fatal or self._refused > 1 or self._turns >= MOST:
            self._turns = self._refused = 0
        return final

    def clear(self) -> None:
        """Notes that a turn did not fail."""
        self.last = None
        self._turns = self._refused = 0
