"""The logic of tool runs, without I/O.

`run_flow` is a generator that yields the next step and is sent its result. Sync, async and streaming drivers are in
`tools/run.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

from pydantic import ValidationError

from vllmchat.chat.completion import ChatMessage, ToolCall
from vllmchat.chat.events import Event
from vllmchat.chat.limits import CallLimits
from vllmchat.chat.messages import encode_messages, tool_message
from vllmchat.checking.describe import as_list, as_mapping, format_value, type_name
from vllmchat.errors import InvalidRequestError, MaxTurnsError, Problem, ResponseError
from vllmchat.schemas.functions import Tool, as_tool, text_of
from vllmchat.wire import markdown
from vllmchat.wire.decode import ensure_built
from vllmchat.wire.lenient import mend_json, without_halves
from vllmchat.wire.usage import Usage, calls_tools, is_unknown

if TYPE_CHECKING:
    from vllmchat.chat.completion import ChatCompletion
    from vllmchat.chat.messages import Message, Messages, ToolMessage

T = TypeVar("T")

OnToolError: TypeAlias = "Callable[[ToolCall, Exception], str | Awaitable[str | None] | None]"
"""Called with the call and the exception if a tool raises. Text that it returns is sent to the model instead of the
error; an exception that it raises ends the run. It may be async if the run is."""

_AWAITING: Final = "Call arun_tools or astream_run_tools."

MAX_TURNS: Final = 10
"""Default maximum number of replies in a run."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The result of a tool call.

    Attributes:
        call: The call.
        content: The text sent to the model.
        value: What the function returned; None if there is an `error`.
        error: What the function raised; or, if it was not executed, pydantic's `ValidationError` or another
            `ValueError` for invalid arguments, a `LookupError` for an unknown tool, a `ResponseError` for a call that
            was truncated or is not JSON.
    """

    call: ToolCall
    content: str
    value: object = None
    error: Exception | None = None

    @property
    def message(self) -> ToolMessage:
        """The message for the model."""
        return tool_message(self.call, self.content)


RunEvent: TypeAlias = Event | ToolResult
"""What a streamed run yields: the events of each reply, and the results of its tool calls."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One reply of a run, and the results of its tool calls.

    Attributes:
        completion: The reply.
        results: The results of its calls, in order; empty for the final reply.
    """

    completion: ChatCompletion
    results: tuple[ToolResult, ...] = ()

    @property
    def usage(self) -> Usage | None:
        """The token usage of the reply."""
        return self.completion.usage


@dataclass(frozen=True, slots=True)
class ToolRun:
    """The result of a tool run.

    Attributes:
        turns: The replies, in order; the last one is the final reply.
        messages: The whole history, including the given messages and the final reply, ready to continue from.
        results: The results of all tool calls, in order, including calls at the end of the given messages.
    """

    turns: tuple[Turn, ...]
    messages: list[Message | ChatMessage]
    results: tuple[ToolResult, ...] = ()

    @property
    def completion(self) -> ChatCompletion:
        """The final reply."""
        return self.turns[-1].completion

    @property
    def text(self) -> str:
        """The text of the final reply, without the line breaks around it."""
        return self.completion.text

    def _repr_markdown_(self) -> str | None:
        """What a notebook shows: the replies, and the results of their tool calls."""
        return markdown.joined(
            block
            for turn in self.turns
            for block in (
                markdown.shown(turn.completion),
                *(markdown.code(each.content) for each in turn.results),
            )
        )

    @property
    def usage(self) -> Usage | None:
        """The token usage of all replies together; None if a reply has no usage."""
        usages = [turn.usage for turn in self.turns if turn.usage is not None]
        return sum(usages, Usage()) if len(usages) == len(self.turns) else None


# Steps


@dataclass(frozen=True, slots=True)
class Request:
    """Send the conversation. The result is the reply.

    Attributes:
        messages: The conversation.
        first: Whether this is the first request of the run.
    """

    messages: list[Message | ChatMessage]
    first: bool

    def __iter__(self) -> Generator[Request, ChatCompletion, ChatCompletion]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class Action:
    """One function to call.

    Attributes:
        run: Calls the function; takes no arguments.
        is_async: Whether the function is known to be async.
    """

    run: Callable[[], object]
    is_async: bool


@dataclass(frozen=True, slots=True)
class Execute:
    """Call functions. The result is the outcome of each, in the same order."""

    actions: tuple[Action, ...]

    def __iter__(self) -> Generator[Execute, Sequence[Outcome], Sequence[Outcome]]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a function call."""

    value: object = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Report results to the caller. Nothing is sent back."""

    results: tuple[ToolResult, ...]

    def __iter__(self) -> Iterator[Report]:
        yield self


Step: TypeAlias = Request | Execute | Report
Answer: TypeAlias = "ChatCompletion | Sequence[Outcome] | None"
# Any, since each step declares the type of its own result.
_Steps: TypeAlias = Generator[Step, Any, T]
RunFlow: TypeAlias = _Steps[ToolRun]


class Toolbox:
    """The functions that a run can call.

    Args:
        tools: The `tools` of the call.

    Raises:
        InvalidRequestError: There are no tools, one of them is not a function, or two have the same name.

    Attributes:
        definitions: The tools as they are sent.
        by_name: The tools, by name.
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
                what = "a mapping" if as_mapping(item) is not None else type_name(item)
                rule = f"must be a function, not {what}."
                problems.append(Problem(path, "", rule, "Write Tool(function, name=..., parameters=...)."))
                continue
            try:
                tool = as_tool(item)
            except InvalidRequestError as error:
                problems += [Problem(path, each.value, each.rule, each.suggestion) for each in error.problems]
                continue
            if tool.name in self.by_name:
                rule = f"has the same name as another tool: {tool.name}."
                problems.append(Problem(path, "", rule, 'Write Tool(function, name="...").'))
            self.by_name[tool.name] = tool
        if problems:
            raise InvalidRequestError(problems)
        self.definitions = [tool.definition for tool in self.by_name.values()]

    def check_blocking(self, on_tool_error: OnToolError | None) -> None:
        """Checks that neither the functions nor the hook are async.

        Raises:
            InvalidRequestError: One of them is.
        """
        problems: list[Problem] = []
        names = [tool.name for tool in self.by_name.values() if tool.is_async]
        if names:
            rule = f"contains async functions, which a sync run cannot await: {', '.join(names)}."
            problems.append(Problem("tools", "", rule, _AWAITING))
        if inspect.iscoroutinefunction(on_tool_error):
            rule = "is async, which a sync run cannot await."
            problems.append(Problem("on_tool_error", "", rule, _AWAITING))
        if problems:
            raise InvalidRequestError(problems)


