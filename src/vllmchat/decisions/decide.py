"""The request for a decision: `/v1/decisions`."""

# No `from __future__ import annotations` here: the annotations are read at run time.

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Annotated, Final, cast

from typing_extensions import TypedDict

from vllmchat.checking.checkers import Checker, checker_of
from vllmchat.checking.describe import format_value
from vllmchat.checking.rules import Length, fields_of
from vllmchat.checking.validator import CheckedParams, Validator, check_request
from vllmchat.client.request import ModelRequest
from vllmchat.decisions.decision import Decision, read_decision
from vllmchat.decisions.params import ChoiceOption, DecideParams, DecisionInput, DecisionQuestion
from vllmchat.errors import Problem


class _Subject(TypedDict, closed=True):
    """What a decision is about."""

    input: DecisionInput
    questions: Annotated[Sequence[DecisionQuestion], Length(1, 200)]


_NEEDS: Final = (
    "Decisions need vLLM 0.33 or newer and a model that can make them, such as Qwen3, Qwen3.5 or Gemma 4."
)

_VALIDATOR: Final = Validator(
    "VLLMProvider.decide",
    DecideParams,
    own={
        "state": (
            "is the input of /v1/systemone: here it is the first argument.",
            "Write decide(input, [...]).",
        ),
        "images": ("is not supported: the server accepts only text.", "Leave it out."),
    },
    chats=("is a parameter of chats; /v1/decisions rejects it.", "Leave it out."),
)


def decide_request(
    value: DecisionInput, questions: Sequence[DecisionQuestion], params: DecideParams
) -> ModelRequest[Decision]:
    """Returns the request for a decision.

    Raises:
        InvalidRequestError: With every problem found.
    """
    subject = {"input": value, "questions": questions}
    found = [problem for name, check in _checkers().items() for problem in check(subject[name], name)]
    # The checkers advise as for parameters, which may be left out.
    found = [
        replace(problem, suggestion=None) if problem.parameter == "questions" else problem
        for problem in found
    ]
    if not found:
        found.extend(_repeated(questions))
    checked = check_request(found, _VALIDATOR.check, params)
    names = None if _replaced(checked) else [question.get("name") for question in questions]
    return ModelRequest(
        "/decisions", subject, checked, partial(read_decision, names=names), route_hint=_NEEDS
    )


@cache
def _checkers() -> dict[str, Checker]:
    return {name: checker_of(field) for name, field in fields_of(_Subject).items()}


def _repeated(questions: Sequence[DecisionQuestion]) -> Iterable[Problem]:
    """Finds options that occur twice in a question: the answer could be either."""
    for place, question in enumerate(questions):
        if question["type"] == "choice":
            yield from _repeated_options(question["choices"], f"questions[{place}].choices")


def _repeated_options(options: Sequence[ChoiceOption], path: str) -> Iterable[Problem]:
    seen: set[tuple[type, object]] = set()
    for place, option in enumerate(options):
        value = option["value"]
        kind = (type(value), value)  # "True" and True differ
        if kind in seen:
            yield Problem(
                f"{path}[{place}].value", format_value(value), "is the value of an earlier option too."
            )
        seen.add(kind)


def _replaced(params: CheckedParams) -> bool:
    """Whether `extra_body` replaces the questions."""
    return "questions" in cast("Mapping[str, object]", params.extra_body or {})
