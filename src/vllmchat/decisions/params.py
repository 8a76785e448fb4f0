"""The input, the questions and the request parameters of `decide`."""

# No `from __future__ import annotations` here: the annotations are read at run time.
from collections.abc import Sequence
from typing import Annotated, Literal, NotRequired, TypeAlias

from typing_extensions import TypedDict

from vllmchat.checking.call_params import CallBase
from vllmchat.checking.rules import Default, Length, Without

__all__ = [
    "ChoiceOption",
    "ChoiceQuestion",
    "DecideParams",
    "DecisionInput",
    "DecisionMessage",
    "DecisionQuestion",
    "DecisionTextPart",
    "PredicateQuestion",
    "ScoreLevel",
    "ScoreQuestion",
]


class DecisionTextPart(TypedDict, closed=True):
    """A piece of a message's text."""

    type: Literal["input_text"]
    """Always `"input_text"`."""
    text: Annotated[str, Length(0, 10_485_760)]
    """The text.

    Range: at most 10485760 characters.
    """


class DecisionMessage(TypedDict, closed=True):
    """A message to decide about. Only text of the user is accepted."""

    role: Literal["user"]
    """Always `"user"`."""
    content: Annotated[str, Length(0, 10_485_760)] | Annotated[Sequence[DecisionTextPart], Length(0, 16_384)]
    """The text, or its pieces.

    Range: at most 10485760 characters; at most 16384 items.
    """
    type: NotRequired[Literal["message"]]
    """Always `"message"`."""


class PredicateQuestion(TypedDict, closed=True):
    """A question with yes or no as its answer."""

    type: Literal["predicate"]
    """Always `"predicate"`."""
    instructions: Annotated[str, Length(0, 1_048_576)]
    """The question, or a statement that may be true.

    Range: at most 1048576 characters.
    """
    name: NotRequired[Annotated[str, Length(0, 1_048_576)]]
    """A name of your choice. The answer has it too.

    Range: at most 1048576 characters.
    """


class ChoiceOption(TypedDict, closed=True):
    """An option of a choice."""

    value: Annotated[str, Length(0, 1_048_576)] | bool
    """The option: a string, True or False. It is also what the model reads.

    Range: at most 1048576 characters.
    """
    description: NotRequired[Annotated[str, Length(0, 1_048_576)]]
    """What it means. The model reads this too.

    Range: at most 1048576 characters.
    """


class ChoiceQuestion(TypedDict, closed=True):
    """A question with one of several options as its answer."""

    type: Literal["choice"]
    """Always `"choice"`."""
    instructions: Annotated[str, Length(0, 1_048_576)]
    """The question.

    Range: at most 1048576 characters.
    """
    choices: Annotated[Sequence[ChoiceOption], Length(2, 255)]
    """The options. Their values must differ. The models of vLLM 0.33 take at most 26.

    Range: 2 to 255 items.
    """
    name: NotRequired[Annotated[str, Length(0, 1_048_576)]]
    """A name of your choice. The answer has it too.

    Range: at most 1048576 characters.
    """


class ScoreLevel(TypedDict, closed=True):
    """A level of a scale."""

    label: Annotated[str, Length(0, 1_048_576)]
    """What it is called. The model reads this.

    Range: at most 1048576 characters.
    """
    description: NotRequired[Annotated[str, Length(0, 1_048_576)]]
    """What it means. The model reads this too.

    Range: at most 1048576 characters.
    """


class ScoreQuestion(TypedDict, closed=True):
    """A question with a place on a scale as its answer."""

    type: Literal["score"]
    """Always `"score"`."""
    instructions: Annotated[str, Length(0, 1_048_576)]
    """The question.

    Range: at most 1048576 characters.
    """
    levels: Annotated[Sequence[ScoreLevel], Length(2, 10)]
    """The levels of the scale, from the lowest, which counts as 0, to the highest.

    Range: 2 to 10 items.
    """
    name: NotRequired[Annotated[str, Length(0, 1_048_576)]]
    """A name of your choice. The answer has it too.

    Range: at most 1048576 characters.
    """


DecisionInput: TypeAlias = str | Sequence[DecisionMessage]
"""A text, or messages of the user, which the server joins with empty lines."""

DecisionQuestion: TypeAlias = PredicateQuestion | ChoiceQuestion | ScoreQuestion
"""A question: `{"type": "predicate", ...}`, `{"type": "choice", ...}` or `{"type": "score", ...}`."""


class DecideParams(CallBase, total=False, closed=True):
    """What `VLLMProvider.decide` accepts. All of it is as old as the method: vLLM 0.33."""

    joint: Annotated[bool | None, Default("False")]
    """Answer several questions in one pass, in which the answers depend on each other.

    Only for diffusion models; a server with another model rejects it.

    Default: False.
    """
    cache_salt: Annotated[str | None, Length(1, 128), Without("@/\\\0")]
    """Share the prefix cache only with requests that send the same salt, so that timing reveals nothing to others.

    Range: 1 to 128 characters; without `@`, `/`, backslash, NUL.
    """
    safety_identifier: Annotated[str | None, Length(0, 128)]
    """A stable, anonymous name for the end user. vLLM only logs it.

    Range: at most 128 characters.
    """
