from __future__ import annotations

import math

import pytest

from vllmchat.http import clock as clock_module
from vllmchat.http.clock import Clock
from vllmchat.http.timeout import Timeout

UNLIMITED = Timeout(connect=None, first_token=None, idle=None, total=None)


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(clock_module, "monotonic", time)
    return time


def started(timeout: Timeout) -> Clock:
    clock = Clock(timeout)
    clock.start_attempt()
    return clock


def test_without_timeouts(time: Time) -> None:
    clock = started(UNLIMITED)
    assert (clock.deadline(), clock.seconds(), clock.body_seconds()) == (math.inf, None, None)
    assert (clock.connect_seconds(), clock.total_seconds()) == (None, math.inf)
    clock.begin_idle()
    time.now += 1e6
    assert (clock.deadline(), clock.seconds(), clock.body_seconds()) == (math.inf, None, None)
    assert clock.passed() is None
    assert clock.passed(connecting=True) is None


def test_first_token_is_a_fixed_deadline_and_idle_restarts(time: Time) -> None:
    clock = started(Timeout(connect=None, first_token=10, idle=3, total=None))
    time.now += 4
    assert clock.deadline() == 1010
    assert clock.seconds() == 6
    assert clock.passed() == ("first_token", 10)
    clock.begin_idle()
    assert clock.deadline() == 1007
    time.now += 2
    assert clock.seconds() == 1
    time.now += 100
    assert clock.seconds() == 0
    assert clock.passed() == ("idle", 3)
    clock.idle_end = None
    assert clock.seconds() == 3


def test_no_wait_is_negative(time: Time) -> None:
    clock = started(Timeout(connect=1, first_token=2, idle=3, total=4))
    time.now += 50
    assert clock.seconds() == 0
    assert clock.connect_seconds() == 0
    assert clock.total_seconds() == 0
    # A client might take 0 for no timeout.
    assert clock.body_seconds() == 0.001


def test_each_attempt_restarts_first_token(time: Time) -> None:
    clock = started(Timeout(connect=None, first_token=10, idle=3, total=None))
    clock.begin_idle()
    clock.response_started = True
    time.now += 8
    clock.start_attempt()
    assert not clock.response_started
    assert clock.seconds() == 10
    time.now += 2
    assert clock.attempt_seconds() == 2


def test_idle_begins_once(time: Time) -> None:
    clock = started(Timeout(connect=None, first_token=None, idle=3, total=None))
    clock.begin_idle()
    assert clock.deadline() == time.now + 3
    time.now += 1
    clock.begin_idle(1)
    assert clock.deadline() == time.now + 2


def test_idle_may_be_shorter(time: Time) -> None:
    for idle in (None, 3):
        clock = started(Timeout(connect=None, first_token=None, idle=idle, total=None))
        clock.begin_idle(at_most=2)
        assert clock.deadline() == time.now + 2


def test_total_limits_every_wait_across_attempts(time: Time) -> None:
    clock = started(Timeout(connect=5, first_token=10, idle=10, total=8))
    assert clock.seconds() == 8
    time.now += 4
    clock.start_attempt()
    assert (clock.seconds(), clock.connect_seconds(), clock.total_seconds()) == (4, 4, 4)
    assert clock.body_seconds() == 4
    clock.begin_idle()
    assert clock.seconds() == 4
    assert clock.passed() == ("idle", 10)
    time.now += 3.996
    assert clock.passed() == ("total", 8)
    assert clock.passed(connecting=True) == ("total", 8)


def test_connecting_has_its_own_timeout(time: Time) -> None:
    clock = started(Timeout(connect=5, first_token=1, idle=1, total=None))
    time.now += 20
    assert clock.connect_seconds() == 5
    assert clock.passed(connecting=True) == ("connect", 5)


def test_a_body_with_a_single_timeout_gets_the_longer_one(time: Time) -> None:
    clock = started(Timeout(connect=None, first_token=10, idle=3, total=None))
    assert clock.body_seconds() == 10
    time.now += 9
    assert clock.body_seconds() == 3


def test_restricted_to_the_remaining_time(time: Time) -> None:
    clock = started(Timeout(connect=None, first_token=10, idle=3, total=100))
    clock.restrict(0.25)
    assert clock.seconds() == 0.25
    assert clock.total_seconds() == 0.25
    clock.restrict(5)
    assert clock.seconds() == 0.25
