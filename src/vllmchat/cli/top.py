"""`vllmchat top`: watch servers."""

from __future__ import annotations

import json as jsons
import sys
from contextlib import AsyncExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import anyio
import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from vllmchat.cli.command import Command
from vllmchat.cli.load import Watch
from vllmchat.cli.server import server_options
from vllmchat.cli.terminal import is_terminal, printable, write
from vllmchat.cli.values import Number

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vllmchat.cli.load import Load
    from vllmchat.cli.server import Server
    from vllmchat.providers.vllm import VLLMProvider

_HEAD: Final = ("RUNNING", "WAITING", "  KV", "HITS", "PROMPT/S", "OUTPUT/S", "PREEMPTED")

_LONGEST: Final = 5.0
"""How long one look at a server may take, in seconds."""

_FULL: Final = 0.9
"""The share of the KV cache from which it is shown as full."""


def top(server: Server, urls: tuple[str, ...], once: bool, interval: float, json: bool) -> int:
    """Watch the load of servers, until Ctrl-C.

    \b
    RUNNING, WAITING     requests now
    KV                   the share of the KV cache in use
    HITS                 the share of the prompts that came from the prefix cache
    PROMPT/S, OUTPUT/S   tokens per second
    PREEMPTED            how often a request lost its place in the KV cache

    A server that is down is shown as down, and comes back when it is up again. In a pipe, or with --once, the rows are
    plain; with --once, the exit code is 1 if a server is down.
    """  # noqa: D301 - click's own mark
    if interval <= 0:
        raise click.UsageError(f"--interval {interval:g}: must be greater than 0.")
    servers = [replace(server, url=url) for url in urls] or [server]
    llms = [one.vllm(max_retries=0, timeout=min(server.timeout or _LONGEST, _LONGEST)) for one in servers]
    last: list[Load] = []

    if json:
        show: Callable[[Sequence[Load]], None] = _print_json
    elif is_terminal(sys.stdout) and not once:
        with Live(console=Console(highlight=False), auto_refresh=False) as live:

            def show_live(loads: Sequence[Load]) -> None:
                live.update(drawn(loads), refresh=True)

            anyio.run(_watch, llms, interval, once, show_live)
        return 0
    else:
        show = _Rows().show

    def keep(loads: Sequence[Load]) -> None:
        last[:] = loads
        show(loads)

    anyio.run(_watch, llms, interval, once, keep)
    return 1 if any(load.down for load in last) else 0


async def _watch(
    llms: Sequence[VLLMProvider], interval: float, once: bool, show: Callable[[Sequence[Load]], None]
) -> None:
    """Looks at the servers again and again."""
    async with AsyncExitStack() as stack:
        watches = [Watch(await stack.enter_async_context(llm)) for llm in llms]
        loads = await _look(watches)
        if not once:
            show(loads)
        while True:
            await anyio.sleep(interval)
            loads = await _look(watches)
            show(loads)
            if once:
                return


async def _look(watches: Sequence[Watch]) -> list[Load]:
    """Looks at all servers at once."""
    found: dict[int, Load] = {}

    async def look(at: int, watch: Watch) -> None:
        found[at] = await watch.look()

    async with anyio.create_task_group() as group:
        for at, watch in enumerate(watches):
            group.start_soon(look, at, watch)
    return [found[at] for at in range(len(watches))]


def cells(load: Load) -> list[str]:
    """Returns what the columns show of a load, without the server."""
    return [
        _count(load.running),
        _count(load.waiting),
        _share(load.kv_cache_usage),
        _share(load.prefix_cache_hit_rate),
        _count(load.prompt_tokens_per_second),
        _count(load.tokens_per_second),
        _count(load.preemptions),
    ]


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def drawn(loads: Sequence[Load]) -> Text:
    """Returns the rows for a terminal."""
    width = max(len(name_of(load)) for load in loads)
    text = Text(_row("SERVER".ljust(width), _HEAD), style="bold", no_wrap=True, overflow="crop")
    for load in loads:
        name = name_of(load).ljust(width)
        text.append(f"\n{name}  ", style="not bold")
        if load.down:
            text.append(printable(f"down: {load.down}"), style="not bold red")
            continue
        for at, (value, head) in enumerate(zip(cells(load), _HEAD, strict=True)):
            alarm = (at == 1 and load.waiting) or (at == 2 and (load.kv_cache_usage or 0) >= _FULL)
            text.append(f"{value.rjust(len(head))}  ", style="not bold yellow" if alarm else "not bold")
    return text


def name_of(load: Load) -> str:
    """Returns a server without what all URLs share."""
    return load.url.partition("://")[2].removesuffix("/v1")


class _Rows:
    """Prints plain rows, under one head."""

    def __init__(self) -> None:
        self._width = 0

    def show(self, loads: Sequence[Load]) -> None:
        if not self._width:
            self._width = max(len(name_of(load)) for load in loads)
            write(f"{_row('SERVER'.ljust(self._width), _HEAD)}\n")
        for load in loads:
            name = name_of(load).ljust(self._width)
            write(f"{name}  down: {load.down}\n" if load.down else f"{_row(name, cells(load))}\n")


def _row(name: str, values: Sequence[str]) -> str:
    return f"{name}  {'  '.join(value.rjust(len(head)) for value, head in zip(values, _HEAD, strict=True))}"


def _print_json(loads: Sequence[Load]) -> None:
    row = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "servers": [asdict(each) for each in loads],
    }
    write(f"{jsons.dumps(row, ensure_ascii=False)}\n")


COMMAND: Final = Command(
    "top",
    top,
    [
        click.Option(
            ["--url", "urls"],
            multiple=True,
            metavar="URL",
            help="A server; repeat it for several. Default: $VLLM_BASE_URL, else http://localhost:8000/v1.",
        ),
        click.Option(["--once"], is_flag=True, help="Look for one interval, print the figures, and exit."),
        click.Option(
            ["--interval"],
            type=Number(whole=False),
            metavar="SECONDS",
            default=1.0,
            show_default=True,
            help="How long to wait between two looks.",
        ),
        click.Option(["--json"], is_flag=True, help="Print a JSON object for each look."),
    ],
    server=[each for each in server_options(model=False) if each.name not in ("url", "provider")],
    epilog="Example: vllmchat top --url http://gpu-1:8000 --url http://gpu-2:8000",
)
