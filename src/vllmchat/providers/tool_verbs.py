"""The verbs that run a conversation with tools to its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from vllmchat.providers.base import ProviderBase

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from vllmchat.chat.messages import Messages
    from vllmchat.chat.params import ChatParams, CommonChatParams, VLLMChatParams
    from vllmchat.chat.run_tools import OnToolError, ToolRun
    from vllmchat.providers.provider import Provider
    from vllmchat.providers.run_tools import AsyncToolRunStream, ToolRunStream


class ToolVerbs(ProviderBase):
    """Runs with tools on a vLLM server."""

    def run_tools(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        max_turns: int = 10,
        on_tool_error: OnToolError | None = None,
        **params: Unpack[VLLMChatParams],
    ) -> ToolRun:
        """Sends a conversation, calls the functions that the model asks for, until it answers.

        What goes wrong with a call is told to the model, which mostly tries again: a function that raises, arguments
        that do not fit, a tool that there is not, a call that was cut. A call that was cut is never executed.

        Args:
            messages: A text, or the conversation so far. If it ends with tool calls that nobody has executed, the
                run begins with these.
            model: The model, or the name of a LoRA adapter, for all replies.
            max_turns: How many replies it may take.
            on_tool_error: Called with the call and the exception when a function has raised. A text that it returns
                is told to the model in place of the usual one; what it raises ends the run.
            **params: See `VLLMChatParams`. `tools` are the functions: see `Tool`. A `tool_choice` other than `"none"`
                holds for the first reply only.

        Raises:
            InvalidRequestError: The tools are no functions, one of them is asynchronous, or a parameter is wrong.
            MaxTurnsError: The last reply that it may take still calls tools. The error holds the history.
            VLLMChatError: A reply failed; see `chat`.
        """
        from vllmchat.providers.run_tools import run_tools

        return run_tools(
            _provider(self),
            messages,
            model=model,
            max_turns=max_turns,
            on_tool_error=on_tool_error,
            **_common(params),
        )

    async def arun_tools(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        max_turns: int = 10,
        on_tool_error: OnToolError | None = None,
        **params: Unpack[VLLMChatParams],
    ) -> ToolRun:
        """Sends a conversation, calls the functions that the model asks for, until it answers, awaiting.

        See `run_tools`. The calls of one reply run concurrently: asynchronous functions on the event loop, plain ones
        in worker threads. When the run is cancelled, asynchronous functions are cancelled; for one in a thread it
        waits.
        """
        from vllmchat.providers.run_tools import arun_tools

        return await arun_tools(
            _provider(self),
            messages,
            model=model,
            max_turns=max_turns,
            on_tool_error=on_tool_error,
            **_common(params),
        )

    def stream_run_tools(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        max_turns: int = 10,
        on_tool_error: OnToolError | None = None,
        **params: Unpack[VLLMChatParams],
    ) -> ToolRunStream:
        """Runs a conversation with tools to its answer, and gives what happens as it happens. See `run_tools`.

        Nothing is sent before the stream is iterated over.

        Args:
            messages: A text, or the conversation so far. If it ends with tool calls that nobody has executed, the
                run begins with these.
            model: The model, or the name of a LoRA adapter, for all replies.
            max_turns: How many replies it may take.
            on_tool_error: Called with the call and the exception when a function has raised. A text that it returns
                is told to the model in place of the usual one; what it raises ends the run.
            **params: See `VLLMChatParams`. `tools` are the functions: see `Tool`. A `tool_choice` other than `"none"`
                holds for the first reply only.

        Raises:
            InvalidRequestError: The tools are no functions, or one of them is asynchronous. What else can go wrong is
                raised by the stream.
        """
        from vllmchat.providers.run_tools import stream_run_tools

        return stream_run_tools(
            _provider(self),
            messages,
            model=model,
            max_turns=max_turns,
            on_tool_error=on_tool_error,
            **_common(params),
        )

    def astream_run_tools(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        max_turns: int = 10,
        on_tool_error: OnToolError | None = None,
        **params: Unpack[VLLMChatParams],
    ) -> AsyncToolRunStream:
        """Runs a conversation with tools to its answer, and gives what happens as it happens, awaiting.

        See `stream_run_tools` and `arun_tools`.
        """
        from vllmchat.providers.run_tools import astream_run_tools

        return astream_run_tools(
            _provider(self),
            messages,
            model=model,
            max_turns=max_turns,
            on_tool_error=on_tool_error,
            **_common(params),
        )


class OpenAIToolVerbs(ProviderBase):
    """Runs with tools on any OpenAI-compatible server."""

    def run_tools(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        max_turns: int = 10,
        on_tool_error: OnToolError | None = None,
        **params: Unpack[ChatParams],
    ) -> ToolRun:
        """Sends a conversation, calls the functions that the model asks for, until it answers.

        What goes wrong with a call is told to the model, which mostly tries again: a function that raises, arguments
        that do not fit, a tool that there is not, a call that was cut. A call that was cut is never executed.

        Args:
            messages: A text, or the conversation so far. If it ends with tool calls that nobody has executed, the
                run begins with these.
            model: The model, for all replies.
            max_turns: How many replies it may take.
            on_tool_error: Called with the call and the exception when a function has raised. A text that it returns
                is told to the model in place of the usual one; what it raises ends the run.
            **params: See `ChatParams`. `tools` are the functions: see `Tool`. A `tool_choice` other than `"none"`
                holds for the first reply only.

        Raises:
            InvalidRequestError: The tools are no functions, one of them is asynchronous, or a parameter is wrong.
            MaxTurnsError: The last reply that it may take still calls tools. The error holds the history.
            VLLMChatError: A reply failed; see `chat`.
        """
        from vllmchat.providers.run_tools import run_tools

        return run_tools(
            _provider(self),
            messages,
            model=model,
            max_turns=max_turns,
            on_tool_error=on_tool_error,
            **_common(params),
        )

    async def arun_tools(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        max_turns: int = 10,
        on_tool_error: OnToolError | None = None,
        **params: Unpack[ChatParams],
    ) -> ToolRun:
        """Sends a conversation, calls the functions that the model asks for, until it answers, awaiting.

        See `run_tools`. The calls of one reply run concurrently: asynchronous functions on the event loop, plain ones
        in worker threads. When the run is cancelled, asynchronous functions are cancelled; for one in a thread it
        waits.
        """
        from vllmchat.providers.run_tools import arun_tools

        return await arun_tools(
            _provider(self),
            messages,
            model=model,
            max_turns=max_turns,
            on_tool_error=on_tool_error,
            **_common(params),
        )

    def stream_run_tools(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        max_turns: int = 10,
        on_tool_error: OnToolError | None = None,
        **params: Unpack[ChatParams],
    ) -> ToolRunStream:
        """Runs a conversation with tools to its answer, and gives what happens as it happens. See `run_tools`.

        Nothing is sent before the stream is iterated over.

        Args:
            messages: A text, or the conversation so far. If it ends with tool calls that nobody has executed, the
                run begins with these.
            model: The model, for all replies.
            max_turns: How many replies it may take.
            on_tool_error: Called with the call and the exception when a function has raised. A text that it returns
                is told to the model in place of the usual one; what it raises ends the run.
            **params: See `ChatParams`. `tools` are the functions: see `Tool`. A `tool_choice` other than `"none"`
                holds for the first reply only.

        Raises:
            InvalidRequestError: The tools are no functions, or one of them is asynchronous. What else can go wrong is
                raised by the stream.
        """
        from vllmchat.providers.run_tools import stream_run_tools

        return stream_run_tools(
            _provider(self),
            messages,
            model=model,
            max_turns=max_turns,
            on_tool_error=on_tool_error,
            **_common(params),
        )

    def astream_run_tools(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        max_turns: int = 10,
        on_tool_error: OnToolError | None = None,
        **params: Unpack[ChatParams],
    ) -> AsyncToolRunStream:
        """Runs a conversation with tools to its answer, and gives what happens as it happens, awaiting.

        See `stream_run_tools` and `arun_tools`.
        """
        from vllmchat.providers.run_tools import astream_run_tools

        return astream_run_tools(
            _provider(self),
            messages,
            model=model,
            max_turns=max_turns,
            on_tool_error=on_tool_error,
            **_common(params),
        )


def _provider(provider: ProviderBase) -> Provider:
    return cast("Provider", provider)  # those who inherit these verbs also have the protocol's


def _common(params: VLLMChatParams | ChatParams) -> CommonChatParams:
    return cast("CommonChatParams", params)  # they go to the provider's own verbs, which take more
