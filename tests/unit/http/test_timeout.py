from __future__ import annotations

import copy
import math
import pickle
from dataclasses import FrozenInstanceError, replace
from typing import cast

import pytest

from vllmchat import InvalidRequestError, Timeout, VLLMProvider
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
    default = Timeout(connect=1, first_token=2, idle=3, total=4)
    assert Timeout.of(None, default) is default
    assert Timeout.of(9, default) == Timeout(connect=1, first_token=2, idle=3, total=9)
    assert Timeout.of(Timeout(idle=7), default) == Timeout(idle=7)
    for wrong in (0, math.inf):
        with pytest.raises(ValueError, match=r"^Timeout\.total"):
            Timeout.of(wrong, default)
    with pytest.raises(TypeError, match=r"^Timeout\.total"):
        Timeout.of(cast("float", "5"), default)


def test_limits_have_names() -> None:
    with pytest.raises(TypeError, match=r"Timeout\(10\) does not say which limit: write Timeout\(total=10\)"):
        Timeout(10)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


def test_a_timeout_of_httpx_is_not_one_of_ours() -> None:
    import httpx

    for how in (VLLMProvider, VLLMProvider("m").with_options):
        with pytest.raises(TypeError, match=r"another library's Timeout: write vllmchat\.Timeout"):
            how(timeout=cast("Timeout", httpx.Timeout(5)))
    with pytest.raises(InvalidRequestError, match="must be a number or a Timeout"):
        VLLMProvider("m").chat("Hi", timeout=cast("Timeout", httpx.Timeout(5)))


def test_it_survives_copies() -> None:
    made = Timeout(connect=1, total=None)
    assert copy.deepcopy(made) == pickle.loads(pickle.dumps(made)) == replace(made) == made
