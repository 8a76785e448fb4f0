"""Validates the parameters of `respond`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from vllmchat.chat.templating import TEMPLATE_RULES, convert_tools, fold_template
from vllmchat.checking.describe import as_list, as_mapping, format_value
from vllmchat.checking.validator import Validator
from vllmchat.errors import Problem
from vllmchat.responses.params import OpenAIResponseParams, ResponseParams
from vllmchat.sampling.rules import CONSTRAINT_CONVERT, text_keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from vllmchat.checking.validator import Explanation

_LOGPROBS: Final = "message.output_text.logprobs"


_RENDERING: Final = "has an effect only when rendering, and responses cannot be rendered."
_RENDER: Final = "Leave it out, or call .render(...) for a chat."
_OTHER_NAME: Final = "has a different name here."

_OWN: Final[dict[str, Explanation]] = {
    "messages": ("is not a parameter: the input is the first argument.", "Write respond(input)."),
    "max_tokens": (_OTHER_NAME, "Write `max_output_tokens={value}`."),
    "max_completion_tokens": (_OTHER_NAME, "Write `max_output_tokens={value}`."),
    "reasoning_effort": (_OTHER_NAME, 'Write reasoning={{"effort": {value}}}.'),
    "response_format": (_OTHER_NAME, 'Write text={{"format": ...}}.'),
    "logprobs": (_OTHER_NAME, f'Write include=["{_LOGPROBS}"].'),
    "stream_options": (
        "is a parameter of chats: here the last event always has the usage.",
        "Leave it out.",
    ),
    "system": (_OTHER_NAME, "Write `instructions={value}`."),
    "system_prompt": (_OTHER_NAME, "Write `instructions={value}`."),
    "background": (
        "is not supported: it returns a response that is not complete, and no method fetches the rest.",
        "Leave it out.",
    ),
    "prompt": ("is a stored prompt of OpenAI's own server; vLLM rejects it.", "Leave it out."),
    "service_tier": ("is a parameter of OpenAI's own server; vLLM ignores it.", "Leave it out."),
    "mm_payload": (_RENDERING, _RENDER),
    "return_mm_kwargs": (_RENDERING, _RENDER),
    "conversation": (
        "is a parameter of OpenAI's own server; vLLM ignores it.",
        "Send the earlier items as input.",
    ),
}


def _with_hint(problem: Problem, name: str, value: object) -> Problem:
    if name == "tools" and problem.parameter.endswith((".function", ".name")) and _is_chats(value):
        hint = 'Write {"type": "function", "name": ..., "parameters": ...}, without a nested "function".'
        return replace(problem, suggestion=hint)
    return problem


def _is_chats(tools: object) -> bool:
    return any("function" in (as_mapping(tool) or {}) for tool in as_list(tools) or ())


def _convert_tools(value: object, path: str) -> tuple[object, Sequence[Problem]]:
    """Converts Python functions to tools in the form of the Responses API."""
    originals = cast("Sequence[object]", value)
    sent, problems = convert_tools(value, path)
    if sent is value or problems:
        return sent, problems
    tools = cast("Sequence[object]", sent)
    return [tool if tool is old else _flat(tool) for tool, old in zip(tools, originals, strict=True)], ()


def _flat(tool: object) -> dict[str, object]:
    definition = cast("Mapping[str, Mapping[str, object]]", tool)
    return {"type": "function", **definition["function"]}


# Rules across parameters, keyed by the parameter that triggers them. They only see values that are valid by themselves.


def _structured_outputs(
    fields: Mapping[str, object], stream: bool, wrong: frozenset[str]
) -> Iterable[Problem]:
    if cast("Mapping[str, object]", fields.get("text", {})).get("format") is not None:
        shown = format_value(fields["structured_outputs"])
        rule = 'cannot be combined with text={"format": ...}: both constrain the reply.'
        yield Problem("structured_outputs", shown, rule, "Keep one of them.")


def _top_logprobs(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    included = cast("Sequence[str]", fields.get("include", ()))
    if fields["top_logprobs"] != 0 and _LOGPROBS not in included and "include" not in wrong:
        yield Problem("top_logprobs", format_value(fields["top_logprobs"]), f'needs include=["{_LOGPROBS}"].')


def _tool_choice(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    choice = fields["tool_choice"]
    if choice in ("none", "auto") or "tools" in wrong:
        return
    if "tools" not in fields:
        yield Problem("tool_choice", format_value(choice), "needs `tools`.")
        return
    named = as_mapping(choice)
    if named is not None:
        name = named["name"]
        tools = cast("Sequence[Mapping[str, object]]", fields["tools"])
        names = [str(tool["name"]) for tool in tools if "name" in tool]
        if name not in names:
            hint = f"The tools are: {', '.join(names)}." if names else None
            yield Problem("tool_choice", format_value(choice), "must name one of the `tools`.", hint)


def _previous(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    if "previous_response_id" in fields:
        shown = format_value(fields["previous_input_messages"])
        yield Problem("previous_input_messages", shown, "cannot be combined with `previous_response_id`.")


def _as_sent(fields: dict[str, object]) -> None:
    """Converts the validated fields, in place, to what the server accepts."""
    fold_template(fields)
    text_keys(fields)


_OF_VLLM: Final = frozenset({"prompt", "service_tier", "mm_payload", "return_mm_kwargs", "conversation"})
"""Names that OpenAI's own server has, or only vLLM."""

check_openai_respond: Final = Validator(
    "OpenAIProvider.respond",
    OpenAIResponseParams,
    {"top_logprobs": _top_logprobs, "tool_choice": _tool_choice},
    own={name: each for name, each in _OWN.items() if name not in _OF_VLLM},
    chats=("is a parameter of chats, not of responses.", "Call .chat(...), or leave it out."),
    other=ResponseParams,
    hint=_with_hint,
    finish=text_keys,
    convert={"tools": _convert_tools},
).check
"""Validates the parameters of a response from any OpenAI-compatible server."""

check_respond: Final = Validator(
    "VLLMProvider.respond",
    ResponseParams,
    {
        **{name: TEMPLATE_RULES[name] for name in ("chat_template_kwargs", "enable_thinking")},
        "structured_outputs": _structured_outputs,
        "top_logprobs": _top_logprobs,
        "tool_choice": _tool_choice,
        "previous_input_messages": _previous,
    },
    own=_OWN,
    chats=(
        "is a parameter of chats; in responses, vLLM silently ignores it.",
        "Call .chat(...), or leave it out.",
    ),
    hint=_with_hint,
    finish=_as_sent,
    convert={"tools": _convert_tools, "structured_outputs": CONSTRAINT_CONVERT["structured_outputs"]},
).check
"""Validates the parameters of a response."""
