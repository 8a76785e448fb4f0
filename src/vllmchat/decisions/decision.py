"""The answers to the questions of a decision."""

# No `from __future__ import annotations`: pydantic would have to evaluate every annotation again.

from collections.abc import Sequence
from typing import Annotated, TypeVar

from pydantic import Discriminator, Field, Tag

from vllmchat.http.call import Response
from vllmchat.wire.decode import (
    Answer,
    LenientList,
    LenientStr,
    WireModel,
    as_object,
    read_answer,
    unexpected_body,
)
from vllmchat.wire.usage import ResponseUsage


class DecisionAnswer(WireModel):
    """The answer to a question. What it says depends on the type of the question; see its subclasses.

    An answer of any other type, such as the refusals of OpenAI's own server, is a plain `DecisionAnswer`, with its
    fields in `model_extra`.
    """

    type: LenientStr = ""
    """The type of the question: `"predicate"`, `"choice"` or `"score"`."""

    name: str | None = None
    """The name of the question, or None if it has none."""


class PredicateAnswer(DecisionAnswer):
    """The answer to a `PredicateQuestion`."""

    probability: float
    """The probability of yes, from 0 to 1."""


class ChoiceProbability(WireModel):
    """The probability of an option."""

    value: str | bool
    """The option's value."""

    probability: float
    """Its probability among the options, from 0 to 1."""


class ChoiceAnswer(DecisionAnswer):
    """The answer to a `ChoiceQuestion`."""

    choice: str | bool
    """The value of the most likely option."""

    probabilities: list[ChoiceProbability]
    """The probability of each option, in the order of the question. They add up to 1."""

    confidence: float
    """The probability of the chosen option among everything that the model could have said, from 0 to 1.

    If it is low, the model wanted to say something else, whatever the probabilities among the options are.
    """


class LevelProbability(WireModel):
    """The probability of a level."""

    value: int
    """The level's index, from 0."""

    label: LenientStr = ""
    """The level's label."""

    probability: float
    """Its probability among the levels, from 0 to 1."""


class ScoreAnswer(DecisionAnswer):
    """The answer to a `ScoreQuestion`."""

    score: float
    """The place on the scale: the mean of the levels' indexes, weighted with their probabilities."""

    probabilities: list[LevelProbability]
    """The probability of each level, from the lowest to the highest. They add up to 1."""

    confidence: float
    """The probability of the most likely level among everything that the model could have said, from 0 to 1."""


A = TypeVar("A", bound=DecisionAnswer)

_TYPES = ("predicate", "choice", "score")


def _type_of(value: object) -> str:
    kind = value.type if isinstance(value, DecisionAnswer) else (as_object(value) or {}).get("type")
    return kind if isinstance(kind, str) and kind in _TYPES else "other"


class Decision(Answer):
    """The answers of a decision.

    `predicate`, `choice` and `score` return the answer to the question of that name.
    """

    model: LenientStr = ""
    """The model's first served name, or the LoRA adapter's name."""

    answers: LenientList[
        Annotated[
            Annotated[PredicateAnswer, Tag("predicate")]
            | Annotated[ChoiceAnswer, Tag("choice")]
            | Annotated[ScoreAnswer, Tag("score")]
            | Annotated[DecisionAnswer, Tag("other")],
            Discriminator(_type_of),
        ]
    ] = Field(default_factory=list[PredicateAnswer | ChoiceAnswer | ScoreAnswer | DecisionAnswer])
    """One answer to each question, in their order."""

    usage: ResponseUsage | None = None
    """The token usage of all questions: each is a prompt of its own, with the input in it, and one generated token."""

    def predicate(self, name: str) -> PredicateAnswer:
        """Returns the answer to the predicate of this name.

        Raises:
            KeyError: No predicate with this name was answered.
        """
        return self._named(name, PredicateAnswer, "predicate")

    def choice(self, name: str) -> ChoiceAnswer:
        """Returns the answer to the choice of this name.

        Raises:
            KeyError: No choice with this name was answered.
        """
        return self._named(name, ChoiceAnswer, "choice")

    def score(self, name: str) -> ScoreAnswer:
        """Returns the answer to the score of this name.

        Raises:
            KeyError: No score with this name was answered.
        """
        return self._named(name, ScoreAnswer, "score")

    def _named(self, name: str, kind: type[A], what: str) -> A:
        for answer in self.answers:
            if answer.name == name and isinstance(answer, kind):
                return answer
        raise KeyError(f"no {what} named {name!r} was answered")


_WHAT = "a decision"


def read_decision(reply: Response, names: Sequence[object] | None) -> Decision:
    """Parses a response of `/v1/decisions`.

    Args:
        reply: The response.
        names: The names of the questions, None for one without; None if the questions are not known.

    Raises:
        ResponseError: The body is not a decision, or its answers are not those to the questions.
    """
    decision = read_answer(Decision, reply, _WHAT, required_key="answers", needed=None)
    if names is not None:
        answers = decision.answers
        if len(answers) != len(names):
            raise unexpected_body(
                _WHAT, reply.body, f"it has {len(answers)} answers to {len(names)} questions"
            )
        for place, (answer, name) in enumerate(zip(answers, names, strict=True)):
            if answer.name is not None and answer.name != name:
                raise unexpected_body(_WHAT, reply.body, f"answers[{place}] is not the one to {name!r}")
    return decision
