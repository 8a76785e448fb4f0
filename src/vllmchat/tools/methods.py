"""Methods that run a conversation with tools until the model replies."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from vllmchat.client.base import ProviderBase
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from vllmchat.chat.messages import Messages
    from vllmchat.chat.params import ChatParams, VLLMChatParams
    from vllmchat.chat.protocols import Provider
    from vllmchat.tools import run as runs, stream as streams
    from vllmchat.tools.flow import OnToolError, ToolRun
    from vllmchat.tools.stream import AsyncToolRunStream, ToolRunStream
else:
    runs = LazyModule("vllmchat.tools.run")
    streams = LazyModule("vllmchat.tools.stream")


class ToolMethods(ProviderBase):
    """Tool runs on a vLLM server."""

    def run_tools(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        max_turns: int = 10,
        on_tool_error: OnToolError | None = None,
        **params: Unpack[VLLMChatParams],
    ) -> ToolRun:
        """Sends a conversation and calls the functions that the model requests, until it replies without a call.

        Errors in calls are sent to the model, which usually tries again: a function that raises, invalid arguments, an
        unknown tool, a truncated call. A truncated call is never executed.

        Args:
            messages: The conversation so far; a string is one user message. If it ends with tool calls, they are
                executed first.
            model: The model or LoRA adapter for all replies.
            max_turns: Maximum number of replies.
            on_tool_error: Called with the call and the exception if a function raises. Text that it returns is sent to
                the model instead of the error; an exception that it raises ends the run.
            **params: See `VLLMChatParams`. `tools` are the functions; see `Tool`. A `tool_choice` other than `"none"`
                applies only to the first reply.

        Raises:
            InvalidRequestError: A tool is not a function, a function is async, or a parameter is invalid.
            MaxTurnsError: After `max_turns` replies, the model still calls tools. The error has the history.
            VLLMChatError: A reply failed; see `chat`.
        """
        run = runs.Run(messages, model, max_turns, on_tool_error, params)
        return runs.drive(_provider(self), run)

    async def arun_tools(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        max_turns: int = 10,
        on_tool_error: OnToolError | None = None,
        **params: Unpack[VLLMChatParams],
    ) -> ToolRun:
        """Async version of `run_tools`.

        The calls of one reply run concurrently: async functions on the event loop, sync functions in worker threads.
        Cancelling the run cancels async functions and waits for functions in threads.
        """
        run = runs.Run(messages, model, max_turns, on_tool_error, params)
        return await runs.adrive(_provider(self), run)

    def stream_run_tools(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        max_turns: int = 10,
        on_tool_error: OnToolError | None = None,
        **params: Unpack[VLLMChatParams],
    ) -> ToolRunStream:
        """Like `run_tools`, but streams the events of the replies and the results of the tools.

        Nothing is sent until you iterate over the stream.

        Args:
            messages: The conversation so far; a string is one user message. If it ends with tool calls, they are
                executed first.
            model: The model or LoRA adapter for all replies.
            max_turns: Maximum number of replies.
            on_tool_error: Called with the call and the exception if a function raises. Text that it returns is sent to
                the model instead of the error; an exception that it raises ends the run.
            **params: See `VLLMChatParams`. `tools` are the functions; see `Tool`. A `tool_choice` other than `"none"`
                applies only to the first reply.

        Raises:
            InvalidRequestError: A tool is not a function, or a function is async. Other errors are raised by the
                stream.
        """
        run = runs.Run(messages, model, max_turns, on_tool_error, params)
        return streams.ToolRunStream(run, _provider(self))

    def astream_run_tools(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        max_turns: int = 10,
        on_tool_error: OnToolError | None = None,
        **params: Unpack[VLLMChatParams],
    ) -> AsyncToolRunStream:
        """Async version of `stream_run_tools`. See `arun_tools` for how functions are called."""
        run = runs.Run(messages, model, max_turns, on_tool_error, params)
        return streams.AsyncToolRunStream(run, _provider(self))


class OpenAIToolMethods(ProviderBase):
    """Tool runs on any OpenAI-compatible server."""

    def run_tools(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        max_turns: int = 10,
        on_tool_error: OnToolError | None = None,
        **params: Unpack[ChatParams],
    ) -> ToolRun:
        """Sends a conversation and calls the functions that the model requests, until it replies without a call.

        Errors in calls are sent to the model, which usually tries again: a function that raises, invalid arguments, an
        unknown tool, a truncated call. A truncated call is never executed.

        Args:
            messages: The conversation so far; a string is one user message. If it ends with tool calls, they are
                executed first.
            model: The model for all replies.
            max_turns: Maximum number of replies.
            on_tool_error: Called with the call and the exception if a function raises. Text that it returns is sent to
                the model instead of the error; an exception that it raises ends the run.
            **params: See `ChatParams`. `tools` are the functions; see `Tool`. A `tool_choice` other than `"none"`
                applies only to the first reply.

        Raises:
            InvalidRequestError: A tool is not a function, a function is async, or a parameter is invalid.
            MaxTurnsError: After `max_turns` replies, the model still calls tools. The error has the history.
            VLLMChatError: A reply failed; see `chat`.
        """
        run = runs.Run(messages, model, max_turns, on_tool_error, params)
        return runs.drive(_provider(self), run)

    async def arun_tools(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        max_turns: int = 10,
        on_tool_error: OnToolError | None = None,
        **params: Unpack[ChatParams],
    ) -> ToolRun:
        """Async version of `run_tools`.

        The calls of one reply run concurrently: async functions on the event loop, sync functions in worker threads.
        Cancelling the run cancels async functions and waits for functions in threads.
        """
        run = runs.Run(messages, model, max_turns, on_tool_error, params)
        return await runs.adrive(_provider(self), run)

    def stream_run_tools(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        max_turns: int = 10,
        on_tool_error: OnToolError | None = None,
        **params: Unpack[ChatParams],
    ) -> ToolRunStream:
        """Like `run_tools`, but streams the events of the replies and the results of the tools.

        Nothing is sent until you iterate over the stream.

        Args:
            messages: The conversation so far; a string is one user message. If it ends with tool calls, they are
                executed first.
            model: The model for all replies.
            max_turns: Maximum number of replies.
            on_tool_error: Called with the call and the exception if a function raises. Text that it returns is sent to
                the model instead of the error; an exception that it raises ends the run.
            **params: See `ChatParams`. `tools` are the functions; see `Tool`. A `tool_choice` other than `"none"`
                applies only to the first reply.

        Raises:
            InvalidRequestError: A tool is not a function, or a function is async. Other errors are raised by the
                stream.
        """
        run = runs.Run(messages, model, max_turns, on_tool_error, params)
        return streams.ToolRunStream(run, _provider(self))

    def astream_run_tools(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        max_turns: int = 10,
        on_tool_error: OnToolError | None = None,
        **params: Unpack[ChatParams],
    ) -> AsyncToolRunStream:
        """Async version of `stream_run_tools`. See `arun_tools` for how functions are called."""
        run = runs.Run(messages, model, max_turns, on_tool_error, params)
        return streams.AsyncToolRunStream(run, _provider(self))


def _provider(provider: ProviderBase) -> Provider:
    return cast("Provider", provider)  # classes that inherit these methods also have those of the protocol
