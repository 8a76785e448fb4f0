"""Fixtures of the unit tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from support.runners import NAMES, Name, Runner, runner_of
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
def runner(request: pytest.FixtureRequest) -> Iterator[Runner]:
    """The methods of a provider, blocking, on asyncio and on trio; see `support.runners`."""
    name: Name = request.param
    with runner_of(name) as runner:
        yield runner
