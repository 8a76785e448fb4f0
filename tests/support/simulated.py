"""Servers and clients in a time of their own, to see which width a job finds."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vllmchat.jobs.width import LOOK_SECONDS, AutoWidth, ServerLoad

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vllmchat.jobs.width import Width

PROMPT = 50
"""Tokens of each prompt."""


@dataclass(eq=False, slots=True)
class Request:
    """A request of a client. `left` and `generated` are in tokens."""

    client: Client
    left: int
    generated: int = 0
    begun_at_step: int = 0


@dataclass
class Simulated:
    """A server like vLLM.

    Each step generates a token for every running request, and takes longer with more of them. What no longer fits into
    the cache is preempted, the last first, and its tokens are computed again.

    Attributes:
        slots: How many requests run at once.
        fixed: The seconds that a step takes anyway.
        each: The seconds that a request adds to a step.
        prefill: The seconds that a token of a prompt adds to a step.
        budget: How many tokens of prompts a step takes at most.
        cache: How many tokens the KV cache has.
        queue: How many requests may wait; more get a 429.
        arrival: The seconds from sending a request until it waits, one after the other: the work of the front end.
        shortest: The tokens of the shortest reply.
        longest: The tokens of the longest reply.
        noise: How much slower it gets at most, for some seconds at a time.
    """

    slots: int
    fixed: float = 0.02
    each: float = 0.0001
    prefill: float = 0.00001
    budget: int = 2048
    cache: int = 10**9
    queue: int = 10**9
    arrival: float = 0.0
    shortest: int = 20
    longest: int = 80
    noise: float = 0.0

    now: float = 0.0
    preemptions: int = 0
    finished: int = 0
    tokens: int = 0
    rejected: int = 0
    coming: deque[tuple[float, Request]] = field(default_factory=deque[tuple[float, Request]])
    waiting: deque[Request] = field(default_factory=deque[Request])
    running: dict[Request, None] = field(default_factory=dict[Request, None])
    _used: int = 0
    _step: int = 0
    _ends: dict[int, list[Request]] = field(default_factory=dict[int, "list[Request]"])
    _random: random.Random = field(default_factory=lambda: random.Random(7))
    _noise: random.Random = field(default_factory=lambda: random.Random(8))
    _slower: float = 1.0
    _slower_until: float = 0.0

    def send(self, client: Client) -> bool:
        """Sends a request; returns False for a 429."""
        if len(self.coming) + len(self.waiting) + len(self.running) >= self.slots + self.queue:
            self.rejected += 1
            return False
        arrives = max(self.now, self.coming[-1][0] if self.coming else 0.0) + self.arrival
        self.coming.append((arrives, Request(client, self._random.randint(self.shortest, self.longest))))
        return True

    def step(self) -> list[Request]:
        """Does one step; returns the requests that it finished."""
        if not self.running and not self.waiting:
            self.now = max(self.now + self.fixed, self.coming[0][0] if self.coming else 0.0)
        while self.coming and self.coming[0][0] <= self.now:
            self.waiting.append(self.coming.popleft()[1])
        preempted = self._preempt()
        computed = 0 if preempted else self._admit()
        self._step += 1
        self._used += len(self.running)
        self.tokens += len(self.running)
        if self.now >= self._slower_until:
            self._slower = 1 + self._noise.random() * self.noise
            self._slower_until += self._noise.expovariate(0.5)
        seconds = self.fixed + self.each * len(self.running) + self.prefill * computed
        self.now += seconds * self._slower
        ended = [each for each in self._ends.pop(self._step, ()) if each in self.running]
        for request in ended:
            self._leave(request)
        self.finished += len(ended)
        return ended

    def _preempt(self) -> bool:
        preempted = False
        while self._used + len(self.running) > self.cache and len(self.running) > 1:
            request = next(reversed(self.running))
            self._ends[request.begun_at_step + request.left].remove(request)
            self._leave(request)
            self.waiting.appendleft(request)
            self.preemptions += 1
            preempted = True
        return preempted

    def _leave(self, request: Request) -> None:
        del self.running[request]
        done = self._step - request.begun_at_step
        request.generated += done
        request.left -= done
        self._used -= PROMPT + request.generated

    def _admit(self) -> int:
        computed = 0
        while self.waiting and len(self.running) < self.slots and computed < self.budget:
            size = PROMPT + self.waiting[0].generated
            if self._used + size > self.cache and self.running:
                break
            request = self.waiting.popleft()
            request.begun_at_step = self._step
            self.running[request] = None
            self._ends.setdefault(self._step + request.left, []).append(request)
            self._used += size
            computed += size
        return computed

    def load(self) -> ServerLoad:
        """What it reports."""
        return ServerLoad(
            len(self.running), len(self.waiting), self.preemptions, self._used / self.cache, self.finished
        )


@dataclass
class Client:
    """One that keeps servers as busy as its width allows.

    Attributes:
        width: How much that is.
        metrics: Whether it sees what the first server reports.
        burst: Its inputs come so many at a time.
        every: In these seconds.
    """

    width: Width
    metrics: bool = True
    burst: int = 0
    every: float = 0.0

    in_flight: int = 0
    done: int = 0
    limits: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])
    _full: bool = False
    _seen: int = 0
    _since: float = 0.0
    _next_look: float = 0.0
    _hold: float = 0.0
    _sent: int = 0
    _next_server: int = 0

    def send(self, servers: Sequence[Simulated], now: float) -> None:
        """Sends what may be sent, to one server after the other."""
        if self.width.limit <= self.in_flight:
            self._full = True
        while self.in_flight < self.width.limit and now >= self._hold:
            if self.burst and self._sent >= self.burst * (1 + int(now / self.every)):
                return
            self._next_server = (self._next_server + 1) % len(servers)
            if not servers[self._next_server].send(self):
                self._hold = now + 0.5
                self.width.saw_busy(self.in_flight)
                return
            self._sent += 1
            self.in_flight += 1
        self._full = self._full or self.in_flight >= self.width.limit

    def look(self, server: Simulated, now: float) -> None:
        """Lets the width follow what can be seen."""
        width = self.width
        if not isinstance(width, AutoWidth):
            return
        if self._next_look == 0.0 or now < self._next_look:
            self._next_look = self._next_look or now + (width.pause if self.metrics else LOOK_SECONDS)
            return
        if self.metrics:
            seconds, self._since = now - self._since, now
            width.saw_load(server.load(), in_flight=self.in_flight, full=self._full, seconds=seconds)
            self._full = False
        elif width.saw_rate(self.done - self._seen, now - self._since, full=self._full):
            self._seen, self._since, self._full = self.done, now, False
        self._next_look = now + (width.pause if self.metrics else LOOK_SECONDS)
        self.limits.append((now, width.limit))


@dataclass
class Outcome:
    """What a run came to, between two moments.

    Attributes:
        rate: Tokens per second of all servers.
        replies: Replies per second of all servers.
        shares: What part of the results each client got.
        mean_waiting: The mean length of the queues.
        most_waiting: The longest queue.
        preemptions: Per result.
    """

    rate: float
    replies: float
    shares: list[float]
    mean_waiting: float
    most_waiting: int
    preemptions: float


def drive(
    servers: Simulated | Sequence[Simulated],
    clients: Client | Width | Sequence[Client],
    begin: float,
    end: float,
) -> Outcome:
    """Runs clients against servers until `end`; counts from `begin`."""
    servers = [servers] if isinstance(servers, Simulated) else servers
    if not isinstance(clients, Client | list | tuple):
        clients = Client(clients)  # type: ignore[arg-type]
    clients = [clients] if isinstance(clients, Client) else clients
    before: list[int] | None = None
    tokens = preempted = waited = looks = most = 0
    while (server := min(servers, key=lambda each: each.now)).now < end:
        now = server.now
        if before is None and now >= begin:
            before = [client.done for client in clients]
            tokens = sum(each.tokens for each in servers)
            preempted = sum(each.preemptions for each in servers)
        for client in clients:
            client.send(servers, now)
        for request in server.step():
            request.client.in_flight -= 1
            request.client.done += 1
        for client in clients:
            client.look(servers[0], now)
        if before is not None:
            waited += len(server.waiting)
            most = max(most, len(server.waiting))
            looks += 1
    assert before is not None
    done = [client.done - old for client, old in zip(clients, before, strict=True)]
    return Outcome(
        (sum(each.tokens for each in servers) - tokens) / (end - begin),
        sum(done) / (end - begin),
        [each / max(sum(done), 1) for each in done],
        waited / looks,
        most,
        (sum(each.preemptions for each in servers) - preempted) / max(sum(done), 1),
    )
