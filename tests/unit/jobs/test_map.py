"""Many inputs: results, order, errors, backpressure, and every way to leave early."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from support.chats import answer_any, completion
from support.jobs import Recorder, job, reply, run
from support.scripted import in_thread, never, script
from vllmchat import (
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    InvalidRequestError,
    JobProgress,
    JobStoppedError,
    VLLMProvider,
    amap_chat,
    map_chat,
)
from vllmchat.checking.unknown_names import METHODS
from vllmchat.jobs.map import MAP_OPTIONS, AsyncMapResults, Job, MapResults, check_names
from vllmchat.jobs.source import AHEAD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from support.runners import Runner
    from support.scripted import Answer, Request, ScriptedServer
    from vllmchat import ChatCompletion, Result


def wrong(item: Any) -> BadRequestError:
    return BadRequestError(f"wrong: {item}", status_code=400)


async def odd_ones_fail(item: int) -> int:
    if item % 2:
        raise wrong(item)
    return item * 10


async def unending(item: object) -> object:
    await anyio.sleep_forever()
    return item


# Results


def test_a_result_for_each_input_in_order(runner: Runner, scripted: ScriptedServer) -> None:
    scripted.always(answer_any)
    llm = VLLMProvider("m", base_url=scripted.base_url)
    texts = [f"question {number}" for number in range(40)]
    if runner.portal is None:
        results = list(llm.map(texts, in_flight=7))
    else:

        async def collect() -> list[Result[str, ChatCompletion]]:
            return [result async for result in llm.amap(texts, in_flight=7)]

        results = runner.portal.call(collect)
    assert [(each.index, each.input, each.text) for each in results] == [
        (number, text, text) for number, text in enumerate(texts)
    ]
    assert all(each.ok and each.error is None and each.attempts == 1 and each.seconds > 0 for each in results)
    assert results[0].completion is results[0].value
    assert scripted.connections <= 7
    runner.close(llm)


def test_one_wrong_input_is_one_wrong_result(runner: Runner) -> None:
    results = run(runner, job(odd_ones_fail, range(10), in_flight=3))
    assert [each.ok for each in results] == [True, False] * 5
    assert results[4].value == 40
    for read in ("value", "completion", "text"):
        with pytest.raises(BadRequestError, match="wrong: 5"):
            getattr(results[5], read)
    assert not results[5].retryable
    assert results[5].attempts == 1


def test_a_value_that_is_not_a_chat_says_so(runner: Runner) -> None:
    [result] = run(runner, job(odd_ones_fail, [2]))
    with pytest.raises(TypeError, match=r"a int has no text: read result\.value"):
        result.text  # noqa: B018
    with pytest.raises(TypeError, match="a int has no completion"):
        result.completion  # noqa: B018


def test_inputs_have_parameters_and_ids_of_their_own(scripted: ScriptedServer) -> None:
    scripted.always(answer_any)
    llm = VLLMProvider("m", base_url=scripted.base_url)
    inputs: list[Any] = [
        {"id": 7, "messages": "one", "temperature": 0.5, "model": "other"},
        [{"role": "user", "content": "two"}],
        {"messages": "three", "top_k": 0.5},
        {"role": "user", "content": "four"},
    ]
    one, two, three, four = llm.map(inputs, temperature=0.0, max_tokens=5, in_flight=1)
    assert (one.id, two.id) == ("7", None)
    bodies = [request.json() for request in scripted.requests]
    assert [(body["model"], body["temperature"], body["max_tokens"]) for body in bodies] == [
        ("other", 0.5, 5),
        ("m", 0.0, 5),
    ]
    assert (one.text, two.text) == ("one", "two")
    with pytest.raises(InvalidRequestError, match=r"top_k=0\.5"):
        three.text  # noqa: B018
    with pytest.raises(
        InvalidRequestError, match="it looks like a message: a conversation is a list of them"
    ):
        four.text  # noqa: B018
    llm.close()


def test_replies_are_parsed(scripted: ScriptedServer) -> None:
    scripted.reply(completion("[1, 2]"))
    scripted.reply(completion('"no"'))
    llm = VLLMProvider("m", base_url=scripted.base_url)
    good, bad = llm.map(["a", "b"], kind=list[int], in_flight=1)
    assert good.value == [1, 2]
    assert good.text == good.completion.text == "[1, 2]"
    assert type(bad.error).__name__ == "StructuredOutputError"
    assert "response_format" in scripted.requests[0].json()
    llm.close()


def test_a_function_is_called_for_each_input(runner: Runner) -> None:
    def sync(item: int) -> tuple[int, int]:
        return item, threading.get_ident()

    async def asynchronous(item: int) -> tuple[int, int]:
        return item, threading.get_ident()

    for function, same in (
        (sync, False),
        (asynchronous, True),
        (partial(sync), False),
        (partial(asynchronous), True),
    ):
        [own] = run(runner, job(asynchronous, [0]))
        [result] = run(runner, job(function, [1]))
        assert result.value[0] == 1
        if runner.portal is not None:
            assert (result.value[1] == own.value[1]) is same
    results = run(runner, job(lambda item: odd_ones_fail(item), [2, 3]))
    assert results[0].value == 20
    assert not results[1].ok


def test_a_provider_that_is_only_sync_or_only_async_will_do(runner: Runner) -> None:
    class OnlySync:
        name = "own"

        def chat(self, messages: str, *, model: str | None = None, **params: Any) -> ChatCompletion:
            return reply(f"sync {messages} {model} {params}")

    class OnlyAsync:
        name = "own"

        async def achat(self, messages: str, *, model: str | None = None, **params: Any) -> ChatCompletion:
            return reply(f"async {messages} {model} {params}")

    for provider in (OnlySync(), OnlyAsync()):
        own: Any = provider
        if runner.portal is None:
            texts = [each.text for each in map_chat(own, ["a"], model="m", temperature=0)]
        else:

            async def collect(own: Any = own) -> list[str]:
                return [each.text async for each in amap_chat(own, ["a"], model="m", temperature=0)]

            texts = runner.portal.call(collect)
        assert texts == [f"{type(provider).__name__[4:].lower()} a m {{'temperature': 0}}"]


def test_a_sync_client_of_the_callers_own_is_used(scripted: ScriptedServer) -> None:
    import httpx

    scripted.always(answer_any)
    with httpx.Client(headers={"x-own": "1"}) as client:
        llm = VLLMProvider("m", base_url=scripted.base_url, http_client=client)
        assert [each.text for each in llm.map(["a", "b"])] == ["a", "b"]
    assert {request.headers.get("x-own") for request in scripted.requests} == {"1"}


# What is rejected before anything is sent


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": "Hello"}, r"inputs='Hello': must be a list .* Write \[input\] for a single one"),
        ({"inputs": 5}, "inputs=5: must be a list"),
        ({"in_flight": 0}, 'in_flight=0: must be "auto" or a positive integer'),
        ({"in_flight": True}, "in_flight=True"),
        ({"retries": -1}, "retries=-1: must be an integer of 0 or more"),
        ({"stop_after_errors": 0}, "stop_after_errors=0"),
        ({"wait": float("inf")}, "wait=inf: must be a number of seconds"),
        ({"progress": "yes"}, "progress='yes': must be True, False or a function."),
        ({"order": "random"}, "order='random'"),
        ({"order": "prefix", "inputs": iter("ab")}, r"needs all inputs at once.* Pass list\(inputs\)"),
        ({"temperature": -1}, "temperature=-1"),
        ({"temprature": 1}, "temprature"),
        ({"kind": set, "n": 0}, "n=0"),
        ({"call": len, "temperature": 1}, "temperature: belongs to the function"),
        ({"call": len, "kind": int}, "kind: belongs to the function"),
    ],
)
def test_wrong_arguments_are_found_first(options: dict[str, Any], message: str) -> None:
    llm = VLLMProvider("m", base_url="http://localhost:9")
    methods: tuple[Any, ...] = (llm.map, llm.amap)
    for method in methods:
        with pytest.raises(InvalidRequestError, match=message):
            method(**{"inputs": ["a"], **options})


# Width, order and memory


def test_the_width_is_kept_and_used(runner: Runner) -> None:
    calls = Recorder()
    run(runner, job(calls, range(100), in_flight=7))
    assert calls.most == 7


def test_unordered_results_come_as_they_are_done(runner: Runner) -> None:
    gate: list[anyio.Event] = []

    async def first_is_slow(item: int) -> int:
        if item == 0:
            gate.append(anyio.Event())
            await gate[0].wait()
        elif item == 3:
            while not gate:
                await anyio.lowlevel.checkpoint()
            gate[0].set()
        return item

    results = run(runner, job(first_is_slow, range(4), in_flight=2, ordered=False))
    assert [each.index for each in results] == [1, 2, 3, 0]


def test_a_slow_first_input_holds_back_a_bounded_window(runner: Runner) -> None:
    begun: list[int] = []

    async def first_never_ends(item: int) -> int:
        begun.append(item)
        if len(begun) == 64:
            raise KeyError(item)
        if item == 0:
            await anyio.sleep_forever()
        return item

    def inputs() -> Iterator[int]:
        for number in itertools.count():
            assert number <= 64 + AHEAD
            yield number

    async def gather() -> None:
        results = AsyncMapResults(job(first_never_ends, inputs(), in_flight=4))
        with anyio.move_on_after(0.3):
            await anext(results)
        await results.aclose()

    anyio.run(gather) if runner.portal is None else runner.portal.call(gather)
    assert len(begun) == 16 * 4


def test_infinite_inputs_are_read_as_they_are_needed(runner: Runner) -> None:
    read: list[int] = []

    def inputs() -> Iterator[int]:
        for number in itertools.count():
            read.append(number)
            yield number

    taken: list[Result[Any, Any]] = []
    if runner.portal is None:
        taken += itertools.islice(MapResults(job(Recorder(), inputs(), in_flight=2)), 200)
    else:

        async def take() -> None:
            async with AsyncMapResults(job(Recorder(), inputs(), in_flight=2)) as results:
                async for result in results:
                    taken.append(result)
                    if len(taken) == 200:
                        break

        runner.portal.call(take)
    assert [each.value for each in taken] == list(range(200))
    # Read ahead, in flight, or done and waiting for the consumer.
    assert len(read) <= 200 + AHEAD + 2 + 2 * 16 + 2


@pytest.mark.anyio
async def test_a_slow_consumer_holds_back_the_job(anyio_backend: str) -> None:
    calls = Recorder()
    async with AsyncMapResults(job(calls, itertools.count(), in_flight=4)) as results:
        for number in range(5):
            assert (await anext(results)).index == number
            for _ in range(300):
                await anyio.lowlevel.checkpoint()
            assert len(calls.begun) <= number + 1 + 16 + 2 * 4


def test_async_inputs(runner: Runner) -> None:
    closed: list[bool] = []

    async def inputs() -> AsyncIterator[int]:
        try:
            for number in range(200):
                await anyio.lowlevel.checkpoint()
                yield number
        finally:
            closed.append(True)

    results = run(runner, job(Recorder(), inputs(), in_flight=3))
    assert [each.value for each in results] == list(range(200))
    assert closed == [True]


def test_async_inputs_are_closed_early(runner: Runner) -> None:
    closed: list[bool] = []

    async def inputs() -> AsyncIterator[int]:
        try:
            for number in itertools.count():
                yield number
        finally:
            await anyio.lowlevel.checkpoint()
            closed.append(True)

    async def leave() -> None:
        async with AsyncMapResults(job(Recorder(), inputs(), in_flight=3)) as results:
            await anext(results)

    if runner.portal is None:
        with MapResults(job(Recorder(), inputs(), in_flight=3)) as results:
            next(results)
    else:
        runner.portal.call(leave)
    assert closed == [True]


@pytest.mark.parametrize("lazily", [False, True])
def test_what_the_inputs_raise_comes_after_the_results_before_it(runner: Runner, lazily: bool) -> None:
    def inputs() -> Iterator[int]:
        yield from range(10)
        raise LookupError("no more rows")

    async def ainputs() -> AsyncIterator[int]:
        for number in inputs():
            yield number

    got: list[int] = []

    def work() -> Job[Any, Any]:
        return job(Recorder(got.append), ainputs() if lazily else inputs(), in_flight=3)

    with pytest.raises(LookupError, match="no more rows"):
        run(runner, work())
    assert sorted(got) == list(range(10))


def test_inputs_that_block_hold_nothing_back(runner: Runner) -> None:
    """Each input is made of the result before it."""
    source: queue.Queue[int | None] = queue.Queue()
    source.put(0)
    got: list[int] = []

    def handle(result: Result[Any, Any]) -> None:
        got.append(result.value)
        source.put(result.value + 1 if result.value < 5 else None)

    async def collect() -> None:
        async for result in AsyncMapResults(job(Recorder(), iter(source.get, None), in_flight=4)):
            handle(result)

    if runner.portal is None:
        for result in MapResults(job(Recorder(), iter(source.get, None), in_flight=4)):
            handle(result)
    else:
        runner.portal.call(collect)
    assert got == [0, 1, 2, 3, 4, 5]


def test_a_job_whose_inputs_block_can_be_left(runner: Runner) -> None:
    source: queue.Queue[int | None] = queue.Queue()
    source.put(0)

    async def leave() -> None:
        async with AsyncMapResults(job(Recorder(), iter(source.get, None))) as results:
            assert (await anext(results)).value == 0

    if runner.portal is None:
        with MapResults(job(Recorder(), iter(source.get, None))) as results:
            assert next(results).value == 0
    else:
        runner.portal.call(leave)
    source.put(None)  # and the thread that reads them ends
    for thread in threading.enumerate():
        if thread.name == "vllmchat-inputs":
            thread.join(5)
            assert not thread.is_alive()


def test_no_inputs_are_no_results(runner: Runner) -> None:
    assert run(runner, job(Recorder(), [])) == []
    assert run(runner, job(Recorder(), iter(()))) == []


# Leaving early


def hanging(request: Request) -> Answer:
    text: str = request.json()["messages"][0]["content"]  # type: ignore[index]
    return answer_any(request) if text == "0" else script(never)


@pytest.mark.parametrize("how", ["break", "close", "raise"])
def test_leaving_the_loop_stops_the_server(runner: Runner, scripted: ScriptedServer, how: str) -> None:
    scripted.always(hanging)
    llm = VLLMProvider("m", base_url=scripted.base_url)
    texts = [str(number) for number in range(100)]

    def leave() -> None:
        assert scripted.wait_requests(9)
        if how == "raise":
            raise ZeroDivisionError

    def sync() -> None:
        if how == "close":
            with llm.map(texts, in_flight=8) as kept:
                next(kept)
                leave()
            return
        for result in llm.map(texts, in_flight=8):
            assert result.text == "0"
            leave()
            break

    async def asynchronous() -> None:
        if how == "close":
            async with llm.amap(texts, in_flight=8) as kept:
                await anext(kept)
                await in_thread(leave)
            return
        async for result in llm.amap(texts, in_flight=8):
            assert result.text == "0"
            await in_thread(leave)
            break

    with contextlib.suppress(ZeroDivisionError):
        sync() if runner.portal is None else runner.portal.call(asynchronous)
    gc.collect()
    # One connection has answered and is idle; the others were closed.
    assert scripted.wait_for(lambda: scripted.open_connections <= 1)
    assert len(scripted.requests) == 9
    runner.close(llm)


@pytest.mark.anyio
async def test_cancelling_the_consumer_ends_the_job(anyio_backend: str) -> None:
    calls = Recorder(unending)
    results = AsyncMapResults(job(calls, range(100), in_flight=5))

    async def consume() -> None:
        async for _ in results:
            pass

    async with anyio.create_task_group() as group:
        group.start_soon(consume)
        while calls.running < 5:
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    await results.aclose()
    assert calls.running == 0
    assert sorted(calls.cancelled) == [0, 1, 2, 3, 4]
    assert len(calls.begun) == 5


@pytest.mark.anyio
async def test_results_that_nobody_has_any_more_end_the_job(anyio_backend: str) -> None:
    calls = Recorder(lambda item: item if item == 0 else unending(item))
    results = AsyncMapResults(job(calls, range(100), in_flight=5))
    assert (await anext(results)).value == 0
    del results
    gc.collect()
    with anyio.fail_after(5):
        while calls.running:
            await anyio.lowlevel.checkpoint()


def test_an_event_loop_that_ends_takes_the_job_with_it() -> None:
    calls = Recorder(lambda item: item if item == 0 else unending(item))
    kept: list[object] = []

    async def main() -> None:
        results = AsyncMapResults(job(calls, range(100), in_flight=5))
        kept.append(results)
        await anext(results)

    asyncio.run(main())
    assert calls.running == 0
    # Those that were cancelled did not go on to other inputs.
    assert len(calls.begun) == 6


def test_a_sync_job_works_inside_a_running_event_loop(scripted: ScriptedServer) -> None:
    scripted.always(answer_any)
    llm = VLLMProvider("m", base_url=scripted.base_url)

    async def notebook() -> list[str]:
        return [each.text for each in llm.map(["a", "b"])]

    assert asyncio.run(notebook()) == ["a", "b"]


def test_many_threads_share_the_results() -> None:
    results = MapResults(job(Recorder(), range(500), in_flight=16, ordered=False))
    got: list[int] = []
    threads = [threading.Thread(target=lambda: got.extend(each.value for each in results)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(got) == list(range(500))


def test_a_consumer_that_is_faster_than_the_engine_can_note_it() -> None:
    results = MapResults(job(Recorder(), range(50), in_flight=1))
    engine = results._engine  # pyright: ignore[reportPrivateUsage]
    got: list[int] = []
    full = threading.Event()

    class Ready(deque[Any]):
        """All of it is taken just after the engine has found it full."""

        def __len__(self) -> int:
            length = super().__len__()
            if length >= 16 and not full.is_set():
                full.set()
                while (result := engine.pop()) is not None:
                    got.append(result.value)
            return length

    engine.ready = Ready()
    got.append(next(results).value)
    assert full.wait(20)
    reader = threading.Thread(target=lambda: got.extend(each.value for each in results), daemon=True)
    reader.start()
    reader.join(20)
    results.close()
    assert got == list(range(50))


def test_ctrl_c_ends_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Recorder(unending)
    results = MapResults(job(calls, range(10), in_flight=3))
    condition: Any = results._news.changed  # pyright: ignore[reportPrivateUsage] - it is where the thread waits

    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(condition, "wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        next(results)
    monkeypatch.undo()
    results.close()
    assert calls.running == 0


def test_results_that_were_closed_are_at_their_end(runner: Runner) -> None:
    async def close() -> None:
        results = AsyncMapResults(job(Recorder(), range(10)))
        await anext(results)
        await results.aclose()
        await results.aclose()
        assert [each async for each in results] == []
        unused = AsyncMapResults(job(Recorder(), range(10)))
        await unused.aclose()
        assert [each async for each in unused] == []

    if runner.portal is None:
        results = MapResults(job(Recorder(), range(10)))
        next(results)
        results.close()
        results.close()
        assert list(results) == []
        unused = MapResults(job(Recorder(), range(10)))
        unused.close()
        assert list(unused) == []
    else:
        runner.portal.call(close)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_what_ends_while_a_job_is_closed_is_no_result(anyio_backend: str) -> None:
    async def call(item: int) -> int:
        if item:
            with anyio.CancelScope(shield=True):
                await ending.wait()
        return item

    ending = anyio.Event()
    results = AsyncMapResults(job(call, range(10), in_flight=3, ordered=False))
    await anext(results)
    await anyio.wait_all_tasks_blocked()
    async with anyio.create_task_group() as group:
        group.start_soon(results.aclose)
        await anyio.wait_all_tasks_blocked()
        ending.set()
    assert [each async for each in results] == []


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_call_that_is_cancelled_from_inside_is_a_failed_result(anyio_backend: str) -> None:
    async def call(item: int) -> int:
        if item == 1:
            raise asyncio.CancelledError
        return item

    results = [each async for each in AsyncMapResults(job(call, range(3)))]
    assert [each.ok for each in results] == [True, False, True]
    assert str(results[1].error) == "the call was cancelled"


# Retries and progress


def test_errors_that_may_pass_are_tried_again(runner: Runner) -> None:
    failures = {0: 1, 1: 3}

    async def call(item: int) -> int:
        if failures.get(item, 0):
            failures[item] -= 1
            raise InternalServerError("oops", status_code=500)
        return item

    good, bad = run(runner, job(call, [0, 1], retries=2))
    assert (good.ok, good.attempts) == (True, 2)
    assert (bad.ok, bad.attempts, bad.retryable) == (False, 3, True)


def test_stop_after_errors_in_a_row(runner: Runner) -> None:
    async def call(item: int) -> int:
        if item >= 4:
            raise wrong(item)
        return item

    with pytest.raises(JobStoppedError, match="3 errors in a row, the last one: wrong: 6") as caught:
        run(runner, job(call, range(100), in_flight=1, stop_after_errors=3))
    assert (caught.value.done, caught.value.failed) == (7, 3)
    assert isinstance(caught.value.__cause__, BadRequestError)


def test_a_wrong_key_stops_the_job(runner: Runner) -> None:
    async def call(item: int) -> int:
        if item == 3:
            raise AuthenticationError("wrong key", status_code=401)
        return item

    with pytest.raises(JobStoppedError, match="an error concerns all inputs: wrong key") as caught:
        run(runner, job(call, range(100), in_flight=1))
    assert caught.value.pending == ((3, 3),)


def test_progress_is_reported(runner: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[JobProgress] = []

    async def call(item: int) -> ChatCompletion:
        if item == 1:
            raise wrong(item)
        answer = reply("x")
        return answer.model_copy(
            update={
                "usage": answer.model_validate(
                    completion(usage={"prompt_tokens": 3, "completion_tokens": 4})
                ).usage
            }
        )

    run(runner, job(call, range(4), progress=seen.append))
    last = seen[-1]
    assert (last.done, last.failed, last.total, last.prompt_tokens, last.completion_tokens) == (
        4,
        1,
        4,
        9,
        12,
    )
    assert (last.ended, dict(last.failures), seen[0].ended) == (True, {"BadRequestError": 1}, False)
    run(runner, job(odd_ones_fail, range(4), progress=True))
    assert "4 of 4 done, 2 failed" in capsys.readouterr().err


def test_progress_that_raises_stops_the_job(runner: Runner) -> None:
    def report(progress: JobProgress) -> None:
        raise ZeroDivisionError("in the report")

    with pytest.raises(ZeroDivisionError, match="in the report"):
        run(runner, job(unending, range(4), progress=report))


def test_progress_in_words() -> None:
    progress = JobProgress(500, 3, 100_000, 512, 512, 10.0, completion_tokens=9000)
    assert (
        str(progress)
        == "500 of 100,000 done, 3 failed, 50.0/s, 900 tokens/s, 512 in flight, 33 min 10 s left"
    )
    waiting = JobProgress(500, seconds=10.0, waiting_for="refused")
    assert str(waiting) == "500 done, 50.0/s, waiting for the server: refused"
    assert JobProgress().seconds_left is None


def test_rates_of_tokens() -> None:
    progress = JobProgress(1, seconds=10.0, prompt_tokens=400, completion_tokens=900, cached_tokens=100)
    assert progress.prompt_tokens_per_second == 40.0
    assert progress.completion_tokens_per_second == 90.0
    assert progress.cache_hit_rate == 0.25
    nothing = JobProgress()
    assert (nothing.prompt_tokens_per_second, nothing.completion_tokens_per_second) == (0.0, 0.0)
    assert nothing.cache_hit_rate is None


# Ends of processes


def ran(
    code: str, *arguments: str, interrupt: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs code in a fresh interpreter; sends it a Ctrl-C when `interrupt` returns."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            if interrupt is not None:
                interrupt()
                process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        except BaseException:
            process.kill()  # leaving the block waits for it
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def assert_requests(scripted: ScriptedServer) -> None:
    assert scripted.wait_requests(20, 20)


@pytest.mark.slow
def test_a_process_ends_with_results_left_open(scripted: ScriptedServer) -> None:
    scripted.always(hanging)
    code = """
        import itertools, sys
        from vllmchat import VLLMProvider
        results = VLLMProvider("m", base_url=sys.argv[1]).map(map(str, itertools.count()), in_flight=4)
        print(next(results).text)
    """
    process = ran(code, scripted.base_url)
    assert (process.returncode, process.stdout, process.stderr) == (0, "0\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["for result in llm.map(texts, in_flight=30): pass", "asyncio.run(main())"])
def test_a_real_ctrl_c_ends_a_job(scripted: ScriptedServer, how: str) -> None:
    scripted.always(hanging)
    code = f"""
        import asyncio, itertools, sys
        from vllmchat import VLLMProvider
        llm = VLLMProvider("m", base_url=sys.argv[1])
        texts = map(str, itertools.count())
        async def main():
            async for result in llm.amap(texts, in_flight=30): pass
        try:
            {how}
        except KeyboardInterrupt:
            print("stopped")
    """
    process = ran(code, scripted.base_url, interrupt=lambda: assert_requests(scripted))
    assert (process.returncode, process.stdout, process.stderr) == (0, "stopped\n", "")
    assert scripted.wait_for(lambda: scripted.open_connections == 0)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_does_not_wait_for_results(scripted: ScriptedServer) -> None:
    scripted.always(answer_any)
    code = """
        import os, sys, warnings
        from vllmchat import VLLMProvider
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, from Python 3.12 on
        results = VLLMProvider("m", base_url=sys.argv[1]).map(map(str, range(10_000)), in_flight=2)
        next(results)
        if (child := os.fork()) == 0:
            try:
                list(results)
            except RuntimeError as error:
                print(error, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        results.close()
    """
    process = ran(code, scripted.base_url)
    assert (
        process.stdout
        == "these results belong to the process that began the job. Start a job of its own here.\n"
    )


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_may_begin_what_its_parent_has_not(scripted: ScriptedServer) -> None:
    scripted.always(answer_any)
    code = """
        import os, sys, warnings
        from vllmchat import VLLMProvider
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, from Python 3.12 on
        results = VLLMProvider("m", base_url=sys.argv[1]).map(["a", "b"])
        if (child := os.fork()) == 0:
            print(len(list(results)), flush=True)
            os._exit(0)
        os.waitpid(child, 0)
    """
    assert ran(code, scripted.base_url).stdout == "2\n"


# What it costs


def test_a_thread_that_waits_is_not_woken_for_each_result(monkeypatch: pytest.MonkeyPatch) -> None:
    woken = 0

    async def slow(item: int) -> int:
        await anyio.sleep(0.001)
        return item

    results = MapResults(job(slow, range(500), in_flight=1))
    changed = results._news.changed  # pyright: ignore[reportPrivateUsage] - where the thread waits
    notify_all = changed.notify_all

    def counted() -> None:
        nonlocal woken
        woken += 1
        notify_all()

    monkeypatch.setattr(changed, "notify_all", counted)
    assert [result.value for result in results] == list(range(500))
    # Every 5 ms; a millisecond's sleep takes a little longer than that.
    assert woken < 250


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("in_fligth", "in_flight"),
        ("concurrency", "in_flight"),
        ("max_retries", "retries"),
        ("on_progress", "progress"),
        ("knd", "kind"),
        ("orderd", "ordered"),
    ],
)
def test_a_misspelled_option_is_explained(written: str, meant: str) -> None:
    given: Any = {written: 3, "temperature": 0}
    with VLLMProvider("m") as llm, pytest.raises(InvalidRequestError) as raised:
        llm.map(["Hello"], **given)
    assert str(raised.value) == f"{written}=3: is not an argument of map. Did you mean `{meant}`?"


def test_no_parameter_of_a_call_is_taken_for_a_misspelled_option() -> None:
    names = {name for group in METHODS.values() for name in group} - {*MAP_OPTIONS}
    check_names("map", dict.fromkeys(names), MAP_OPTIONS)
    check_names("map", {"encoding_format": 1, "input_type": 1, "suffix": 1, "documents": 1}, MAP_OPTIONS)
