"""What all providers share: the server, timeouts, and how requests are sent."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from vllmchat.checking.secrets import hide
from vllmchat.client.lookup import Found, Lookup
from vllmchat.client.options import (
    authorization,
    check_cap,
    checked_headers,
    checked_model,
    checked_retries,
    checked_retry_seconds,
    checked_switch,
)
from vllmchat.client.request import ServerRequest
from vllmchat.errors import InvalidRequestError, Problem
from vllmchat.http.clock import Clock
from vllmchat.http.connections import ClientPair
from vllmchat.http.flow import Target
from vllmchat.http.plain_key import warn_of_plain_key
from vllmchat.http.timeout import DEFAULT_TIMEOUT, Timeout
from vllmchat.http.transport.httpx_client import USER_AGENT, timeout_of
from vllmchat.http.url import BaseURL
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
    from types import TracebackType
    from typing import Self

    from typing_extensions import Unpack

    from vllmchat.checking.call_params import AnyDefaultParams
    from vllmchat.client import defaults as default_params, discovery, hooks, pickling, wrong_arguments
    from vllmchat.client.hooks import OnRequest, OnResponse, OnRetry
    from vllmchat.client.request import Request
    from vllmchat.http import logs
    from vllmchat.http.call import Call
    from vllmchat.http.connections import Verify
    from vllmchat.http.exchange import AsyncExchange, SyncExchange
    from vllmchat.http.flow import Flow
    from vllmchat.http.observe import Observer
    from vllmchat.http.transport.httpx_client import AsyncHTTPClient, SyncHTTPClient
else:
    default_params = LazyModule("vllmchat.client.defaults")
    discovery = LazyModule("vllmchat.client.discovery")
    wrong_arguments = LazyModule("vllmchat.client.wrong_arguments")  # needed only for names that do not exist
    hooks = LazyModule("vllmchat.client.hooks")
    pickling = LazyModule("vllmchat.client.pickling")
    logs = LazyModule("vllmchat.http.logs")

T = TypeVar("T")


class ProviderBase:
    """A server and its default model, with sync and async methods. See `OpenAIProvider` and `VLLMProvider`."""

    _name = "openai"
    _base_url_variable = "OPENAI_BASE_URL"
    _base_url_default = "https://api.openai.com/v1"
    _api_key_variable = "OPENAI_API_KEY"
    _api_key_default: str | None = None
    _routes_below_v1 = False
    _asks_for_model = False
    _has_version = False
    _default_params = "DefaultParams"

    _lacks: frozenset[str] = frozenset()
    """The headers and other settings that did not travel in a pickle."""

    def __init__(
        self,
        model: str | None = None,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float | Timeout | None = None,
        max_retries: int = 2,
        max_retry_seconds: float | None = None,
        headers: Mapping[str, str] | None = None,
        http_client: SyncHTTPClient | None = None,
        async_http_client: AsyncHTTPClient | None = None,
        verify: Verify = True,
        max_connections: int | None = None,
        on_request: OnRequest | None = None,
        on_retry: OnRetry | None = None,
        on_response: OnResponse | None = None,
        pickle_secrets: bool = False,
        **defaults: Unpack[AnyDefaultParams],
    ) -> None:
        if os.environ.get("VLLMCHAT_LOG"):
            logs.set_up()
        url = base_url or os.environ.get(self._base_url_variable) or self._base_url_default
        key = hide(api_key or os.environ.get(self._api_key_variable) or self._api_key_default)
        base = BaseURL.parse(url, add_v1=self._routes_below_v1)
        self._model = checked_model(model)
        self._defaults = self._with_defaults({}, defaults)
        self._timeout = None if timeout is None else Timeout.of(timeout, DEFAULT_TIMEOUT)
        own_headers = {} if headers is None else checked_headers(headers)
        all_headers = {"user-agent": USER_AGENT, **(authorization(key) if key else {}), **own_headers}
        default_key = not api_key and "authorization" not in own_headers
        self._target = Target(
            base,
            all_headers,
            checked_retries(max_retries),
            default_key,
            checked_retry_seconds(max_retry_seconds),
            self._observers((), on_request, on_retry, on_response),
        )
        warn_of_plain_key(base, all_headers, self._api_key_default)
        check_cap(max_connections)
        self._clients = ClientPair(
            base,
            verify=verify,
            max_connections=max_connections,
            http_client=http_client,
            async_http_client=async_http_client,
        )
        self._found = Found()
        # Timeouts of the caller's own client apply unless others are given here.
        self._sync_timeout = self._timeout or timeout_of(http_client) or DEFAULT_TIMEOUT
        self._async_timeout = self._timeout or timeout_of(async_http_client) or DEFAULT_TIMEOUT
        self._owner = True
        self._pickle_secrets = checked_switch("pickle_secrets", pickle_secrets)

    @property
    def name(self) -> str:
        """The kind of server, such as `"vllm"`."""
        return self._name

    @property
    def model(self) -> str | None:
        """The default model; None if it is not known yet."""
        return self._model or self._found.model

    @property
    def base_url(self) -> str:
        """The server's base URL."""
        return str(self._target.base)

    @property
    def timeout(self) -> Timeout:
        """The default timeout of calls."""
        return self._sync_timeout

    if not TYPE_CHECKING:  # which must not accept any name

        def __getattr__(self, name: str) -> NoReturn:
            raise wrong_arguments.explain_attribute(self, name)

    def __repr__(self) -> str:
        defaults = default_params.describe(self._defaults) if self._defaults else ""
        return f"{type(self).__name__}({self.model!r}, base_url={self.base_url!r}{defaults})"

    def __reduce__(self) -> tuple[object, ...]:
        return pickling.reduce(self)

    @classmethod
    def _restored(cls, settings: Mapping[str, Any], lacks: Iterable[str]) -> Self:
        """Returns the provider of a pickle. A subclass gets its own attributes back, not a call of its `__init__`."""
        llm = object.__new__(cls)
        ProviderBase.__init__(llm, **settings)
        missing = set(lacks)
        if os.environ.get(cls._api_key_variable):
            missing.discard("authorization")
        if missing:
            llm._lacks = frozenset(missing)
        return llm

    def __copy__(self) -> Self:
        return self.with_options()

    def __deepcopy__(self, memo: object) -> Self:
        return self.with_options()

    @staticmethod
    def _observers(
        observers: tuple[Observer, ...],
        on_request: OnRequest | None,
        on_retry: OnRetry | None,
        on_response: OnResponse | None,
    ) -> tuple[Observer, ...]:
        if on_request is None and on_retry is None and on_response is None:
            return observers
        return hooks.with_hooks(observers, on_request, on_retry, on_response)

    def _with_defaults(self, kept: Mapping[str, object], given: Mapping[str, object]) -> Mapping[str, object]:
        """Returns the checked defaults of this provider: those that it keeps, and those that are given."""
        if not given:
            return kept
        merged = default_params.merge(kept, given)
        checked = {name: value for name, value in merged.items() if value is not None}
        self._check_defaults(checked)
        return checked

    def _check_defaults(self, defaults: Mapping[str, object]) -> None:
        """Raises `InvalidRequestError` for invalid defaults, as a chat does for its parameters."""
        raise NotImplementedError

    def _observe(self, observer: Observer) -> None:
        """Adds an observer of all calls of this provider, and of copies that are made later."""
        self._target = self._target.observed_by(observer)

    def with_options(
        self,
        *,
        model: str | None = None,
        api_key: str | None = None,
        timeout: float | Timeout | None = None,
        max_retries: int | None = None,
        max_retry_seconds: float | None = None,
        headers: Mapping[str, str] | None = None,
        on_request: OnRequest | None = None,
        on_retry: OnRetry | None = None,
        on_response: OnResponse | None = None,
        pickle_secrets: bool | None = None,
        **defaults: Unpack[AnyDefaultParams],
    ) -> Self:
        """Returns a copy with other settings that shares the connections. It is cheap.

        The original owns the connections: closing the copy does nothing.

        Args:
            model: The default model.
            api_key: The API key.
            timeout: The default timeout. A number sets `Timeout.total`, in seconds, and keeps the other limits.
            max_retries: How many times to retry.
            max_retry_seconds: For how many seconds to retry instead.
            headers: Headers for each request, in addition to those of the original.
            on_request: Called before each request. See `OnRequest`.
            on_retry: Called before each retry. See `OnRetry`.
            on_response: Called at the end of each call. See `OnResponse`.
            pickle_secrets: Whether pickles hold the key and what else is secret.
            **defaults: Defaults of parameters of calls, such as `temperature=0`, in addition to those of the
                original. None removes one.

        Raises:
            InvalidRequestError: An argument is unknown, or a default is invalid.
        """
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy._owner = False
        if model is not None:
            copy._model = checked_model(model)
        copy._defaults = self._with_defaults(self._defaults, defaults)
        if timeout is not None:
            copy._timeout = copy._sync_timeout = Timeout.of(timeout, self._sync_timeout)
            copy._async_timeout = Timeout.of(timeout, self._async_timeout)
        overrides = {} if api_key is None else authorization(api_key)
        if headers is not None:
            overrides.update(checked_headers(headers))
        if self._lacks:
            copy._lacks = self._lacks - overrides.keys() - defaults.keys()
        if pickle_secrets is not None:
            copy._pickle_secrets = checked_switch("pickle_secrets", pickle_secrets)
        target = self._target
        retries = target.max_retries if max_retries is None else checked_retries(max_retries)
        # A new count takes the place of the seconds too.
        kept = target.max_retry_seconds if max_retries is None else None
        seconds = kept if max_retry_seconds is None else checked_retry_seconds(max_retry_seconds)
        default_key = target.default_key and "authorization" not in overrides
        observers = self._observers(target.observers, on_request, on_retry, on_response)
        copy._target = Target(
            target.base, {**target.headers, **overrides}, retries, default_key, seconds, observers
        )
        return copy

    # The building blocks of methods: send a request and read the response, or leave it open to stream, or run a flow
    # that decides which requests to send.

    def _run(self, request: Request[T], model: str | None = None) -> T:
        clock, flow = self._begin(request, model, self._sync_timeout)
        return self._clients.sync_client.run(self._target, self._look_up(flow, clock), clock)

    def _arun(self, request: Request[T], model: str | None = None) -> Awaitable[T]:
        # Usually not a coroutine of its own: each call in flight keeps each one on the way.
        clock, flow = self._begin(request, model, self._async_timeout)
        try:
            step = next(flow)
        except StopIteration as stop:
            return self._clients.async_client.run(self._target, stop.value, clock)
        return self._arun_later(flow, step, clock)

    async def _arun_later(
        self, flow: Generator[Lookup[Any], Any, Call[T]], step: Lookup[Any], clock: Clock
    ) -> T:
        call = await self._alook_up(flow, step, clock)
        return await self._clients.async_client.run(self._target, call, clock)

    def _open(self, request: Request[T], model: str | None, begin: Callable[[Clock], None]) -> SyncExchange:
        clock, flow = self._begin(request, model, self._sync_timeout)
        begin(clock)
        return self._clients.sync_client.open(self._target, self._look_up(flow, clock), clock)

    async def _aopen(self, request: Request[T], model: str | None = None) -> AsyncExchange:
        clock, flow = self._begin(request, model, self._async_timeout)
        try:
            step = next(flow)
        except StopIteration as stop:
            call: Call[T] = stop.value
        else:
            call = await self._alook_up(flow, step, clock)
        return await self._clients.async_client.open(self._target, call, clock)

    def _follow(self, flow: Callable[[Target, Clock], Flow[T]], clock: Clock) -> T:
        return self._clients.sync_client.follow(partial(flow, self._target), clock)

    async def _afollow(self, flow: Callable[[Target, Clock], Flow[T]], clock: Clock) -> T:
        return await self._clients.async_client.follow(partial(flow, self._target), clock)

    # Which model and which version, then the call

    def _call(
        self, request: Request[T], model: str | None, timeout: Timeout
    ) -> Generator[Lookup[Any], Any, Call[T]]:
        if isinstance(request, ServerRequest):
            return request.call(timeout)
        found = self._found
        name = self._known_model(model)
        if name is None:
            flow = partial(discovery.model_flow, found, timeout)
            name = yield from Lookup("model", lambda: found.model, flow)
        if self._has_version and request.needs_version:
            version = found.version
            if version is None:
                ask = partial(discovery.version_flow, found, timeout)
                version = yield from Lookup("version", lambda: found.version, ask)
            request = request.for_version(version)
        return request.call(name, timeout)

    # One clock for the questions and the call: the timeout of a call covers all that it does.

    def _begin(
        self, request: Request[T], model: str | None, default: Timeout
    ) -> tuple[Clock, Generator[Lookup[Any], Any, Call[T]]]:
        self._check_open()
        timeout = request.limits(default)
        return Clock(timeout), self._call(request, model, timeout)

    def _look_up(self, flow: Generator[Lookup[Any], Any, Call[T]], clock: Clock) -> Call[T]:
        client = self._clients.sync_client
        try:
            step = next(flow)
            while True:
                step = flow.send(
                    client.once(step.name, step.known, partial(self._follow, step.flow, clock), clock)
                )
        except StopIteration as stop:
            call: Call[T] = stop.value
            return call

    async def _alook_up(
        self, flow: Generator[Lookup[Any], Any, Call[T]], step: Lookup[Any], clock: Clock
    ) -> Call[T]:
        client = self._clients.async_client
        try:
            while True:
                ask = partial(self._afollow, step.flow, clock)
                step = flow.send(await client.once(step.name, step.known, ask, clock))
        except StopIteration as stop:
            call: Call[T] = stop.value
            return call

    def _known_model(self, model: str | None) -> str | None:
        known = checked_model(model) or self.model
        if known is None and not self._asks_for_model:
            raise InvalidRequestError(
                [
                    Problem(
                        "model",
                        "None",
                        "no model is set.",
                        f"Write {type(self).__name__}('MODEL') or model='MODEL'; models() lists what the server has.",
                    )
                ]
            )
        return known

    # Closing

    def close(self) -> None:
        """Closes the provider, and the connections opened by sync calls. Further calls raise `InvalidRequestError`.

        A call that is running in another thread goes on. For a copy made by `with_options`, this does nothing.
        """
        if self._owner:
            self._clients.closed = True
            self._clients.sync_client.close()

    async def aclose(self) -> None:
        """Closes the provider, and the connections opened by calls on the running event loop.

        Further calls raise `InvalidRequestError`, including sync calls and those on other event loops. Connections
        opened on other event loops are closed with their loop, whether by `asyncio.run`, `asyncio.Runner`, `trio.run`
        or `anyio.run`. If you close a loop by hand without `shutdown_asyncgens()`, call this first.
        """
        if self._owner:
            self._clients.closed = True
            await self._clients.async_client.aclose()

    def _check_open(self) -> None:
        if self._clients.closed:
            raise InvalidRequestError(
                f"this {type(self).__name__} is closed. Create a new one, or close it after its last call"
            )
        if self._lacks:
            raise pickling.lacking(self)

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
