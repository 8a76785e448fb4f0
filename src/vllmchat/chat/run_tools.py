"""Conversations with tools, run to their answer: what to do next, decided without doing it.

`run_flow` is a generator. It yields what to do and is sent what came of it; those who drive it (in
`providers/run_tools.py`) block, await or stream.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from pydantic import ValidationError

from vllmchat.chat.completion import ChatMessage, ToolCall, Usage
from vllmchat.chat.events import Event
from vllmchat.chat.messages import encode_messages, tool_message
from vllmchat.chat.tools import Tool, as_tool, text_of
from vllmchat.checking.words import as_list, as_mapping, kind_of, show
from vllmchat.errors import InvalidRequestError, MaxTurnsError, Problem, ResponseError
from vllmchat.wire import build

if TYPE_CHECKING:
    from vllmchat.chat.completion import ChatCompletion
    from vllmchat.chat.messages import Message, Messages, ToolMessage

OnToolError: TypeAlias = "Callable[[ToolCall, Exception], str | Awaitable[str | None] | None]"
"""Called when a tool has raised: with the call and the exception. A text that it returns is told to the model in place
of the usual one; what it raises ends the run. It may be asynchronous where the run is."""

_AWAITING: Final = "Call arun_tools or astream_run_tools."

MAX_TURNS: Final = 10
"""How many replies a run may take, unless it says otherwise."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What came of one tool call.

    Attributes:
        call: The call.
        content: What the model is told.
        value: What the function returned; None where there is an `error`.
        error: Why there is no value: what the function raised; pydantic's `ValidationError` or another `ValueError`
            for arguments that do not fit; a `LookupError` for a tool that there is not; a `ResponseError` for a call
            that was cut or is no JSON. Only in the first case it was executed.
    """

    call: ToolCall
    content: str
    value: object = None
    error: Exception | None = None

    @property
    def message(self) -> ToolMessage:
        """The message that tells the model."""
        return tool_message(self.call, self.content)


RunEvent: TypeAlias = Event | ToolResult
"""What a streamed run yields: the events of each reply, and what came of its tool calls."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One reply of a run, and what came of its tool calls.

    Attributes:
        completion: The reply.
        results: What came of its calls, in their order; none for the answer.
    """

    completion: ChatCompletion
    results: tuple[ToolResult, ...] = ()

    @property
    def usage(self) -> Usage | None:
        """How many tokens the reply took."""
        return self.completion.usage


@dataclass(frozen=True, slots=True)
class ToolRun:
    """A conversation with tools that came to its answer.

    Attributes:
        turns: The replies in their order; the last one is the answer.
        messages: The whole history, from the messages given to the answer: to go on with.
        results: What came of all tool calls, in their order, also of those that the messages given ended with.
    """

    turns: tuple[Turn, ...]
    messages: list[Message | ChatMessage]
    results: tuple[ToolResult, ...] = ()

    @property
    def completion(self) -> ChatCompletion:
        """The answer."""
        return self.turns[-1].completion

    @property
    def text(self) -> str:
        """The answer's text."""
        return self.completion.text

    @property
    def usage(self) -> Usage | None:
        """How many tokens all replies took together; None when one of them does not tell."""
        usages = [turn.usage for turn in self.turns]
        if not all(usages):
            return None
        told = cast("list[Usage]", usages)
        return Usage(
            prompt_tokens=sum(usage.prompt_tokens for usage in told),
            completion_tokens=sum(usage.completion_tokens for usage in told),
            total_tokens=sum(usage.total_tokens for usage in told),
        )


# Steps


@dataclass(frozen=True, slots=True)
class Ask:
    """Send the conversation; sent the reply.

    Attributes:
        messages: The conversation.
        first: Whether nothing has been asked yet in this run.
    """

    messages: list[Message | ChatMessage]
    first: bool


@dataclass(frozen=True, slots=True)
class Action:
    """One function to call.

    Attributes:
        run: Calls it, without arguments.
        is_async: Whether it is known to be asynchronous.
    """

    run: Callable[[], object]
    is_async: bool


