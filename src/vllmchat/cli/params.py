"""The parameters of chats as options, each with the type, the bounds and the text that it has in the package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import click

from vllmchat.chat.params import ChatParams, VLLMChatParams
from vllmchat.checking.rules import fields_of
from vllmchat.cli import values
from vllmchat.cli.wording import in_options, option_of
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    from vllmchat.checking.rules import Field
    from vllmchat.cli import texts
else:
    texts = LazyModule("vllmchat.cli.texts")  # parses source, and is needed only for help

MOST_USED: Final = "Parameters that most people use"
_OTHER: Final = "Other parameters"
_OPENAI: Final = "With --provider openai"

GROUPS: Final = (
    *(MOST_USED, "Sampling", "Reasoning", "Prompt and template", "Output", "Scheduling and transfer"),
    *(_OTHER, _OPENAI),
)
"""The groups in the order of the help."""

_MOST_USED: Final = (
    *("temperature", "max_tokens", "top_p", "top_k", "min_p", "stop", "seed", "n"),
    *("enable_thinking", "reasoning_effort", "structured_outputs", "tools"),
)

_GROUP_OF: Final = {
    **dict.fromkeys(("frequency_penalty", "presence_penalty", "logit_bias"), "Sampling"),
    **dict.fromkeys(("max_completion_tokens", "min_tokens"), "Sampling"),
    **dict.fromkeys(("logprobs", "top_logprobs", "response_format", "stream_options"), "Output"),
}
"""The groups of parameters that stand under no heading."""

_ABOUT: Final = {"tools": "The functions that the model may call, each as OpenAI's API describes it."}
"""Texts for values that are written differently here than in Python."""

_ELSEWHERE: Final = frozenset({"timeout"})
"""What has an option that is not about one request."""


class ParamOption(click.Option):
    """A parameter of chats.

    Args:
        field: What is known about it.
        vllm: Whether `VLLMProvider` has it.
    """

    def __init__(self, field: Field, *, vllm: bool) -> None:
        option = option_of(field.name)
        switch = values.is_switch(field)
        super().__init__(
            [f"{option}/--no-{option[2:]}" if switch else option],
            type=None if switch else values.type_of(field),
            multiple=not switch and values.is_repeated(field),
            default=None,
        )
        self._field = field
        self._vllm = vllm

    @property
    def parameter(self) -> str:
        """Its name in Python."""
        return self._field.name

    @property
    def group(self) -> str:
        """The group that it is listed in."""
        name = self._field.name
        if name in _MOST_USED:
            return MOST_USED
        if not self._vllm:
            return _OPENAI
        text = texts.param_texts().get(name)
        return _GROUP_OF.get(name) or (text.group if text is not None else "") or _OTHER

    @property
    def brief_group(self) -> str:
        """The group, without reading texts: whether it is one of the most used."""
        return MOST_USED if self._field.name in _MOST_USED else _OTHER

    @property
    def rank(self) -> int:
        """Its place in its group; those of the same rank keep their order."""
        return _MOST_USED.index(self._field.name) if self._field.name in _MOST_USED else 0

    def help_row(self, ctx: click.Context) -> tuple[str, str]:
        """Returns its row in the help: how it is written, and what it does."""
        record = self.get_help_record(ctx)
        text = texts.param_texts().get(self._field.name)
        words = "" if text is None else f"{_ABOUT.get(self._field.name, text.about)} {text.facts}".strip()
        names = {name: option_of(name) for name in fields_of(VLLMChatParams)}
        return (record[0] if record is not None else option_of(self._field.name)), in_options(words, names)


def param_options() -> list[ParamOption]:
    """Returns an option for each parameter of both providers."""
    vllm = fields_of(VLLMChatParams)
    known = {**fields_of(ChatParams), **vllm}
    ordered = [*vllm, *(name for name in known if name not in vllm)]
    return [ParamOption(known[name], vllm=name in vllm) for name in ordered if name not in _ELSEWHERE]


def value_of(option: ParamOption, value: object) -> object:
    """Returns the value of a parameter; None if it was not given."""
    if not isinstance(value, tuple):
        return value
    if not value:
        return None
    flat: list[object] = []
    for item in cast("tuple[object, ...]", value):
        flat += cast("list[object]", item) if isinstance(item, list) else [item]
    return flat
