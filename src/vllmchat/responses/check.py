"""What a request for a response may hold."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from vllmchat.chat.check import CONSTRAINT_CONVERT, VLLM_CHAT_NAMES
from vllmchat.chat.templating import TEMPLATE_RULES, convert_tools, fold_template
from vllmchat.checking.dialect import Dialect
from vllmchat.checking.words import as_list, as_mapping, show, suggest
from vllmchat.errors import Problem
from vllmchat.responses.params import ResponseParams

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from vllmchat.checking.dialect import CheckedParams

NAMES: Final = ResponseParams.__required_keys__ | ResponseParams.__optional_keys__
"""The names of all parameters."""

_LOGPROBS: Final = "message.output_text.logprobs"


def check_respond(params: Mapping[str, object], *, stream: bool) -> CheckedParams:
    """Check the parameters of a call.

    Raises:
        InvalidRequestError: With every problem found.
    """
    return _DIALECT.check(params, stream=stream)


_RENDERING: Final = (
    "is read by the server where it renders alone, and there is no verb that renders a response."
)
_RENDER: Final = "Leave it out, or call .render(...) for a chat."

_PLACES: Final[dict[str, tuple[str, str]]] = {
    "stream": ("is not a parameter: the verb decides.", "Call .stream_respond(...) for a stream."),
    "messages": (
        "is not a parameter: what the model reads is the first argument of the verb.",
        "Write respond(input).",
    ),
    "max_tokens": ("is not what this parameter is called here.", "Write `max_output_tokens={value}`."),
    "max_completion_tokens": (
        "is not what this parameter is called here.",
        "Write `max_output_tokens={value}`.",
    ),
    "reasoning_effort": (
        "is not what this parameter is called here.",
        'Write reasoning={{"effort": {value}}}.',
    ),
    "response_format": ("is not what this parameter is called here.", 'Write text={{"format": ...}}.'),
    "logprobs": ("is not what this parameter is called here.", f'Write include=["{_LOGPROBS}"].'),
    "stream_options": (
        "is a parameter of chats: here the last event always tells the usage.",
        "Leave it out.",
    ),
    "background": (
        "would give a response that is not finished, and there is no verb to fetch it.",
        "Leave it out.",
    ),
    "prompt": ("is a stored prompt of OpenAI's own server; vLLM refuses it.", "Leave it out."),
    "service_tier": ("is a parameter of OpenAI's own server; vLLM ignores it.", "Leave it out."),
    "prompt_cache_key": ("is a parameter of OpenAI's own server; vLLM ignores it.", "Leave it out."),
    "mm_payload": (_RENDERING, _RENDER),
    "return_mm_kwargs": (_RENDERING, _RENDER),
    "conversation": (
        "is a parameter of OpenAI's own server; vLLM ignores it.",
        "Send what was said as input.",
    ),
}


def _unknown(name: str, value: object) -> Problem:
    shown = show(value)
    if name in _PLACES:
        rule, hint = _PLACES[name]
        return Problem(name, shown, rule, hint.format(value=shown))
    if name in VLLM_CHAT_NAMES:
        rule = "is a parameter of chats; vLLM ignores it in responses without a word."
        return Problem(name, shown, rule, "Call .chat(...), or leave it out.")
    meant = suggest(name, NAMES)
    hint = (
        f"Did you mean `{meant}`?"
        if meant
        else f'If this server knows it, write extra_body={{"{name}": ...}}.'
    )
    return Problem(name, shown, "is not a parameter of VLLMProvider.respond.", hint)


def _with_hint(problem: Problem, name: str, value: object) -> Problem:
    if name == "cache_salt":
        return replace(problem, value="")  # who knows another's salt can time its cache
    if name == "tools" and problem.parameter.endswith((".function", ".name")) and _is_chats(value):
        hint = 'Write {"type": "function", "name": ..., "parameters": ...}, without "function" around it.'
        return replace(problem, suggestion=hint)
    return problem


def _is_chats(tools: object) -> bool:
    return any("function" in (as_mapping(tool) or {}) for tool in as_list(tools) or ())


def _convert_tools(value: object, path: str) -> tuple[object, Sequence[Problem]]:
    """Functions of Python as tools in the form of responses."""
    given = cast("Sequence[object]", value)
    sent, problems = convert_tools(value, path)
    if sent is value or problems:
        return sent, problems
    tools = cast("Sequence[object]", sent)
    return [tool if tool is old else _flat(tool) for tool, old in zip(tools, given, strict=True)], ()


def _flat(tool: object) -> dict[str, object]:
    definition = cast("Mapping[str, Mapping[str, object]]", tool)
    return {"type": "function", **definition["function"]}


# Rules between parameters, each under the name that calls for it. They see only values that are right alone.


def _structured_outputs(
    fields: Mapping[str, object], stream: bool, wrong: frozenset[str]
) -> Iterable[Problem]:
    if cast("Mapping[str, object]", fields.get("text", {})).get("format") is not None:
        shown = show(fields["structured_outputs"])
        rule = 'does not go with text={"format": ...}: both say what the reply is like.'
        yield Problem("structured_outputs", shown, rule, "Keep one of the two.")


def _top_logprobs(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    included = cast("Sequence[str]", fields.get("include", ()))
    if fields["top_logprobs"] != 0 and _LOGPROBS not in included and "include" not in wrong:
        yield Problem("top_logprobs", show(fields["top_logprobs"]), f'needs include=["{_LOGPROBS}"].')


def _tool_choice(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    choice = fields["tool_choice"]
    if choice in ("none", "auto") or "tools" in wrong:
        return
    if "tools" not in fields:
        yield Problem("tool_choice", show(choice), "needs `tools`.")
        return
    named = as_mapping(choice)
    if named is not None:
        name = named["name"]
        tools = cast("Sequence[Mapping[str, object]]", fields["tools"])
        names = [str(tool["name"]) for tool in tools if "name" in tool]
        if name not in names:
            hint = f"The tools: {', '.join(names)}." if names else None
            yield Problem("tool_choice", show(choice), "must name one of the `tools`.", hint)


def _previous(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    if "previous_response_id" in fields:
        shown = show(fields["previous_input_messages"])
        yield Problem("previous_input_messages", shown, "does not go with `previous_response_id`.")


def _as_sent(fields: dict[str, object]) -> None:
    """The checked fields in the form that the server takes."""
    fold_template(fields)
    if "logit_bias" in fields:
        biases = cast("Mapping[object, object]", fields["logit_bias"])
        fields["logit_bias"] = {str(token): bias for token, bias in biases.items()}


_DIALECT: Final = Dialect(
    "VLLMProvider.respond",
    ResponseParams,
    {
        **{name: TEMPLATE_RULES[name] for name in ("chat_template_kwargs", "enable_thinking")},
        "structured_outputs": _structured_outputs,
        "top_logprobs": _top_logprobs,
        "tool_choice": _tool_choice,
        "previous_input_messages": _previous,
    },
    unknown=_unknown,
    hint=_with_hint,
    finish=_as_sent,
    convert={"tools": _convert_tools, "structured_outputs": CONSTRAINT_CONVERT["structured_outputs"]},
)