@dataclass(frozen=True, slots=True)
class Execute:
    """Call functions; sent what came of each, in the same order."""

    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a function."""

    value: object = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Tell:
    """Let the caller know of results; sent nothing."""

    results: tuple[ToolResult, ...]


Step: TypeAlias = Ask | Execute | Tell
Answer: TypeAlias = "ChatCompletion | Sequence[Outcome] | None"
RunFlow: TypeAlias = Generator[Step, Answer, ToolRun]


class Toolbox:
    """The functions that a run can call.

    Args:
        tools: The `tools` of the call.

    Raises:
        InvalidRequestError: There are none, or one of them has no function or another one's name.

    Attributes:
        definitions: The tools as they are sent.
        by_name: The tools.
    """

    __slots__ = ("by_name", "definitions")

    def __init__(self, tools: object) -> None:
        items = as_list(tools)
        if not items:
            rule = "is required." if tools is None or items is not None else "must be a list of functions."
            raise InvalidRequestError([Problem("tools", "", rule, "Write tools=[function, ...].")])
        self.by_name: dict[str, Tool] = {}
        problems: list[Problem] = []
        for place, item in enumerate(items):
            path = f"tools[{place}]"
            if as_mapping(item) is not None or not callable(item):
                what = "a mapping" if as_mapping(item) is not None else kind_of(item)
                rule = f"has no function to call: it is {what}."
                problems.append(Problem(path, "", rule, "Write Tool(function, name=..., parameters=...)."))
                continue
            try:
                tool = as_tool(item)
            except InvalidRequestError as error:
                problems += [Problem(path, each.value, each.rule, each.suggestion) for each in error.problems]
                continue
            if tool.name in self.by_name:
                rule = f"has the name of another tool: {tool.name}."
                problems.append(Problem(path, "", rule, 'Write Tool(function, name="...").'))
            self.by_name[tool.name] = tool
        if problems:
            raise InvalidRequestError(problems)
        self.definitions = [tool.definition for tool in self.by_name.values()]

    def check_blocking(self, on_tool_error: OnToolError | None) -> None:
        """Check that no function must be awaited, nor the hook.

        Raises:
            InvalidRequestError: One must.
        """
        problems: list[Problem] = []
        names = [tool.name for tool in self.by_name.values() if tool.is_async]
        if names:
            rule = f"holds asynchronous functions, which a blocking run cannot await: {', '.join(names)}."
            problems.append(Problem("tools", "", rule, _AWAITING))
        if inspect.iscoroutinefunction(on_tool_error):
            rule = "is asynchronous, which a blocking run cannot await."
            problems.append(Problem("on_tool_error", "", rule, _AWAITING))
        if problems:
            raise InvalidRequestError(problems)


def check_run(max_turns: object, params: Mapping[str, object]) -> None:
    """Check what a run can be called with.

    Raises:
        InvalidRequestError: It cannot.
    """
    problems: list[Problem] = []
    if isinstance(max_turns, bool) or not isinstance(max_turns, int) or max_turns < 1:
        problems.append(Problem("max_turns", show(max_turns), "must be at least 1."))
    n = params.get("n")
    if n is not None and n != 1:
        problems.append(Problem("n", show(n), "must be 1 where the conversation goes on with the reply."))
    if problems:
        raise InvalidRequestError(problems)


def first(params: Mapping[str, object]) -> dict[str, object]:
    """The parameters of the first reply.

    Where a call is forced, what the answer must look like is left out: a call is no answer, and vLLM drops it anyway.
    """
    choice = params.get("tool_choice")
    forced = choice is not None and choice not in ("none", "auto")
    return {
        name: value
        for name, value in params.items()
        if not (forced and name in ("response_format", "structured_outputs"))
    }


def later(params: Mapping[str, object]) -> dict[str, object]:
    """The parameters of all replies but the first.

    A `tool_choice` that asks for a call is left out: it would be asked for forever.
    """
    return {name: value for name, value in params.items() if name != "tool_choice" or value == "none"}


def history_of(messages: Messages) -> list[Message | ChatMessage]:
    """A list of the messages, to which a run adds its own.

    Raises:
        InvalidRequestError: They are no conversation.
    """
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    encode_messages(messages)
    return list(messages)


def run_flow(
    history: list[Message | ChatMessage],
    tools: Toolbox,
    *,
    max_turns: int = MAX_TURNS,
    on_tool_error: OnToolError | None = None,
) -> RunFlow:
    """Runs a conversation until the model answers.

    Args:
        history: The conversation; what is said is added to it. If it ends with calls that nobody has executed, these
            are executed first.
        tools: The functions.
        max_turns: How many replies it may take.
        on_tool_error: Called when a function has raised.

    Raises:
        MaxTurnsError: The last reply that it may take still calls tools.
    """
    turns: list[Turn] = []
    results: list[ToolResult] = []
    message = _last_reply(history)
    if message is not None:
        results += yield from _execute(message, history, tools, on_tool_error)
    while True:
        completion = yield Ask(list(history), first=not turns)
        assert completion is not None
        assert not isinstance(completion, Sequence)
        message = _named(completion.message, len(history))
        history.append(message)
        turns.append(Turn(completion))
        if not message.tool_calls:
            return ToolRun(tuple(turns), history, tuple(results))
        if len(turns) >= max_turns:
            raise _too_many(max_turns, history, turns)
        came = yield from _execute(message, history, tools, on_tool_error)
        turns[-1] = Turn(completion, came)
        results += came


def _too_many(
    max_turns: int, history: Sequence[Message | ChatMessage], turns: Sequence[Turn]
) -> MaxTurnsError:
    completions = [turn.completion for turn in turns]
    names = ", ".join(call.name for call in completions[-1].tool_calls)
    cut = sum(not call.complete for each in completions for call in each.tool_calls)
    message = f"after {max_turns} turns the model still calls tools ({names}): there is no answer."
    if cut:
        message += f" Of all calls {cut} came cut or without valid JSON: max_tokens may be too small."
    message += " Give max_turns more, or run on with .messages."
    return MaxTurnsError(message, max_turns=max_turns, messages=history, completions=completions)


# Calls


def _execute(
    message: ChatMessage,
    history: list[Message | ChatMessage],
    tools: Toolbox,
    on_tool_error: OnToolError | None,
) -> Generator[Step, Answer, tuple[ToolResult, ...]]:
    """Executes the calls of the last message and tells the model what came of them."""
    calls = message.tool_calls
    history[-1] = _sendable(message)
    prepared = [_prepare(call, tools) for call in calls]
    actions = tuple(each for each in prepared if isinstance(each, Action))
    outcomes: Sequence[Outcome] = ()
    if actions:
        answer = yield Execute(actions)
        assert isinstance(answer, Sequence)
        outcomes = answer
    came = iter(outcomes)
    results: list[ToolResult] = []
    for call, each in zip(calls, prepared, strict=True):
        if isinstance(each, Action):
            results.append((yield from _result(call, next(came), on_tool_error)))
        else:
            results.append(each)
    history.extend(result.message for result in results)
    yield Tell(tuple(results))
    return tuple(results)


def _prepare(call: ToolCall, tools: Toolbox) -> Action | ToolResult:
    """The call of the function, or why there can be none."""
    defect = _defect(call)
    if defect is not None:
        content = f"Not executed: {defect}\nMake the call again, with a whole JSON object."
        return ToolResult(call, content, error=defect)
    tool = tools.by_name.get(call.name)
    if tool is None:
        content = f"There is no tool {call.name!r}. The tools: {', '.join(tools.by_name)}."
        return ToolResult(call, content, error=LookupError(content))
    try:
        return Action(tool.bind(call.arguments), tool.is_async)
    except ValidationError as error:
        content = f"Not executed: the arguments of {call.name} are wrong.\n{_problems(error)}"
        return ToolResult(call, content, error=error)
    except ValueError as error:
        content = f"Not executed: the arguments of {call.name} are wrong: {error}."
        return ToolResult(call, content, error=error)


def _problems(error: ValidationError) -> str:
    lines: list[str] = []
    for each in error.errors(include_url=False, include_context=False):
        path = ".".join(str(part) for part in each["loc"])
        given = "" if each["type"] == "missing" else f" (given: {show(each['input'])})"
        lines.append(f"- {path}: {each['msg']}{given}" if path else f"- {each['msg']}{given}")
    return "\n".join(lines)


def _result(
    call: ToolCall, outcome: Outcome, on_tool_error: OnToolError | None
) -> Generator[Step, Answer, ToolResult]:
    error = outcome.error
    if error is None:
        try:
            return ToolResult(call, text_of(outcome.value), outcome.value)
        except Exception as failure:  # the value has no text: the tool failed all the same
            error = failure
    said = None if on_tool_error is None else (yield from _said(on_tool_error, call, error))
    content = said if said is not None else f"The tool failed: {type(error).__name__}: {error}"
    return ToolResult(call, content, error=error)


def _said(hook: OnToolError, call: ToolCall, error: Exception) -> Generator[Step, Answer, str | None]:
    """What the hook would tell the model."""
    said: object = hook(call, error)
    if inspect.isawaitable(said):
        awaitable = said
        answer = yield Execute((Action(lambda: awaitable, is_async=True),))
        assert isinstance(answer, Sequence)
        [outcome] = answer
        if outcome.error is not None:
            raise outcome.error
        said = outcome.value
    if said is not None and not isinstance(said, str):
        raise TypeError(f"on_tool_error must return a str or None, not {type(said).__name__}")
    return said


# What goes into the history


def _last_reply(history: Sequence[Message | ChatMessage]) -> ChatMessage | None:
    """The last message, if it calls tools."""
    if not history:
        return None
    last = history[-1]
    if not isinstance(last, ChatMessage):
        if last.get("role") != "assistant" or not last.get("tool_calls"):
            return None
        build(ChatMessage)
        try:
            last = ChatMessage.model_validate(last)
        except ValidationError:
            return None  # the server will say what is wrong with it
    return _named(last, len(history)) if last.tool_calls else None


def _named(message: ChatMessage, place: int) -> ChatMessage:
    """The message with an id for each call: without one, a result has no call that it belongs to."""
    ids = [call.id for call in message.tool_calls]
    if len(set(ids)) == len(ids) and "" not in ids:
        return message
    calls = [
        call.model_copy(update={"id": f"call-{place}-{number}"})
        for number, call in enumerate(message.tool_calls)
    ]
    return message.model_copy(update={"tool_calls": calls})


def _sendable(message: ChatMessage) -> ChatMessage:
    """The message as any server takes it back: some refuse a history with arguments that are no JSON object."""
    if all(_defect(call) is None for call in message.tool_calls):
        return message
    calls = [call if _defect(call) is None else _without_arguments(call) for call in message.tool_calls]
    return message.model_copy(update={"tool_calls": calls})


def _defect(call: ToolCall) -> ResponseError | None:
    """Why a call cannot be made, if it was cut or its arguments are no JSON object."""
    try:
        call.parse()
    except ResponseError as error:
        return error
    return None


def _without_arguments(call: ToolCall) -> ToolCall:
    return call.model_copy(update={"function": call.function.model_copy(update={"arguments": "{}"})})