def check_run(max_turns: object, params: Mapping[str, object]) -> None:
    """Validates the arguments of a run.

    Raises:
        InvalidRequestError: An argument is invalid.
    """
    problems: list[Problem] = []
    if isinstance(max_turns, bool) or not isinstance(max_turns, int) or max_turns < 1:
        problems.append(Problem("max_turns", format_value(max_turns), "must be at least 1."))
    n = params.get("n")
    if n is not None and n != 1:
        problems.append(
            Problem("n", format_value(n), "must be 1: the conversation continues with one reply.")
        )
    if problems:
        raise InvalidRequestError(problems)


def first_turn_params(params: Mapping[str, object]) -> dict[str, object]:
    """Returns the parameters of the first reply.

    If a call is forced, constraints on the text are left out: they would conflict with `tool_choice`.
    """
    choice = params.get("tool_choice")
    forced = choice is not None and choice not in ("none", "auto")
    return {
        name: value
        for name, value in params.items()
        if not (forced and name in ("response_format", "structured_outputs"))
    }


def later_turn_params(params: Mapping[str, object]) -> dict[str, object]:
    """Returns the parameters of all replies after the first.

    A `tool_choice` other than `"none"` is left out: a forced call would repeat forever.
    """
    return {name: value for name, value in params.items() if name != "tool_choice" or value == "none"}


def history_of(messages: Messages) -> list[Message | ChatMessage]:
    """Returns a copy of the messages, to which a run adds its own.

    Raises:
        InvalidRequestError: The messages are not a conversation.
    """
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    encode_messages(messages)
    return cast("list[Message | ChatMessage]", list(messages))


