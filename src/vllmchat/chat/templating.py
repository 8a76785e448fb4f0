"""Parameters and rules of all endpoints that render a conversation with the chat template."""

# No `from __future__ import annotations` here: the annotations are read at run time.
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Final, cast

from typing_extensions import TypedDict

from vllmchat.chat.messages import encode_messages
from vllmchat.checking.describe import as_list, format_value
from vllmchat.checking.rules import Default, Needs, Since
from vllmchat.checking.validator import CrossFieldRule
from vllmchat.errors import InvalidRequestError, Problem
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    from vllmchat.chat.messages import Messages
    from vllmchat.schemas import functions
else:
    functions = LazyModule("vllmchat.schemas.functions")


class TemplatingBase(TypedDict, total=False):
    """Parameters of endpoints that render a conversation without replying to it. A base class."""

    enable_thinking: bool | None
    """Whether the prompt lets the model reason. Sent as `chat_template_kwargs={"enable_thinking": ...}`.

    Read by Qwen3's template and several others. DeepSeek's template reads `thinking` instead:
    `chat_template_kwargs={"thinking": True}`. Only for conversations.
    """
    chat_template: Annotated[
        str | None, Default("the model's own"), Needs("--trust-request-chat-template (0.11 or newer)")
    ]
    """A Jinja chat template to use instead of the model's own. Only for conversations.

    Default: the model's own. Needs: --trust-request-chat-template (0.11 or newer).
    """
    chat_template_kwargs: Mapping[str, object] | None
    """Variables for the chat template, such as `{"enable_thinking": False}`. Only for conversations."""
    media_io_kwargs: Annotated[
        Mapping[str, Mapping[str, object]] | None,
        Since("0.18"),
        Needs("--trust-request-mm-kwargs (0.31 or newer)"),
    ]
    """How to load media, by modality: `{"video": {"num_frames": 40}}`. Only for conversations.

    Needs: --trust-request-mm-kwargs (0.31 or newer). Since: vLLM 0.18.
    """


def check_conversation(messages: object, path: str) -> tuple[list[Mapping[str, object]], Sequence[Problem]]:
    """Returns the messages as they are sent, and their problems.

    Args:
        messages: The conversation.
        path: The name of the parameter, for the problems.
    """
    try:
        return encode_messages(cast("Messages", messages)), ()
    except InvalidRequestError as error:
        return [], [
            replace(problem, parameter=f"{path}{problem.parameter.removeprefix('messages')}")
            for problem in error.problems
        ]


def fold_template(fields: dict[str, object]) -> None:
    """Converts the validated fields, in place, to what the server accepts."""
    if "enable_thinking" in fields:
        thinking = fields.pop("enable_thinking")
        variables = cast("Mapping[str, object]", fields.get("chat_template_kwargs", {}))
        fields["chat_template_kwargs"] = {**variables, "enable_thinking": thinking}
    if fields.get("continue_final_message") is True:
        # With the server's default, True, the request would fail later, in the chat template.
        fields["add_generation_prompt"] = False


def _continue(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    if fields["continue_final_message"] is True and fields.get("add_generation_prompt") is True:
        rule = "cannot be combined with add_generation_prompt=True, which begins a new message."
        yield Problem("continue_final_message", "True", rule, "Leave `add_generation_prompt` out.")


def _template_kwargs(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    variables = cast("Mapping[str, object]", fields["chat_template_kwargs"])
    if "chat_template" in variables:
        rule = "is rejected by the server."
        hint = "Use the parameter `chat_template` instead."
        yield Problem(
            "chat_template_kwargs.chat_template", format_value(variables["chat_template"]), rule, hint
        )
    if "tokenize" in variables:
        rule = "is rejected by the server, which always tokenizes."
        yield Problem(
            "chat_template_kwargs.tokenize", format_value(variables["tokenize"]), rule, "Leave it out."
        )
    for name in ("add_generation_prompt", "continue_final_message"):
        if name in variables:
            rule = "has no effect: the parameter of the same name overrides it."
            hint = f"Use the parameter `{name}` instead."
            yield Problem(f"chat_template_kwargs.{name}", format_value(variables[name]), rule, hint)


def _enable_thinking(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    thinking = fields["enable_thinking"]
    switch = cast("Mapping[str, object]", fields.get("chat_template_kwargs", {})).get("enable_thinking")
    if switch is not None and switch is not thinking:
        rule = f'contradicts chat_template_kwargs={{"enable_thinking": {format_value(switch)}}}.'
        yield Problem("enable_thinking", format_value(thinking), rule, "Keep one of them.")
    extra = cast("Mapping[str, object]", fields.get("extra_body", {})).get("chat_template_kwargs")
    same = (
        isinstance(extra, Mapping) and cast("Mapping[str, object]", extra).get("enable_thinking") is thinking
    )
    if extra is not None and not same:
        rule = 'would be lost: extra_body["chat_template_kwargs"] overrides it.'
        yield Problem(
            "enable_thinking",
            format_value(thinking),
            rule,
            "Use the parameter `chat_template_kwargs` instead.",
        )


def convert_tools(value: object, path: str) -> tuple[object, Sequence[Problem]]:
    """Returns the tools as they are sent, and their problems; see `Convert`."""
    tools = as_list(value)
    if tools is None or not any(map(callable, tools)):
        return value, ()
    return functions.convert_tools(tools, path)


TEMPLATE_RULES: Final[dict[str, CrossFieldRule]] = {
    "continue_final_message": _continue,
    "chat_template_kwargs": _template_kwargs,
    "enable_thinking": _enable_thinking,
}
"""Rules across the template parameters, keyed by the parameter that triggers them."""
