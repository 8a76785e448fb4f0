"""Fixtures of the unit tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from support.colours import NAMES, Colour, Name, colour_of
from support.scripted import ScriptedServer

if TYPE_CHECKING:
    from collections.abc import Iterator

# For the fast loop; the whole suite looks at as many examples as Hypothesis finds right.
settings.register_profile("quick", max_examples=20)


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    """A scripted server on 127.0.0.1; see `support.scripted`."""
    with ScriptedServer() as server:
        yield server


@pytest.fixture(params=NAMES)
def colour(request: pytest.FixtureRequest) -> Iterator[Colour]:
    """The methods of a provider, blocking, on asyncio and on trio; see `support.colours`."""
    name: Name = request.param
    with colour_of(name) as colour:
        yield colour
