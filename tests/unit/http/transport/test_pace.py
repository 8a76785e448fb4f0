"""How fast connections are opened when many are needed at once."""

from __future__ import annotations

from collections import Counter

import anyio
import anyio.lowlevel
import pytest

from vllmchat.http.event_loop import EventLoopHandle
from vllmchat.http.transport.pace import AT_ONCE, Pace

pytestmark = pytest.mark.anyio


async def test_a_few_are_opened_in_each_iteration_of_the_event_loop() -> None:
    loop = EventLoopHandle()
    pace = Pace(loop)
    iteration = 0
    opened: Counter[int] = Counter()

    async def open_one() -> None:
        await pace.turn()
        opened[iteration] += 1

    async with anyio.create_task_group() as group:
        for _ in range(10 * AT_ONCE):
            group.start_soon(open_one)
        while opened.total() < 10 * AT_ONCE:
            await anyio.lowlevel.checkpoint()
            iteration += 1
            assert iteration < 1000
    # Twice: trio runs the tasks of an iteration in any order, so two groups may fall between two looks.
    assert max(opened.values()) <= 2 * AT_ONCE
    assert len(opened) >= 5


async def test_one_that_gives_up_costs_nobody_its_turn() -> None:
    pace = Pace(EventLoopHandle())
    done = 0

    async def open_one() -> None:
        nonlocal done
        await pace.turn()
        done += 1

    async with anyio.create_task_group() as group:
        for number in range(5 * AT_ONCE):
            if number % 2:
                group.start_soon(open_one)
            else:
                with anyio.move_on_after(0):
                    await open_one()
    assert done >= 2 * AT_ONCE
    with anyio.fail_after(5):
        await open_one()


async def test_few_do_not_wait() -> None:
    pace = Pace(EventLoopHandle())
    for _ in range(3):
        for _ in range(AT_ONCE):
            await pace.turn()
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
