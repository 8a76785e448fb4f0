"""Tool runs on any provider: sync, async and streaming drivers of `vllmchat.tools.flow`."""

from __future__ import annotations

import inspect
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, cast

import anyio
import anyio.to_thread

from vllmchat.chat.completion import ChatMessage
from vllmchat.checking.secrets import hide_secrets
from vllmchat.errors import StreamError, VLLMChatError
from vllmchat.tools.flow import (
    MAX_TURNS,
    Execute,
    Outcome,
    Report,
    Request,
    Toolbox,
    check_run,
    first_turn_params,
    history_of,
    later_turn_params,
    run_flow,
)
from vllmchat.wire import markdown
from vllmchat.wire.decode import text_of_parts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator, Mapping, Sequence

    from typing_extensions import Unpack

    from vllmchat.chat.completion import ChatCompletion
    from vllmchat.chat.messages import Message, Messages
    from vllmchat.chat.params import CommonChatParams
    from vllmchat.chat.protocols import AsyncProvider, SyncProvider
    from vllmchat.tools.flow import Action, Answer, OnToolError, RunFlow, Step, ToolResult, ToolRun


def run_tools(
    provider: SyncProvider,
    messages: Messages,
    *,
    model: str | None = None,
    max_turns: int = MAX_TURNS,
    on_tool_error: OnToolError | None = None,
    **params: Unpack[CommonChatParams],
) -> ToolRun:
    """Sends a conversation and calls the functions that the model requests, until it replies without a call.

    Errors in calls are sent to the model, which usually tries again: a function that raises, invalid arguments, an
    unknown tool, a truncated call. A truncated call is never executed. A `tool_choice` other than `"none"` applies
    only to the first reply.

    Args:
        provider: Any provider.
        messages: The conversation so far; a string is one user message. If it ends with tool calls, they are executed
            first.
        model: The model for all replies.
        max_turns: Maximum number of replies.
        on_tool_error: Called with the call and the exception if a function raises. Text that it returns is sent to the
            model instead of the error; an exception that it raises ends the run.
        **params: Those of `chat`, for each reply. `tools` are the functions; see `Tool`.

    Raises:
        InvalidRequestError: A tool is not a function, a function is async, or a parameter is invalid.
        MaxTurnsError: After `max_turns` replies, the model still calls tools. The error has the history.
        VLLMChatError: A reply failed; see `VLLMProvider.chat`.
    """
    params = hide_secrets(params)
    return drive(provider, Run(messages, model, max_turns, on_tool_error, params))


async def arun_tools(
    provider: AsyncProvider,
    messages: Messages,
    *,
    model: str | None = None,
    max_turns: int = MAX_TURNS,
    on_tool_error: OnToolError | None = None,
    **params: Unpack[CommonChatParams],
) -> ToolRun:
    """Async version of `run_tools`.

    The calls of one reply run concurrently: async functions on the event loop, sync functions in worker threads.
    Cancelling the run cancels async functions and waits for functions in threads.
    """
    params = hide_secrets(params)
    return await adrive(provider, Run(messages, model, max_turns, on_tool_error, params))


