"""Validates the parameters of a chat before anything is sent.

Rules for single values are part of the parameters (`params`); rules across parameters are here. They are the
server's own rules, so the server accepts the parameters of a valid request, except for what only it knows: the model's
vocabulary and context, and the options it was started with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, cast

from vllmchat.chat.params import ChatParams, VLLMChatParams
from vllmchat.chat.templating import TEMPLATE_RULES, convert_tools, fold_template
from vllmchat.checking.describe import as_mapping, show, suggest
from vllmchat.checking.rules import fields_of
from vllmchat.checking.validator import Between, CheckedParams, Convert, Dialect
from vllmchat.errors import Problem

__all__ = [
    "OPENAI_CHAT",
    "OPENAI_CHAT_NAMES",
    "VLLM_CHAT",
    "VLLM_CHAT_NAMES",
    "CheckedParams",
    "check_openai",
    "check_vllm",
    "suggest",
]

OPENAI_CHAT_NAMES: Final = ChatParams.__required_keys__ | ChatParams.__optional_keys__
"""The names of all chat parameters of `OpenAIProvider`."""

VLLM_CHAT_NAMES: Final = VLLMChatParams.__required_keys__ | VLLMChatParams.__optional_keys__
"""The names of all chat parameters of `VLLMProvider`."""


def check_openai(params: Mapping[str, object], *, stream: bool) -> CheckedParams:
    """Validates the parameters of a chat with any OpenAI-compatible server.

    Args:
        params: The keyword arguments of the call: `ChatParams`.
        stream: Whether the call streams.

    Raises:
        InvalidRequestError: With every problem found.
    """
    return OPENAI_CHAT.check(params, stream=stream)


def check_vllm(params: Mapping[str, object], *, stream: bool) -> CheckedParams:
    """Validates the parameters of a chat with a vLLM server, by vLLM's own rules.

    Args:
        params: The keyword arguments of the call: `VLLMChatParams`.
        stream: Whether the call streams.

    Raises:
        InvalidRequestError: With every problem found.
    """
    return VLLM_CHAT.check(params, stream=stream)


def _as_sent(fields: dict[str, object]) -> None:
    """Converts the validated fields, in place, to what the server accepts."""
    fold_template(fields)
    if "logit_bias" in fields:
        biases = cast("Mapping[object, object]", fields["logit_bias"])
        fields["logit_bias"] = {str(token): bias for token, bias in biases.items()}


def _unknown(provider: str, params: type, others: type) -> Callable[[str, object], Problem]:
    def problem(name: str, value: object) -> Problem:
        from vllmchat.chat.elsewhere import elsewhere  # needed only for invalid requests

        return elsewhere(name, value, provider=provider, known=fields_of(params), others=fields_of(others))

    return problem


def _with_hint(problem: Problem, name: str, value: object) -> Problem:
    """Adds what was probably meant, if the name and the value show it."""
    if name == "cache_salt":
        return replace(
            problem, value=""
        )  # a salt is a secret: it protects against timing attacks on the cache
    if problem.parameter != name:
        return problem
    hint = problem.suggestion
    if name == "logprobs" and isinstance(value, int):
        hint = f"Write logprobs=True, top_logprobs={value}."
    elif name == "tool_choice" and isinstance(value, str) and hint is None:
        hint = f'To name a tool, write {{"type": "function", "function": {{"name": "{value}"}}}}.'
    elif name == "response_format" and isinstance(value, str):
        hint = 'For any JSON object, write {"type": "json_object"}.'
    elif name == "timeout" and hasattr(value, "total_seconds"):
        hint = "Call .total_seconds() on it."
    return replace(problem, suggestion=hint)


# Rules across parameters, keyed by the parameter that triggers them. They only see values that are valid by themselves.


def _top_logprobs(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    if fields["top_logprobs"] != 0 and fields.get("logprobs") is not True and "logprobs" not in wrong:
        yield Problem("top_logprobs", show(fields["top_logprobs"]), "needs logprobs=True.")


def _tool_choice(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    choice = fields["tool_choice"]
    if choice == "none" or "tools" in wrong:
        return
    if "tools" not in fields:
        yield Problem("tool_choice", show(choice), "needs `tools`.")
        return
    name = _chosen(choice)
    if name is None:
        return
    names = [_tool_name(tool) for tool in cast("Sequence[Mapping[str, object]]", fields["tools"])]
    if name not in names:
        meant = suggest(name, names)
        hint = f'Did you mean "{meant}"?' if meant else f"The tools are: {', '.join(names)}."
        yield Problem("tool_choice", show(choice), "must name one of the `tools`.", hint)


def _chosen(choice: object) -> str | None:
    """Returns the name of the tool that must be called, if one is named."""
    if not isinstance(choice, Mapping):
        return None
    named = cast("Mapping[str, object]", choice)
    return _tool_name(named) if named["type"] in ("function", "custom") else None


def _forced(fields: Mapping[str, object], wrong: frozenset[str]) -> bool:
    """Whether the reply must be a tool call."""
    choice = fields.get("tool_choice", "auto")
    return choice not in ("auto", "none") and "tool_choice" not in wrong


def _tool_name(tool: Mapping[str, object]) -> str:
    return cast("Mapping[str, str]", tool[cast("str", tool["type"])])["name"]


def _stream_options(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    if not stream and fields["stream_options"]:
        rule = "requires streaming."
        yield Problem(
            "stream_options", show(fields["stream_options"]), rule, "Call .stream(...) or .astream(...)."
        )


def _greedy(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    # Only 0 itself is greedy: vLLM raises values just above it to 0.01.
    greedy = fields.get("temperature") == 0 and fields.get("use_beam_search") is not True
    if greedy and cast("int", fields["n"]) > 1:
        rule = "must be 1 with temperature=0: greedy decoding makes all replies identical."
        yield Problem("n", show(fields["n"]), rule)


def _min_tokens(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    name = "max_completion_tokens" if "max_completion_tokens" in fields else "max_tokens"
    most = cast("int | None", fields.get(name))
    if most is not None and cast("int", fields["min_tokens"]) > most:
        yield Problem("min_tokens", show(fields["min_tokens"]), f"must be at most {name}={most}.")


def _prompt_logprobs(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    if stream and fields["prompt_logprobs"] != 0:
        rule = "is not supported when streaming."
        yield Problem(
            "prompt_logprobs", show(fields["prompt_logprobs"]), rule, "Call .chat(...) or .achat(...)."
        )


def _logprob_token_ids(
    fields: Mapping[str, object], stream: bool, wrong: frozenset[str]
) -> Iterable[Problem]:
    if not fields["logprob_token_ids"]:
        return
    shown = show(fields["logprob_token_ids"])
    if fields.get("logprobs") is not True and "logprobs" not in wrong:
        yield Problem("logprob_token_ids", shown, "needs logprobs=True.")
    if fields.get("use_beam_search") is True:
        yield Problem("logprob_token_ids", shown, "cannot be combined with use_beam_search=True.")


def _response_format(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    wanted = cast("Mapping[str, object]", fields["response_format"])
    if wanted["type"] != "text" and _forced(fields, wrong):
        yield Problem("response_format", show(wanted), _OR_A_CALL, "Keep one of them.")
    if wanted["type"] != "json_schema":
        return
    if cast("Mapping[str, object]", wanted["json_schema"]).get("schema") is None:
        hint = 'For any JSON object, write {"type": "json_object"}.'
        yield Problem("response_format.json_schema.schema", "", "is required.", hint)


def _structured_outputs(
    fields: Mapping[str, object], stream: bool, wrong: frozenset[str]
) -> Iterable[Problem]:
    shown = show(fields["structured_outputs"])
    wanted = cast("Mapping[str, object]", fields.get("response_format", {})).get("type", "text")
    if wanted != "text":
        rule = f'cannot be combined with a response_format of type "{wanted}": both constrain the reply.'
        yield Problem("structured_outputs", shown, rule, "Keep one of them.")
    if _forced(fields, wrong):
        yield Problem("structured_outputs", shown, _OR_A_CALL, "Keep one of them.")


_OR_A_CALL: Final = (
    "cannot be combined with a tool_choice that forces a call: vLLM would silently ignore the constraint."
)

_NOT_FOR_BEAMS: Final = (
    "structured_outputs",
    "response_format",
    "stop",
    "stop_token_ids",
    "bad_words",
    "allowed_token_ids",
    "logit_bias",
    "min_tokens",
    "repetition_detection",
)
"""Parameters that decide which tokens may be generated and where a reply ends."""


def _beam_search(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    if fields["use_beam_search"] is not True:
        return
    for name in _NOT_FOR_BEAMS:
        given = fields.get(name)
        if given and given != {"type": "text"}:
            rule = "cannot be combined with use_beam_search=True: beam search silently ignores it."
            yield Problem(name, show(given), rule, "Leave one of them out.")


def _repetition_detection(
    fields: Mapping[str, object], stream: bool, wrong: frozenset[str]
) -> Iterable[Problem]:
    given = cast("Mapping[str, int]", fields["repetition_detection"])
    most, least = given.get("max_pattern_size", 0), given.get("min_pattern_size", 0)
    if least > most:
        rule = f"must be at most max_pattern_size={most}."
        yield Problem("repetition_detection.min_pattern_size", show(least), rule)
    if most > 0 and given.get("min_count", 0) < 2:
        rule = "must be at least 2 if max_pattern_size is greater than 0."
        yield Problem("repetition_detection.min_count", show(given.get("min_count", 0)), rule)


def _vllm_stream_options(
    fields: Mapping[str, object], stream: bool, wrong: frozenset[str]
) -> Iterable[Problem]:
    yield from _stream_options(fields, stream, wrong)
    yield from judge_stream_options(cast("Mapping[str, object]", fields["stream_options"]))


def judge_stream_options(given: Mapping[str, object]) -> Iterable[Problem]:
    """Rejects stream options that vLLM would ignore."""
    obfuscation = given.get("include_obfuscation")
    if obfuscation is not None:
        rule = "is an option of OpenAI's own server; vLLM silently ignores it."
        yield Problem("stream_options.include_obfuscation", show(obfuscation), rule, "Leave it out.")
    if given.get("continuous_usage_stats") is True and given.get("include_usage") is False:
        rule = "has no effect with include_usage=False."
        yield Problem("stream_options.continuous_usage_stats", "True", rule, "Leave include_usage out.")


_BETWEEN_ALL: Final[dict[str, Between]] = {
    "top_logprobs": _top_logprobs,
    "tool_choice": _tool_choice,
    "stream_options": _stream_options,
}


def _convert_response_format(value: object, path: str) -> tuple[object, Sequence[Problem]]:
    if as_mapping(value) is not None:
        return value, ()
    from vllmchat.schemas.types import convert_response_format  # needed only for types

    return convert_response_format(value, path)


def _convert_structured_outputs(value: object, path: str) -> tuple[object, Sequence[Problem]]:
    kind = (as_mapping(value) or {}).get("json")
    if kind is None or isinstance(kind, str) or as_mapping(kind) is not None:
        return value, ()
    from vllmchat.schemas.types import convert_structured_outputs

    return convert_structured_outputs(value, path)


CONSTRAINT_CONVERT: Final[dict[str, Convert]] = {
    "response_format": _convert_response_format,
    "structured_outputs": _convert_structured_outputs,
}
"""Converters for parameters that accept a type as a constraint: they turn it into a JSON schema."""

_CONVERT: Final[dict[str, Convert]] = {"tools": convert_tools, **CONSTRAINT_CONVERT}

GENERATION_RULES: Final[dict[str, Between]] = {
    "n": _greedy,
    "response_format": _response_format,
    "structured_outputs": _structured_outputs,
    "repetition_detection": _repetition_detection,
    "use_beam_search": _beam_search,
}
"""Rules for every endpoint that generates text, not only chats."""

OPENAI_CHAT: Final = Dialect(
    "OpenAIProvider",
    ChatParams,
    _BETWEEN_ALL,
    unknown=_unknown("OpenAIProvider", ChatParams, VLLMChatParams),
    hint=_with_hint,
    finish=_as_sent,
    convert=_CONVERT,
)
"""Validates chats with any OpenAI-compatible server."""

VLLM_CHAT: Final = Dialect(
    "VLLMProvider",
    VLLMChatParams,
    {
        **_BETWEEN_ALL,
        **TEMPLATE_RULES,
        "stream_options": _vllm_stream_options,
        **GENERATION_RULES,
        "min_tokens": _min_tokens,
        "prompt_logprobs": _prompt_logprobs,
        "logprob_token_ids": _logprob_token_ids,
    },
    unknown=_unknown("VLLMProvider", VLLMChatParams, ChatParams),
    hint=_with_hint,
    finish=_as_sent,
    convert=_CONVERT,
)
"""Validates chats with a vLLM server."""
