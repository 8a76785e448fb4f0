"""Rules between the parameters that all generating endpoints share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from vllmchat.checking.describe import as_mapping, format_value
from vllmchat.errors import Problem
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from vllmchat.checking.validator import Convert, CrossFieldRule
    from vllmchat.schemas import types
else:
    types = LazyModule("vllmchat.schemas.types")


def _forced(fields: Mapping[str, object], wrong: frozenset[str]) -> bool:
    """Whether the reply must be a tool call."""
    choice = fields.get("tool_choice", "auto")
    return choice not in ("auto", "none") and "tool_choice" not in wrong


def _greedy(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    # Only 0 itself is greedy: vLLM raises values just above it to 0.01.
    greedy = fields.get("temperature") == 0 and fields.get("use_beam_search") is not True
    if greedy and cast("int", fields["n"]) > 1:
        rule = "must be 1 with temperature=0: greedy decoding makes all replies identical."
        yield Problem("n", format_value(fields["n"]), rule)


def _response_format(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    response_format = cast("Mapping[str, object]", fields["response_format"])
    if response_format["type"] != "text" and _forced(fields, wrong):
        yield Problem("response_format", format_value(response_format), _OR_A_CALL, "Keep one of them.")
    if response_format["type"] != "json_schema":
        return
    if cast("Mapping[str, object]", response_format["json_schema"]).get("schema") is None:
        hint = 'For any JSON object, write {"type": "json_object"}.'
        yield Problem("response_format.json_schema.schema", "", "is required.", hint)


def _structured_outputs(
    fields: Mapping[str, object], stream: bool, wrong: frozenset[str]
) -> Iterable[Problem]:
    shown = format_value(fields["structured_outputs"])
    kind = cast("Mapping[str, object]", fields.get("response_format", {})).get("type", "text")
    if kind != "text":
        rule = f'cannot be combined with a response_format of type "{kind}": both constrain the reply.'
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
    "logit_bias",
    "min_tokens",
    "repetition_detection",
)
"""Parameters that decide which tokens may be generated and where a reply ends."""


def _beam_search(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    if fields["use_beam_search"] is not True:
        return
    for name in _NOT_FOR_BEAMS:
        value = fields.get(name)
        if value and value != {"type": "text"}:
            rule = "cannot be combined with use_beam_search=True: beam search silently ignores it."
            yield Problem(name, format_value(value), rule, "Leave one of them out.")


def _repetition_detection(
    fields: Mapping[str, object], stream: bool, wrong: frozenset[str]
) -> Iterable[Problem]:
    value = cast("Mapping[str, int]", fields["repetition_detection"])
    most, least = value.get("max_pattern_size", 0), value.get("min_pattern_size", 0)
    if least > most:
        rule = f"must be at most max_pattern_size={most}."
        yield Problem("repetition_detection.min_pattern_size", format_value(least), rule)
    if most > 0 and value.get("min_count", 0) < 2:
        rule = "must be at least 2 if max_pattern_size is greater than 0."
        yield Problem("repetition_detection.min_count", format_value(value.get("min_count", 0)), rule)


def text_keys(fields: dict[str, object]) -> None:
    """Converts the token ids of a `logit_bias`, in place, to strings: the keys of a JSON object."""
    if "logit_bias" in fields:
        biases = cast("Mapping[object, object]", fields["logit_bias"])
        fields["logit_bias"] = {str(token): bias for token, bias in biases.items()}


def only_streamed(hint: str) -> CrossFieldRule:
    """Returns the rule that `stream_options` need a stream.

    Args:
        hint: The methods that stream.
    """

    def rule(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
        if not stream and fields["stream_options"]:
            yield Problem(
                "stream_options", format_value(fields["stream_options"]), "requires streaming.", hint
            )

    return rule


def not_streamed(hint: str) -> CrossFieldRule:
    """Returns the rule that `prompt_logprobs` cannot be streamed.

    Args:
        hint: The methods that do not stream.
    """

    def rule(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
        value = fields["prompt_logprobs"]
        if stream and value != 0:
            yield Problem("prompt_logprobs", format_value(value), "is not supported when streaming.", hint)

    return rule


def at_most_max_tokens(default: int | None, hint: str | None = None) -> CrossFieldRule:
    """Returns the rule that `min_tokens` is at most `max_tokens`.

    Args:
        default: The default of `max_tokens` for this rule; None for none.
        hint: What to write if the default is too small.
    """

    def rule(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
        name = "max_completion_tokens" if "max_completion_tokens" in fields else "max_tokens"
        if name in wrong:
            return
        most = cast("int | None", fields.get(name, default))
        least = fields["min_tokens"]
        if most is not None and cast("int", least) > most:
            suggestion = None if name in fields else hint
            yield Problem("min_tokens", format_value(least), f"must be at most {name}={most}.", suggestion)

    return rule


def vllm_stream_options(hint: str) -> CrossFieldRule:
    """Returns the rules of vLLM for `stream_options`.

    Args:
        hint: The methods that stream.
    """
    streamed = only_streamed(hint)

    def rule(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
        yield from streamed(fields, stream, wrong)
        yield from _ignored_stream_options(cast("Mapping[str, object]", fields["stream_options"]))

    return rule


def _ignored_stream_options(value: Mapping[str, object]) -> Iterable[Problem]:
    obfuscation = value.get("include_obfuscation")
    if obfuscation is not None:
        rule = "is an option of OpenAI's own server; vLLM silently ignores it."
        yield Problem("stream_options.include_obfuscation", format_value(obfuscation), rule, "Leave it out.")
    if value.get("continuous_usage_stats") is True and value.get("include_usage") is False:
        rule = "has no effect with include_usage=False."
        yield Problem("stream_options.continuous_usage_stats", "True", rule, "Leave include_usage out.")


def _convert_response_format(value: object, path: str) -> tuple[object, Sequence[Problem]]:
    if as_mapping(value) is not None:
        return value, ()
    return types.convert_response_format(value, path)


def _convert_structured_outputs(value: object, path: str) -> tuple[object, Sequence[Problem]]:
    kind = (as_mapping(value) or {}).get("json")
    if kind is None or isinstance(kind, str) or as_mapping(kind) is not None:
        return value, ()
    return types.convert_structured_outputs(value, path)


CONSTRAINT_CONVERT: Final[dict[str, Convert]] = {
    "response_format": _convert_response_format,
    "structured_outputs": _convert_structured_outputs,
}
"""Converters for parameters that accept a type as a constraint: they turn it into a JSON schema."""
GENERATION_RULES: Final[dict[str, CrossFieldRule]] = {
    "n": _greedy,
    "response_format": _response_format,
    "structured_outputs": _structured_outputs,
    "repetition_detection": _repetition_detection,
    "use_beam_search": _beam_search,
}
"""Rules for every endpoint that generates text, not only chats."""