class Run:
    """Drives a flow.

    Args:
        messages: The conversation so far.
        model: The model for all replies.
        max_turns: Maximum number of replies.
        on_tool_error: Called if a function raises.
        params: The parameters of each reply.

    Raises:
        InvalidRequestError: An argument is invalid.

    Attributes:
        model: The model for all replies.
        history: The conversation so far.
        step: The current step; None before the first and after the last one.
        reported: The results of tools that were not yielded yet, for streams.
    """

    def __init__(
        self,
        messages: Messages,
        model: str | None,
        max_turns: int,
        on_tool_error: OnToolError | None,
        params: Mapping[str, object],
    ) -> None:
        check_run(max_turns, params)
        self.model = model
        self._tools = Toolbox(params.get("tools"))
        self._on_tool_error = on_tool_error
        self.history: list[Message | ChatMessage] = history_of(messages)
        self._given = len(self.history)
        sent = {**params, "tools": self._tools.definitions}
        self._first = cast("CommonChatParams", first_turn_params(sent))
        self._later = cast("CommonChatParams", later_turn_params(sent))
        self._flow: RunFlow = run_flow(
            self.history, self._tools, max_turns=max_turns, on_tool_error=on_tool_error
        )
        self._result: ToolRun | None = None
        self.step: Step | None = None
        self.reported: deque[ToolResult] = deque()

    def check_sync(self) -> None:
        """Checks that neither the functions nor the hook are async.

        Raises:
            InvalidRequestError: One of them is.
        """
        self._tools.check_blocking(self._on_tool_error)

    def advance(self, answer: Answer = None) -> Step | None:
        """Sends the result of the last step, if there is one, and returns the next step, or None at the end."""
        try:
            self.step = self._flow.send(answer)
        except StopIteration as stop:
            self._result, self.step = stop.value, None
        if isinstance(self.step, Report):
            self.reported.extend(self.step.results)
        return self.step

    @contextmanager
    def keep_history(self) -> Generator[None]:
        """Attaches the history to errors, also to those of the caller's own functions."""
        try:
            yield
        except VLLMChatError as error:
            error.messages = list(self.history)
            raise
        except Exception as error:
            with suppress(Exception):  # some classes do not allow it
                vars(error).setdefault("messages", list(self.history))
            raise

    def params(self, step: Request) -> CommonChatParams:
        """Returns the parameters of a request."""
        return self._first if step.first else self._later

    def close(self) -> None:
        """Ends the flow."""
        self._flow.close()
        self.reported.clear()

    def markdown(self, name: str, growing: ChatCompletion | None, *, closed: bool) -> str:
        """Returns what a notebook shows of a stream: the replies and results so far, and the state.

        Args:
            name: The stream's name.
            growing: The reply that is arriving.
            closed: Whether the stream was closed.
        """
        blocks: list[str | None] = []
        for message in self.history[self._given :]:
            if isinstance(message, ChatMessage):
                blocks.append(markdown.reply(message.content, message.reasoning, message.tool_calls))
            elif message["role"] == "tool":
                blocks.append(markdown.code(text_of_parts(message["content"])))
        if growing is not None:
            blocks.append(markdown.shown(growing))
        state = "complete" if self._result is not None else "closed before its end" if closed else "open"
        return markdown.joined([*blocks, f"*{name}: {state}*"]) or ""

    @property
    def result(self) -> ToolRun:
        """The result of the run.

        Raises:
            StreamError: The run has not ended with a reply.
        """
        if self._result is None:
            raise StreamError("this run was closed or failed before it was complete")
        return self._result


def drive(provider: SyncProvider, run: Run) -> ToolRun:
    """Does the steps of a run (sync)."""
    run.check_sync()
    with run.keep_history():
        step = run.advance()
        while step is not None:
            if isinstance(step, Request):
                step = run.advance(provider.chat(step.messages, model=run.model, **run.params(step)))
            else:
                step = run.advance(call_all(step.actions) if isinstance(step, Execute) else None)
    return run.result


async def adrive(provider: AsyncProvider, run: Run) -> ToolRun:
    """Does the steps of a run (async)."""
    with run.keep_history():
        step = run.advance()
        while step is not None:
            if isinstance(step, Request):
                step = run.advance(await provider.achat(step.messages, model=run.model, **run.params(step)))
            else:
                step = run.advance(await acall_all(step.actions) if isinstance(step, Execute) else None)
    return run.result


# Calling functions


def call_all(actions: Sequence[Action]) -> list[Outcome]:
    """Calls functions, one after the other."""
    return [_call(action) for action in actions]


def _call(action: Action) -> Outcome:
    try:
        value = action.run()
    except Exception as error:  # any error is sent to the model
        return Outcome(error=error)
    if inspect.isawaitable(value):
        if inspect.iscoroutine(value):
            value.close()
        raise TypeError(
            "a tool or on_tool_error returned an awaitable, which a sync run cannot await; call arun_tools"
        )
    return Outcome(value)


async def acall_all(actions: Sequence[Action]) -> list[Outcome]:
    """Calls functions, all at once."""
    if len(actions) == 1:
        return [await _acall(actions[0])]
    outcomes: dict[int, Outcome] = {}

    async def call(place: int, action: Action) -> None:
        outcomes[place] = await _acall(action)

    async with anyio.create_task_group() as group:
        for place, action in enumerate(actions):
            group.start_soon(call, place, action)
    return [outcomes[place] for place in range(len(actions))]


async def _acall(action: Action) -> Outcome:
    try:
        if action.is_async:
            value = action.run()
        else:
            # A sync function may block, so it must not run on the event loop. Its result is wrapped in a tuple,
            # because trio raises if a thread returns a coroutine.
            (value,) = await anyio.to_thread.run_sync(lambda: (action.run(),))
        return Outcome(await cast("Awaitable[object]", value) if inspect.isawaitable(value) else value)
    except Exception as error:  # any error is sent to the model
        return Outcome(error=error)