def run_flow(
    history: list[Message | ChatMessage],
    tools: Toolbox,
    *,
    max_turns: int = MAX_TURNS,
    on_tool_error: OnToolError | None = None,
) -> RunFlow:
    """Runs a conversation until the model replies without a tool call.

    Args:
        history: The conversation; the run adds its messages. If it ends with tool calls, they are executed first.
        tools: The functions.
        max_turns: Maximum number of replies.
        on_tool_error: Called if a function raises.

    Raises:
        MaxTurnsError: After `max_turns` replies, the model still calls tools.
        ResponseError: A reply ended with tool calls, but has none.
    """
    turns: list[Turn] = []
    results: list[ToolResult] = []
    message = _last_reply(history, tools)
    if message is not None:
        results += yield from _execute(message, None, history, tools, on_tool_error)
    while True:
        completion = yield from Request(list(history), first=not turns)
        message = _with_ids(completion.message, len(history))
        history.append(message)
        turns.append(Turn(completion))
        if not message.tool_calls:
            if calls_tools(completion.finish_reason):
                raise _no_calls(completion)
            return ToolRun(tuple(turns), history, tuple(results))
        if len(turns) >= max_turns:
            raise _too_many(max_turns, history, turns)
        done = yield from _execute(message, completion.finish_reason, history, tools, on_tool_error)
        turns[-1] = Turn(completion, done)
        results += done


def _no_calls(completion: ChatCompletion) -> ResponseError:
    reason = completion.finish_reason
    return ResponseError(f"the reply has the finish reason {reason!r}, but no tool call", partial=completion)


def _too_many(
    max_turns: int, history: Sequence[Message | ChatMessage], turns: Sequence[Turn]
) -> MaxTurnsError:
    completions = [turn.completion for turn in turns]
    names = ", ".join(call.name for call in completions[-1].tool_calls)
    unusable = sum(not call.complete for each in completions for call in each.tool_calls)
    message = f"the model still calls tools ({names}) after {max_turns} turns. "
    if unusable:
        message += f"{unusable} of its calls were truncated or invalid: raise max_tokens, or continue from .messages."
    else:
        message += "Raise max_turns, or continue from .messages."
    return MaxTurnsError(message, max_turns=max_turns, messages=history, completions=completions)


# Calls


def _execute(
    message: ChatMessage,
    finish_reason: str | None,
    history: list[Message | ChatMessage],
    tools: Toolbox,
    on_tool_error: OnToolError | None,
) -> _Steps[tuple[ToolResult, ...]]:
    """Executes the calls of the last message and adds their results to the history."""
    calls = message.tool_calls
    history[-1] = _without_bad_arguments(message)
    prepared = [_prepare(call, finish_reason, tools) for call in calls]
    actions = tuple(each for each in prepared if isinstance(each, Action))
    outcomes: Sequence[Outcome] = ()
    if actions:
        outcomes = yield from Execute(actions)
    values = iter(outcomes)
    results: list[ToolResult] = []
    failure: Exception | None = None
    for call, each in zip(calls, prepared, strict=True):
        if not isinstance(each, Action):
            results.append(each)
            continue
        outcome = next(values)
        try:
            hook = on_tool_error if failure is None else None
            results.append((yield from _result(call, outcome, hook)))
        except Exception as error:
            # The history still gets all results, since the tools have run.
            failure = error
            results.append((yield from _result(call, outcome, None)))
    history.extend(result.message for result in results)
    if failure is not None:
        raise failure
    yield from Report(tuple(results))
    return tuple(results)


def _prepare(call: ToolCall, finish_reason: str | None, tools: Toolbox) -> Action | ToolResult:
    """Returns the function call to make, or the result if it cannot be made."""
    defect = _defect(call)
    if defect is None and is_unknown(finish_reason):
        defect = ResponseError(f"the reply broke off, with the finish reason {finish_reason!r}")
    if defect is not None:
        content = f"Not executed: {defect}\nRepeat the call with a complete JSON object."
        return ToolResult(call, content, error=defect)
    tool = tools.by_name.get(call.name)
    if tool is None:
        content = f"Unknown tool {call.name!r}. The available tools are: {', '.join(tools.by_name)}."
        return ToolResult(call, content, error=LookupError(content))
    try:
        return Action(tool.bind(mend_json(call.arguments)), tool.is_async)
    except ValidationError as error:
        content = f"Not executed: the arguments of {call.name} are invalid.\n{_problems(error)}"
        return ToolResult(call, content, error=error)
    except ValueError as error:
        content = f"Not executed: the arguments of {call.name} are invalid: {error}."
        return ToolResult(call, content, error=error)


