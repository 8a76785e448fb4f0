"""Methods for many inputs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

from vllmchat.chat.methods import ChatMethods, OpenAIChatMethods
from vllmchat.client.base import ProviderBase
from vllmchat.errors import InvalidRequestError, Problem
from vllmchat.lazy import LazyModule
from vllmchat.structured.methods import OpenAIStructuredMethods, StructuredMethods

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from typing_extensions import TypeForm, Unpack

    from vllmchat.chat import request as requests
    from vllmchat.chat.completion import ChatCompletion
    from vllmchat.chat.params import ChatParams, VLLMChatParams
    from vllmchat.jobs import map as maps
    from vllmchat.jobs.map import (
        AsyncMapResults,
        ChatInput,
        InFlight,
        Inputs,
        Job,
        MapResults,
        Options,
        Order,
        Progress,
    )
    from vllmchat.structured import output_type as output_types
    from vllmchat.structured.output_type import Parsed

    C = TypeVar("C", bound=ChatInput)
else:
    maps = LazyModule("vllmchat.jobs.map")
    output_types = LazyModule("vllmchat.structured.output_type")
    requests = LazyModule("vllmchat.chat.request")

I = TypeVar("I")  # noqa: E741
T = TypeVar("T")


class _Jobs(ProviderBase):
    """How jobs are made."""

    def _function_job(
        self,
        inputs: Inputs[Any],
        call: Callable[[Any], Any],
        options: Options,
        others: Mapping[str, object],
    ) -> Job[Any, Any]:
        given = [name for name, value in others.items() if value is not None]
        if given:
            rule = "belongs to the function: map passes it only the input."
            hint = (
                "Write call=functools.partial(llm.acomplete, max_tokens=50), or pass a function of your own."
            )
            raise InvalidRequestError([Problem(name, "", rule, hint) for name in given])
        return maps.Job(maps.any_call(call), inputs, options, maps.server_of(self))

    def _chat_job(
        self,
        inputs: Inputs[Any],
        chat: Callable[..., ChatCompletion],
        achat: Callable[..., Awaitable[ChatCompletion]],
        options: Options,
        model: str | None,
        params: Mapping[str, object],
    ) -> Job[Any, Any]:
        send = maps.in_threads(chat) if self._clients.only_sync else achat
        return maps.Job(maps.chat_call(send, model, params), inputs, options, maps.server_of(self))

    def _parse_job(
        self,
        inputs: Inputs[Any],
        parse: Callable[..., Parsed[Any]],
        aparse: Callable[..., Awaitable[Parsed[Any]]],
        options: Options,
        model: str | None,
        params: Mapping[str, object],
    ) -> Job[Any, Any]:
        send = maps.in_threads(parse) if self._clients.only_sync else aparse
        return maps.Job(maps.parse_call(send, model, params), inputs, options, maps.server_of(self))


class MapMethods(_Jobs, ChatMethods, StructuredMethods):
    """Many inputs for a vLLM server."""

    @overload
    def map(
        self,
        inputs: Inputs[C],
        *,
        model: str | None = None,
        in_flight: InFlight = "auto",
        ordered: bool = True,
        retries: int = 2,
        progress: Progress = False,
        stop_after_errors: int | None = None,
        wait: float = 300.0,
        order: Order = "given",
        **params: Unpack[VLLMChatParams],
    ) -> MapResults[C, ChatCompletion]: ...

    @overload
    def map(
        self,
        inputs: Inputs[C],
        *,
        kind: TypeForm[T],
        model: str | None = None,
        in_flight: InFlight = "auto",
        ordered: bool = True,
        retries: int = 2,
        progress: Progress = False,
        stop_after_errors: int | None = None,
        wait: float = 300.0,
        order: Order = "given",
        **params: Unpack[VLLMChatParams],
    ) -> MapResults[C, T]: ...

    @overload
    def map(
        self,
        inputs: Inputs[I],
        *,
        call: Callable[[I], Awaitable[T]],
        in_flight: InFlight = "auto",
        ordered: bool = True,
        retries: int = 2,
        progress: Progress = False,
        stop_after_errors: int | None = None,
        wait: float = 300.0,
        order: Order = "given",
    ) -> MapResults[I, T]: ...

    @overload
    def map(
        self,
        inputs: Inputs[I],
        *,
        call: Callable[[I], T],
        in_flight: InFlight = "auto",
        ordered: bool = True,
        retries: int = 2,
        progress: Progress = False,
        stop_after_errors: int | None = None,
        wait: float = 300.0,
        order: Order = "given",
    ) -> MapResults[I, T]: ...

    def map(
        self,
        inputs: Inputs[Any],
        *,
        kind: TypeForm[Any] | None = None,
        call: Callable[[Any], Any] | None = None,
        model: str | None = None,
        in_flight: InFlight = "auto",
        ordered: bool = True,
        retries: int = 2,
        progress: Progress = False,
        stop_after_errors: int | None = None,
        wait: float = 300.0,
        order: Order = "given",
        **params: Unpack[VLLMChatParams],
    ) -> MapResults[Any, Any]:
        """Chats about each of many inputs, and yields the results as they come. It blocks.

        The inputs may be infinite, and they are read as they are needed: a list where it is, anything else in a thread
        of its own. One wrong input is one wrong result. While the server is down the job waits, and goes on when it is
        back. For other calls than chats, pass a function as `call`, such as `llm.aembed` or
        `functools.partial(llm.acomplete, max_tokens=50)`; a sync function runs in worker threads.

            for result in llm.map(["Why is the sky blue?", "Why is grass green?"], max_tokens=100):
                print(result.index, result.text if result.ok else result.error)

        Args:
            inputs: Texts, conversations, or mappings with `messages` and, as you like, an `id`, a `model` and
                parameters of their own. With `call`, whatever it accepts. Async iterables too.
            kind: The type to parse replies into, see `parse`; a result's `value` is of that type.
            call: A function, sync or async, that is called with each input in place of a chat. Its `value` is what it
                returns.
            model: The model or LoRA adapter for inputs that do not name their own.
            in_flight: How many inputs may be in flight at once. `"auto"` follows the server: its queue, if it reports
                one (needs `pip install 'vllmchat[metrics]'`), else the number of results per second.
            ordered: Whether results come in the order of the inputs. At most 16 times the width is held back for that.
            retries: How often an input is sent again after a timeout, a broken connection or a 5xx. For chats, this
                takes the place of the provider's `max_retries`.
            progress: True for a line on stderr each ten seconds, or a function that is called with a `JobProgress`
                twice a second and at the end, on the event loop of the job.
            stop_after_errors: After how many errors in a row to stop; None for never.
            wait: How long to wait for a server that cannot be reached, is busy, or returns 502, 503 or 504, in seconds.
            order: `"prefix"` sends inputs with the same long beginning together, so that the server finds it in its
                cache. The results come in that order, and `inputs` must have a length.
            **params: See `VLLMChatParams`. They are checked before anything is sent.

        Raises:
            InvalidRequestError: An argument is invalid. Other errors are raised by the results.
        """
        options = maps.Options(in_flight, ordered, retries, progress, stop_after_errors, wait, order)
        return maps.MapResults(self._job(inputs, kind, call, model, options, params))

    @overload
    def amap(
        self,
        inputs: Inputs[C],
        *,
        model: str | None = None,
        in_flight: InFlight = "auto",
        ordered: bool = True,
        retries: int = 2,
        progress: Progress = False,
        stop_after_errors: int | None = None,
        wait: float = 300.0,
        order: Order = "given",
        **params: Unpack[VLLMChatParams],
    ) -> AsyncMapResults[C, ChatCompletion]: ...

    @overload
    def amap(
        self,
        inputs: Inputs[C],
        *,
        kind: TypeForm[T],
        model: str | None = None,
        in_flight: InFlight = "auto",
        ordered: bool = True,
        retries: int = 2,
        progress: Progress = False,
        stop_after_errors: int | None = None,
        wait: float = 300.0,
        order: Order = "given",
        **params: Unpack[VLLMChatParams],
    ) -> AsyncMapResults[C, T]: ...

    @overload
    def amap(
        self,
        inputs: Inputs[I],
        *,
        call: Callable[[I], Awaitable[T]],
        in_flight: InFlight = "auto",
        ordered: bool = True,
        retries: int = 2,
        progress: Progress = False,
        stop_after_errors: int | None = None,
        wait: float = 300.0,
        order: Order = "given",
    ) -> AsyncMapResults[I, T]: ...

    @overload
    def amap(
        self,
        inputs: Inputs[I],
        *,
        call: Callable[[I], T],
        in_flight: InFlight = "auto",
        ordered: bool = True,
        retries: int = 2,
        progress: Progress = False,
        stop_after_errors: int | None = None,
        wait: float = 300.0,
        order: Order = "given",
    ) -> AsyncMapResults[I, T]: ...

    def amap(
        self,
        inputs: Inputs[Any],
        *,
        kind: TypeForm[Any] | None = None,
        call: Callable[[Any], Any] | None = None,
        model: str | None = None,
        in_flight: InFlight = "auto",
        ordered: bool = True,
        retries: int = 2,
        progress: Progress = False,
        stop_after_errors: int | None = None,
        wait: float = 300.0,
        order: Order = "given",
        **params: Unpack[VLLMChatParams],
    ) -> AsyncMapResults[Any, Any]:
        """Async version of `map`: `async for result in llm.amap(...)`."""
        options = maps.Options(in_flight, ordered, retries, progress, stop_after_errors, wait, order)
        return maps.AsyncMapResults(self._job(inputs, kind, call, model, options, params))

    def _job(
        self,
        inputs: Inputs[Any],
        kind: TypeForm[Any] | None,
        call: Callable[[Any], Any] | None,
        model: str | None,
        options: Options,
        params: Mapping[str, object],
    ) -> Job[Any, Any]:
        if call is not None:
            return self._function_job(inputs, call, options, {"kind": kind, "model": model, **params})
        maps.check_names("map", params, maps.MAP_OPTIONS)
        fixed = {} if kind is None else output_types.OutputType(kind, wrap=False).request_params
        found = () if kind is None else output_types.check_single(params)
        requests.vllm_request("Hello", {**params, **fixed}, stream=False, found=found)
        # The job does the retries: it knows whether others wait, and for how long.
        sender = self.with_options(max_retries=0)
        if kind is None:
            return self._chat_job(inputs, sender.chat, sender.achat, options, model, params)
        parse, aparse = partial(sender.parse, kind=kind), partial(sender.aparse, kind=kind)
        return self._parse_job(inputs, parse, aparse, options, model, params)


class OpenAIMapMethods(_Jobs, OpenAIChatMethods, OpenAIStructuredMethods):
    """Many inputs for any OpenAI-compatible server."""

    @overload
    def map(
        self,
        inputs: Inputs[C],
        *,
        model: str | None = None,
        in_flight: InFlight = "auto",
        ordered: bool = True,
        retries: int = 2,
        progress: Progress = False,
        stop_after_errors: int | None = None,
        wait: float = 300.0,
        order: Order = "given",
        **params: Unpack[ChatParams],
    ) -> MapResults[C, ChatCompletion]: ...

    @overload
    def map(
        self,
        inputs: Inputs[C],
        *,
        kind: TypeForm[T],
        model: str | None = None,
        in_flight: InFlight = "auto",
        ordered: bool = True,
        retries: int = 2,
        progress: Progress = False,
        stop_after_errors: int | None = None,
        wait: float = 300.0,
        order: Order = "given",
        **params: Unpack[ChatParams],
    ) -> MapResults[C, T]: ...

    @overload
    def map(
        self,
        inputs: Inputs[I],
        *,
        call: Callable[[I], Awaitable[T]],
        in_flight: InFlight = "auto",
        ordered: bool = True,
        retries: int = 2,
        progress: Progress = False,
        stop_after_errors: int | None = None,
        wait: float = 300.0,
        order: Order = "given",
    ) -> MapResults[I, T]: ...

    @overload
    def map(
        self,
        inputs: Inputs[I],
        *,
        call: Callable[[I], T],
        in_flight: InFlight = "auto",
        ordered: bool = True,
        retries: int = 2,
        progress: Progress = False,
        stop_after_errors: int | None = None,
        wait: float = 300.0,
        order: Order = "given",
    ) -> MapResults[I, T]: ...

    def map(
        self,
        inputs: Inputs[Any],
        *,
        kind: TypeForm[Any] | None = None,
        call: Callable[[Any], Any] | None = None,
        model: str | None = None,
        in_flight: InFlight = "auto",
        ordered: bool = True,
        retries: int = 2,
        progress: Progress = False,
        stop_after_errors: int | None = None,
        wait: float = 300.0,
        order: Order = "given",
        **params: Unpack[ChatParams],
    ) -> MapResults[Any, Any]:
        """Chats about each of many inputs, and yields the results as they come. It blocks.

        The inputs may be infinite, and they are read as they are needed: a list where it is, anything else in a thread
        of its own. One wrong input is one wrong result. While the server is down the job waits, and goes on when it is
        back. For other calls than chats, pass a function as `call`, such as `llm.aembed` or
        `functools.partial(llm.acomplete, max_tokens=50)`; a sync function runs in worker threads.

            for result in llm.map(["Why is the sky blue?", "Why is grass green?"], max_tokens=100):
                print(result.index, result.text if result.ok else result.error)

        Args:
            inputs: Texts, conversations, or mappings with `messages` and, as you like, an `id`, a `model` and
                parameters of their own. With `call`, whatever it accepts. Async iterables too.
            kind: The type to parse replies into, see `parse`; a result's `value` is of that type.
            call: A function, sync or async, that is called with each input in place of a chat. Its `value` is what it
                returns.
            model: The model for inputs that do not name their own.
            in_flight: How many inputs may be in flight at once. `"auto"` follows the server: its queue, if it reports
                one (needs `pip install 'vllmchat[metrics]'`), else the number of results per second.
            ordered: Whether results come in the order of the inputs. At most 16 times the width is held back for that.
            retries: How often an input is sent again after a timeout, a broken connection or a 5xx. For chats, this
                takes the place of the provider's `max_retries`.
            progress: True for a line on stderr each ten seconds, or a function that is called with a `JobProgress`
                twice a second and at the end, on the event loop of the job.
            stop_after_errors: After how many errors in a row to stop; None for never.
            wait: How long to wait for a server that cannot be reached, is busy, or returns 502, 503 or 504, in seconds.
            order: `"prefix"` sends inputs with the same long beginning together, so that the server finds it in its
                cache. The results come in that order, and `inputs` must have a length.
            **params: See `ChatParams`. They are checked before anything is sent.

        Raises:
            InvalidRequestError: An argument is invalid. Other errors are raised by the results.
        """
        options = maps.Options(in_flight, ordered, retries, progress, stop_after_errors, wait, order)
        return maps.MapResults(self._job(inputs, kind, call, model, options, params))

    @overload
    def amap(
        self,
        inputs: Inputs[C],
        *,
        model: str | None = None,
        in_flight: InFlight = "auto",
        ordered: bool = True,
        retries: int = 2,
        progress: Progress = False,
        stop_after_errors: int | None = None,
        wait: float = 300.0,
        order: Order = "given",
        **params: Unpack[ChatParams],
    ) -> AsyncMapResults[C, ChatCompletion]: ...

    @overload
    def amap(
        self,
        inputs: Inputs[C],
        *,
        kind: TypeForm[T],
        model: str | None = None,
        in_flight: InFlight = "auto",
        ordered: bool = True,
        retries: int = 2,
        progress: Progress = False,
        stop_after_errors: int | None = None,
        wait: float = 300.0,
        order: Order = "given",
        **params: Unpack[ChatParams],
    ) -> AsyncMapResults[C, T]: ...

    @overload
    def amap(
        self,
        inputs: Inputs[I],
        *,
        call: Callable[[I], Awaitable[T]],
        in_flight: InFlight = "auto",
        ordered: bool = True,
        retries: int = 2,
        progress: Progress = False,
        stop_after_errors: int | None = None,
        wait: float = 300.0,
        order: Order = "given",
    ) -> AsyncMapResults[I, T]: ...

    @overload
    def amap(
        self,
        inputs: Inputs[I],
        *,
        call: Callable[[I], T],
        in_flight: InFlight = "auto",
        ordered: bool = True,
        retries: int = 2,
        progress: Progress = False,
        stop_after_errors: int | None = None,
        wait: float = 300.0,
        order: Order = "given",
    ) -> AsyncMapResults[I, T]: ...

    def amap(
        self,
        inputs: Inputs[Any],
        *,
        kind: TypeForm[Any] | None = None,
        call: Callable[[Any], Any] | None = None,
        model: str | None = None,
        in_flight: InFlight = "auto",
        ordered: bool = True,
        retries: int = 2,
        progress: Progress = False,
        stop_after_errors: int | None = None,
        wait: float = 300.0,
        order: Order = "given",
        **params: Unpack[ChatParams],
    ) -> AsyncMapResults[Any, Any]:
        """Async version of `map`: `async for result in llm.amap(...)`."""
        options = maps.Options(in_flight, ordered, retries, progress, stop_after_errors, wait, order)
        return maps.AsyncMapResults(self._job(inputs, kind, call, model, options, params))

    def _job(
        self,
        inputs: Inputs[Any],
        kind: TypeForm[Any] | None,
        call: Callable[[Any], Any] | None,
        model: str | None,
        options: Options,
        params: Mapping[str, object],
    ) -> Job[Any, Any]:
        if call is not None:
            return self._function_job(inputs, call, options, {"kind": kind, "model": model, **params})
        maps.check_names("map", params, maps.MAP_OPTIONS)
        fixed = {} if kind is None else output_types.OutputType(kind, wrap=True).request_params
        found = () if kind is None else output_types.check_single(params)
        requests.openai_request("Hello", {**params, **fixed}, stream=False, found=found)
        # The job does the retries: it knows whether others wait, and for how long.
        sender = self.with_options(max_retries=0)
        if kind is None:
            return self._chat_job(inputs, sender.chat, sender.achat, options, model, params)
        parse, aparse = partial(sender.parse, kind=kind), partial(sender.aparse, kind=kind)
        return self._parse_job(inputs, parse, aparse, options, model, params)
