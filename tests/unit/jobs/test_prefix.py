"""The order that lets inputs find each other in the server's cache."""

from __future__ import annotations

import random
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from hypothesis import given, strategies as st

from support.jobs import Recorder, job, run
from vllmchat.jobs.prefix import SHARED, beginning_of, order_of_keys, prefix_order, short_key

if TYPE_CHECKING:
    from support.runners import Runner

LONG = {name: name * 400 for name in "abc"}


@given(st.lists(st.text("ab", max_size=5)))
def test_each_input_is_there_once(inputs: list[str]) -> None:
    assert sorted(prefix_order(inputs)) == list(range(len(inputs)))


def test_the_first_of_each_group_is_a_group_ahead() -> None:
    inputs = [LONG[name] + str(number) for number in range(3) for name in "abc"]
    order = prefix_order(inputs)
    assert [f"{inputs[index][0]}{inputs[index][-1]}" for index in order] == [
        *("a0", "b0", "a1", "a2"),
        *("c0", "b1", "b2"),
        *("c1", "c2"),
    ]


def test_inputs_of_all_forms_have_a_beginning() -> None:
    conversation = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    text = "\nsystem:Be brief.\nuser:Why?"
    assert beginning_of("Why?") == "Why?"
    assert beginning_of(conversation) == text
    assert beginning_of({"id": 1, "messages": conversation}) == text
    assert beginning_of({"custom_id": "1", "body": {"messages": conversation}}) == text
    assert beginning_of({"prompt": "p"}) == "p"
    assert beginning_of({"tools": [1], "messages": "m"}) == "[1]m"
    assert beginning_of(5) == "5"
    assert beginning_of([{"role": "user", "content": [{"type": "text", "text": "x"}]}]).startswith(
        '\nuser:[{"type"'
    )


def cached(inputs: list[str], size: int) -> float:
    """The hit rate of a cache of so many blocks, each of 64 characters after all that is before it."""
    cache: OrderedDict[str, None] = OrderedDict()
    hits = queries = 0
    for text in inputs:
        blocks = [text[: end + 64] for end in range(0, len(text) - 63, 64)]
        found = True
        for block in blocks:
            queries += 1
            found = found and block in cache
            hits += found
        for block in reversed(blocks):
            cache[block] = None
            cache.move_to_end(block)
        while len(cache) > size:
            cache.popitem(last=False)
    return hits / queries


def test_a_small_cache_is_hit_much_more_often() -> None:
    choice = random.Random(7)
    documents = ["".join(choice.choices("abcdefgh", k=2000)) for _ in range(50)]
    inputs = [choice.choice(documents) + f" question {number}" for number in range(1000)]
    for order in (prefix_order(inputs), order_of_keys([short_key(each) for each in inputs])):
        ordered = [inputs[index] for index in order]
        assert sorted(ordered) == sorted(inputs)
        assert cached(ordered, 200) > 1.5 * cached(inputs, 200)
        assert cached(ordered, 200) > 0.9


def test_results_have_the_index_of_their_input(runner: Runner) -> None:
    inputs = [LONG["b"], LONG["a"], LONG["b"] + "1", LONG["a"] + "1"]
    calls = Recorder(lambda text: text[0])
    results = run(runner, job(calls, inputs, order="prefix", in_flight=1))
    assert [each.index for each in results] == [1, 0, 3, 2]
    assert all(each.input == inputs[each.index] for each in results)
    assert calls.begun == [inputs[index] for index in (1, 0, 3, 2)]


def test_short_inputs_are_groups_of_their_own() -> None:
    assert len("ab") < SHARED
    inputs: list[Any] = ["b", "a", "b", "c"]
    assert [inputs[index] for index in prefix_order(inputs)] == ["a", "b", "c", "b"]