def _problems(error: ValidationError) -> str:
    lines: list[str] = []
    for each in error.errors(include_url=False, include_context=False):
        path = ".".join(str(part) for part in each["loc"])
        shown = "" if each["type"] == "missing" else f" (given: {format_value(each['input'])})"
        lines.append(f"- {path}: {each['msg']}{shown}" if path else f"- {each['msg']}{shown}")
    return "\n".join(lines)


def _result(call: ToolCall, outcome: Outcome, on_tool_error: OnToolError | None) -> _Steps[ToolResult]:
    error = outcome.error
    if error is None:
        try:
            return ToolResult(call, without_halves(text_of(outcome.value)), outcome.value)
        except Exception as failure:  # the value cannot be serialized: that counts as a failure of the tool
            error = failure
    text = None if on_tool_error is None else (yield from _hook_text(on_tool_error, call, error))
    content = text if text is not None else f"The tool failed: {type(error).__name__}: {_message_of(error)}"
    return ToolResult(call, without_halves(content), error=error)


def _message_of(error: Exception) -> str:
    try:
        return str(error)
    except Exception:
        return "(its message cannot be shown)"


def _hook_text(hook: OnToolError, call: ToolCall, error: Exception) -> _Steps[str | None]:
    """Returns the hook's text for the model."""
    text: object = hook(call, error)
    if inspect.isawaitable(text):
        awaitable = text
        [outcome] = yield from Execute((Action(lambda: awaitable, is_async=True),))
        if outcome.error is not None:
            raise outcome.error
        text = outcome.value
    if text is not None and not isinstance(text, str):
        raise TypeError(f"on_tool_error must return a str or None, not {type(text).__name__}")
    return text


# What goes into the history


def _last_reply(history: Sequence[Message | ChatMessage], tools: Toolbox) -> ChatMessage | None:
    """Returns the last message, if it calls tools."""
    if not history:
        return None
    last = history[-1]
    if not isinstance(last, ChatMessage):
        if last.get("role") != "assistant" or not (last.get("tool_calls") or last.get("function_call")):
            return None
        ensure_built(ChatMessage)
        try:
            last = ChatMessage.model_validate(last)
        except ValidationError:
            return None  # the server will report what is wrong with it
        # Whether a stored call without arguments was truncated is unknown, unless its function takes none.
        CallLimits(tools=tools.definitions).mark_message(last)
    return _with_ids(last, len(history)) if last.tool_calls else None


def _with_ids(message: ChatMessage, place: int) -> ChatMessage:
    """Returns the message with a unique id for each call, which results refer to."""
    ids = [call.id for call in message.tool_calls]
    if len(set(ids)) == len(ids) and "" not in ids:
        return message
    calls = [
        call.model_copy(update={"id": f"call-{place}-{number}"})
        for number, call in enumerate(message.tool_calls)
    ]
    # A `function_call` cannot have an id: the message is sent as one with tool calls.
    return message.model_copy(update={"tool_calls": calls, "function_call": None})


def _without_bad_arguments(message: ChatMessage) -> ChatMessage:
    """Returns the message as all servers accept it: some reject a history with arguments that are not JSON objects."""
    if all(_defect(call) is None for call in message.tool_calls):
        return message
    calls = [call if _defect(call) is None else _without_arguments(call) for call in message.tool_calls]
    return message.model_copy(update={"tool_calls": calls})


def _defect(call: ToolCall) -> ResponseError | None:
    """Returns why a call cannot be made: it was truncated, or its arguments are not a JSON object."""
    try:
        call.parse()
    except ResponseError as error:
        return error
    return None


def _without_arguments(call: ToolCall) -> ToolCall:
    return call.model_copy(update={"function": call.function.model_copy(update={"arguments": "{}"})})
