"""When an agent is given up."""

from __future__ import annotations

from vllmchat.adapters.massgen.failures import MOST, Failures


def test_what_may_pass_is_repeated_as_often_as_massgen_does() -> None:
    failures = Failures()
    given_up = [failures.add("500", refused=False, fatal=False) for _ in range(MOST)]
    assert given_up == [False, False, True]


def test_a_refusal_is_repeated_once() -> None:
    failures = Failures()
    assert not failures.add("400", refused=True, fatal=False)
    assert failures.add("400", refused=True, fatal=False)


def test_failures_of_several_kinds_count_together() -> None:
    failures = Failures()
    assert not failures.add("400", refused=True, fatal=False)
    assert not failures.add("500", refused=False, fatal=False)
    assert failures.add("cut", refused=False, fatal=False)


def test_a_turn_that_goes_well_begins_anew() -> None:
    failures = Failures()
    for _ in range(5):
        assert not failures.add("400", refused=True, fatal=False)
        failures.clear()
    assert failures.last is None


def test_some_failures_are_final_at_once() -> None:
    assert Failures().add("401", refused=False, fatal=True)


def test_an_agent_that_was_given_up_may_get_another_question() -> None:
    failures = Failures()
    assert failures.add("401", refused=False, fatal=True)
    assert not failures.add("500", refused=False, fatal=False)


def test_the_last_failure_is_kept() -> None:
    failures = Failures()
    for why in ("one", "two"):
        failures.add(why, refused=False, fatal=False)
    assert failures.last == "two"
