"""The width that follows a server, on a simulated one in its own time."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from support.jobs import Recorder, job, run
from support.simulated import Client, Outcome, Simulated, drive
from vllmchat import MetricFamily, Metrics, MetricSample, NotFoundError
from vllmchat.jobs.engine import Server, load_of
from vllmchat.jobs.width import MOST, START, AutoWidth, FixedWidth, ServerLoad

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.runners import Runner


SERVERS: dict[str, Callable[[], Simulated]] = {
    "256 slots": lambda: Simulated(256),
    "16 slots": lambda: Simulated(16),
    "1 slot": lambda: Simulated(1, fixed=0.005),
    "slow with many": lambda: Simulated(128, each=0.001),
    "a small cache": lambda: Simulated(256, cache=8_000),
    "long prompts": lambda: Simulated(256, prefill=0.0005, budget=256),
    "replies that end together": lambda: Simulated(128, shortest=64, longest=64),
    "a slow front end": lambda: Simulated(128, shortest=64, longest=64, arrival=0.003),
    "short replies": lambda: Simulated(128, fixed=0.01, shortest=8, longest=16, arrival=0.0008),
    "long replies": lambda: Simulated(128, shortest=500, longest=2000),
    "noise": lambda: Simulated(128, noise=1.0),
}


def best_fixed(name: str, begin: float, end: float) -> Outcome:
    """What the best of the widths from 1 to 512 comes to."""
    return max(_sweep(name, begin, end), key=lambda outcome: outcome.rate)


@cache
def _sweep(name: str, begin: float, end: float) -> list[Outcome]:
    return [drive(SERVERS[name](), FixedWidth(2**power), begin, end) for power in range(10)]


def has_a_short_queue(outcome: Outcome, slots: int) -> bool:
    """Whether as many waited as finish in two seconds, or a sixth of what runs, and not more than run."""
    return outcome.mean_waiting <= max(min(slots, max(slots / 6, 2 * outcome.replies)), 2)


@pytest.mark.parametrize("name", SERVERS)
def test_it_is_as_fast_as_the_best_fixed_width(name: str) -> None:
    outcome = drive(SERVERS[name](), AutoWidth(), 30, 150)
    assert outcome.rate >= 0.95 * best_fixed(name, 30, 150).rate
    # A short queue, and no storm of preemptions.
    assert has_a_short_queue(outcome, SERVERS[name]().slots)
    assert outcome.preemptions < 0.1


@pytest.mark.parametrize("name", SERVERS)
def test_so_it_is_from_the_start(name: str) -> None:
    client = Client(AutoWidth())
    outcome = drive(SERVERS[name](), client, 0, 20)
    assert outcome.rate >= 0.95 * best_fixed(name, 0, 20).rate
    # The climb ends about one doubling too late, not more.
    assert outcome.most_waiting <= max(START, SERVERS[name]().slots * 1.5)
    assert max(limit for _, limit in client.limits) <= 2.5 * max(START, SERVERS[name]().slots)


def test_prompts_that_are_still_taken_in_are_no_queue() -> None:
    server, client = Simulated(256, budget=1, prefill=0.004, shortest=100, longest=300), Client(AutoWidth())
    drive(server, client, 0, 20)
    assert min(limit for _, limit in client.limits) >= START


def test_a_server_that_starts_again_counts_from_the_beginning() -> None:
    width = AutoWidth(120)
    for load in (
        ServerLoad(100, 20, preemptions=90, finished=1000),
        ServerLoad(100, 20, preemptions=0, finished=10),
        ServerLoad(100, 20, preemptions=30, finished=100),
    ):
        width.saw_load(load, in_flight=120, full=True, seconds=1.0)
    assert width.limit == int((120 - 20) * 0.95)


@pytest.mark.parametrize("name", SERVERS)
def test_it_is_as_fast_where_nothing_is_reported(name: str) -> None:
    # A reply of 1,000 tokens takes 30 s, and many are needed to know how fast it goes.
    begin, end = (1000, 1300) if name == "long replies" else (60, 180)
    outcome = drive(SERVERS[name](), Client(AutoWidth(), metrics=False), begin, end)
    assert outcome.rate >= 0.95 * best_fixed(name, begin, end).rate


@pytest.mark.parametrize("metrics", [True, False])
def test_it_follows_a_server_that_grows_and_shrinks(metrics: bool) -> None:
    server, client = Simulated(64), Client(AutoWidth(), metrics=metrics)
    settle, share = (10, 0.95) if metrics else (30, 0.9)
    for slots in (64, 128, 256, 128, 32, 64, 16, 128):
        server.slots = slots
        begin = server.now
        outcome = drive(server, client, begin + settle, begin + 90)
        fixed = drive(Simulated(slots), FixedWidth(2 * slots), settle, 90)
        assert outcome.rate >= share * fixed.rate, slots
        if metrics:
            assert slots <= client.width.limit <= slots * 2 + 2
            assert has_a_short_queue(outcome, slots)


def test_it_follows_a_cache_that_grows_and_shrinks() -> None:
    """As it does for prompts that get longer and shorter."""
    server, client = Simulated(256), Client(AutoWidth())
    for cache_size in (8_000, 4_000, 16_000, 6_000):
        server.cache = cache_size
        begin = server.now
        outcome = drive(server, client, begin + 20, begin + 120)
        fixed = [
            drive(Simulated(256, cache=cache_size), FixedWidth(2**power), 20, 120) for power in range(10)
        ]
        assert outcome.rate >= 0.95 * max(each.rate for each in fixed), cache_size
        assert outcome.preemptions < 0.15


def test_it_stays_beside_bursts() -> None:
    for burst, every in ((500, 20.0), (500, 8.0), (64, 2.0)):
        client = Client(AutoWidth(), burst=burst, every=every)
        outcome = drive(Simulated(128), client, 40, 200)
        fixed = drive(Simulated(128), Client(FixedWidth(512), burst=burst, every=every), 40, 200)
        assert outcome.rate >= 0.95 * fixed.rate
        assert client.width.limit <= 256


@pytest.mark.parametrize("others", [50, 100, 128, 300, 1000])
def test_others_on_the_same_server_leave_it_a_share(others: int) -> None:
    """Their queue is not a reason to send nothing, and not one to send ever more."""
    server, client = Simulated(128), Client(AutoWidth())
    outcome = drive(server, [client, Client(FixedWidth(others))], 30, 150)
    alone = drive(Simulated(128), FixedWidth(256), 30, 150).rate
    # All slots are in use, and the share is that of half of them at least, or of what the others leave.
    assert outcome.rate >= 0.95 * alone
    fair = max(128 - others, 64 * 128 / (64 + others) if others >= 128 else 0)
    assert outcome.shares[0] >= 0.9 * fair / 128
    assert client.width.limit <= 128
    assert outcome.mean_waiting <= max(others - 128, 0) + 80


def test_several_jobs_share_a_server() -> None:
    clients = [Client(AutoWidth()) for _ in range(3)]
    outcome = drive(Simulated(128), clients, 30, 150)
    alone = drive(Simulated(128), FixedWidth(256), 30, 150).rate
    assert outcome.rate >= 0.95 * alone
    assert min(outcome.shares) >= 0.25
    assert outcome.mean_waiting <= 64


@pytest.mark.parametrize("metrics", [True, False])
@pytest.mark.parametrize("count", [2, 4, 7])
def test_several_servers_of_which_one_reports(count: int, metrics: bool) -> None:
    client = Client(AutoWidth(), metrics=metrics)
    outcome = drive([Simulated(128) for _ in range(count)], client, 60, 180)
    fixed = drive([Simulated(128) for _ in range(count)], FixedWidth(256 * count), 60, 180)
    assert outcome.rate >= 0.95 * fixed.rate
    if metrics:
        outcome.replies /= count
        assert has_a_short_queue(outcome, 128)


@pytest.mark.parametrize("metrics", [True, False])
@pytest.mark.parametrize("queue", [8, 64])
def test_a_server_that_rejects_gets_less(queue: int, metrics: bool) -> None:
    server = Simulated(64, queue=queue)
    outcome = drive(server, Client(AutoWidth(), metrics=metrics), 30, 150)
    fixed = drive(Simulated(64), FixedWidth(128), 30, 150)
    assert outcome.rate >= (0.95 if metrics else 0.9) * fixed.rate
    assert server.rejected < server.finished * 0.01


def test_it_does_not_grow_when_it_is_not_used() -> None:
    width = AutoWidth()
    for _ in range(20):
        width.saw_load(ServerLoad(3, 0), in_flight=3, full=False, seconds=1.0)
        width.saw_rate(100, 1.0, full=False)
    assert width.limit == 32


def test_it_does_not_grow_into_a_full_cache() -> None:
    width = AutoWidth()
    width.saw_load(ServerLoad(32, 0, cache_usage=0.96), in_flight=32, full=True, seconds=1.0)
    assert width.limit == 32
    for limit in (34, 36):  # as far as to 95 %
        width.saw_load(ServerLoad(32, 0, cache_usage=0.89), in_flight=width.limit, full=True, seconds=1.0)
        assert width.limit == limit


def test_a_burst_is_not_a_queue() -> None:
    """What waits at one look and not at the next was on its way."""
    width = AutoWidth(100)
    for waiting in (60, 0, 70, 0):
        width.saw_load(ServerLoad(100, waiting, cache_usage=0.99), in_flight=100, full=True, seconds=1.0)
    assert width.limit == 100


def test_what_is_on_its_way_is_waited_for() -> None:
    width = AutoWidth(200)
    for _ in range(3):
        width.saw_load(ServerLoad(80, 0), in_flight=200, full=True, seconds=1.0)
        assert width.limit == 200
    # Unless it never comes: the report is of one server of several.
    width.saw_load(ServerLoad(80, 0), in_flight=200, full=True, seconds=1.0)
    assert width.limit == 400
    width.saw_load(ServerLoad(390, 0), in_flight=400, full=True, seconds=1.0)
    assert width.limit == 800


def test_it_begins_with_what_a_server_runs_by_default() -> None:
    width = AutoWidth()
    width.saw_load(ServerLoad(5, 0, cache_usage=0.01), in_flight=START, full=True, seconds=0.1)
    assert width.limit == 128
    # Unless that would fill the cache.
    width = AutoWidth()
    width.saw_load(ServerLoad(START, 0, cache_usage=0.38), in_flight=START, full=True, seconds=0.1)
    assert width.limit == 80


def test_a_queue_that_is_longer_than_what_runs_is_cut() -> None:
    """Replies that end together do not need more."""
    width = AutoWidth(400)
    for waiting in (0, 280, 272):
        width.saw_load(ServerLoad(128, waiting, cache_usage=0.99), in_flight=400, full=True, seconds=1.0)
    assert width.limit == 400 - (272 - 128)


def test_a_rare_preemption_is_no_reason_to_slow_down() -> None:
    width = AutoWidth(150)

    def saw(preemptions: int, finished: int) -> int:
        load = ServerLoad(100, 50, preemptions, finished=finished)
        width.saw_load(load, in_flight=150, full=True, seconds=1.0)
        return width.limit

    assert [saw(7 + 4 * number, 100 * number) for number in range(10)] == [150] * 10
    # When they are not, those that wait do not fit either.
    assert saw(7 + 36 + 40, 1000) == 95


def test_it_has_ends() -> None:
    width = AutoWidth()
    for _ in range(20):
        width.saw_load(ServerLoad(width.limit, 0), in_flight=width.limit, full=True, seconds=1.0)
    assert width.limit == MOST
    for _ in range(100):
        width.saw_busy(width.limit)
    assert width.limit == 1


def test_a_fixed_width_stays() -> None:
    width = FixedWidth(7)
    width.saw_busy(3)
    assert width.limit == 7


# In a job


def metrics(running: int, waiting: int) -> Metrics:
    names = {"vllm:num_requests_running": running, "vllm:num_requests_waiting": waiting}
    return Metrics(
        MetricFamily(name, "gauge", "", (MetricSample(name, {}, float(value)),))
        for name, value in names.items()
    )


@pytest.fixture
def fast_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vllmchat.jobs.width._FIRST_LOOK_SECONDS", 0.001)
    monkeypatch.setattr("vllmchat.jobs.width._STEADY_LOOK_SECONDS", 0.001)
    monkeypatch.setattr("vllmchat.jobs.engine.LOOK_SECONDS", 0.001)


@pytest.mark.usefixtures("fast_looks")
def test_a_job_widens_while_nothing_waits(runner: Runner) -> None:
    calls = Recorder(at_full_width(100))

    async def report() -> Metrics:
        return metrics(calls.running, max(calls.running - 100, 0))

    results = run(runner, job(calls, range(2000), server=Server(metrics=report)))
    assert len(results) == 2000
    assert calls.most >= 100


@pytest.mark.usefixtures("fast_looks")
@pytest.mark.parametrize(
    "error", [ImportError("no parser"), NotFoundError("no such route", status_code=404), None], ids=str
)
def test_a_job_without_metrics_goes_by_its_results(
    runner: Runner, error: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    rates: list[int] = []
    saw_rate = AutoWidth.saw_rate

    def counted(self: AutoWidth, done: int, seconds: float, *, full: bool) -> bool:
        rates.append(done)
        return saw_rate(self, done, seconds, full=full)

    monkeypatch.setattr(AutoWidth, "saw_rate", counted)

    async def report() -> Metrics:
        asked.append(1)
        if error is None:
            return Metrics([])
        raise error

    async def slow(item: int) -> int:
        await anyio.sleep(0.005)
        return item

    assert len(run(runner, job(slow, range(500), server=Server(metrics=report)))) == 500
    assert len(asked) == 1
    assert rates


def test_what_a_server_reports() -> None:
    assert load_of(metrics(3, 4)) == ServerLoad(3, 4, 0, 0.0)
    assert load_of(Metrics([])) is None


def at_full_width(width: int) -> Callable[[int], Any]:
    """A call that ends when so many run, or when there will be no more."""
    running: list[anyio.Event] = []

    async def call(item: int) -> int:
        event = anyio.Event()
        running.append(event)
        if len(running) >= width or item >= 1900:
            for each in running:
                each.set()
            running.clear()
        with anyio.move_on_after(0.05):
            await event.wait()
        return item

    return call
