from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from typing import cast

import pytest

from vllmchat import Timeout
from vllmchat.http.timeout import DEFAULT_TIMEOUT


def test_defaults() -> None:
    assert Timeout() == DEFAULT_TIMEOUT == Timeout(connect=5, first_token=600, idle=300, total=None)


def test_it_is_immutable() -> None:
    with pytest.raises(FrozenInstanceError):
        DEFAULT_TIMEOUT.total = 1  # type: ignore[misc] # that is the point


@pytest.mark.parametrize("name", ["connect", "first_token", "idle", "total"])
def test_valid_timeouts(name: str) -> None:
    for value in (0.001, 1, 1e9, None):
        assert getattr(Timeout(**{name: value}), name) == value
    for wrong in (0, -1, math.inf, math.nan):
        with pytest.raises(
            ValueError, match=rf"^Timeout\.{name} must be a positive number of seconds or None"
        ):
            Timeout(**{name: wrong})
    for odd in ("5", True, [1]):
        with pytest.raises(TypeError, match=rf"^Timeout\.{name} must be a number of seconds or None"):
            Timeout(**{name: cast("float", odd)})


def test_what_a_user_may_pass() -> None:
    default = Timeout(1, 2, 3, 4)
    assert Timeout.of(None, default) is default
    assert Timeout.of(9, default) == Timeout(1, 2, 3, 9)
    assert Timeout.of(Timeout(idle=7), default) == Timeout(idle=7)
    for wrong in (0, math.inf):
        with pytest.raises(ValueError, match=r"^Timeout\.total"):
            Timeout.of(wrong, default)
    with pytest.raises(TypeError, match=r"^Timeout\.total"):
        Timeout.of(cast("float", "5"), default)
