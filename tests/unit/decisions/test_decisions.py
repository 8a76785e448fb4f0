"""Decisions: requests, answers and validation.

The recorded answers are those of vLLM 0.33.0; `tests/recorded/README.md` says what they were recorded with. What no
server here says, such as an answer that is missing, is written after vLLM's own models of its answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from support import recordings
from vllmchat import (
    ChoiceAnswer,
    ContextWindowExceededError,
    Decision,
    DecisionAnswer,
    InternalServerError,
    InvalidRequestError,
    NotFoundError,
    PredicateAnswer,
    ResponseError,
    ScoreAnswer,
    ServiceUnavailableError,
    VLLMProvider,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.runners import Runner
    from support.scripted import ScriptedServer

SERVER = "0.33.0"
DAMAGED = {"type": "predicate", "name": "damaged", "instructions": "Is it damaged?"}
TEAM = {
    "type": "choice",
    "name": "team",
    "instructions": "Whose?",
    "choices": [{"value": "a"}, {"value": True}],
}
LEVEL = {"type": "score", "instructions": "How much?", "levels": [{"label": "low"}, {"label": "high"}]}


@pytest.fixture
def llm(scripted: ScriptedServer, runner: Runner) -> Iterator[VLLMProvider]:
    provider = VLLMProvider("m", base_url=scripted.base_url, max_retries=0)
    yield provider
    runner.close(provider)


def refused(runner: Runner, llm: VLLMProvider, *args: object, **params: object) -> list[str]:
    with pytest.raises(InvalidRequestError) as caught:
        runner.do(llm, "decide", *args, **params)
    return [str(problem) for problem in caught.value.problems]


def answered(*answers: dict[str, Any]) -> dict[str, Any]:
    """A response after vLLM's `DecisionResponse`."""
    return {"model": "m", "answers": list(answers), "usage": None}


def predicate(**fields: object) -> dict[str, Any]:
    return {"type": "predicate", "name": "damaged", "probability": 0.5, **fields}


# Answers


def test_each_question_has_its_answer(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    recorded = recordings.load("decisions", SERVER)
    scripted.reply(recorded.body)
    asked = recorded.fields
    decision: Decision = runner.do(llm, "decide", asked["input"], asked["questions"])
    [request] = scripted.requests
    assert (request.method, request.path) == ("POST", "/v1/decisions")
    assert request.json() == {**asked, "model": "m"}
    yes, choice, score = decision.answers
    assert isinstance(yes, PredicateAnswer)
    assert yes is decision.predicate("damaged")
    assert yes.probability == pytest.approx(0.0131, abs=1e-4)
    assert isinstance(choice, ChoiceAnswer)
    assert choice is decision.choice("department")
    assert choice.choice == "returns"
    assert [each.value for each in choice.probabilities] == ["returns", "billing", True]
    assert sum(each.probability for each in choice.probabilities) == pytest.approx(1)
    assert 0 < choice.confidence < choice.probabilities[0].probability
    assert isinstance(score, ScoreAnswer)
    assert score.name is None
    assert [(each.value, each.label) for each in score.probabilities] == [(0, "cosmetic"), (1, "broken")]
    assert score.score == pytest.approx(score.probabilities[1].probability)
    assert decision.usage is not None
    assert decision.usage.output_tokens == 3
    assert decision.usage.total_tokens == decision.usage.input_tokens + 3
    assert decision.request_id == request.headers["x-request-id"]


def test_a_boolean_stays_one(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    chosen = [{"value": "a", "probability": 0.25}, {"value": True, "probability": 0.75}]
    answer = {"type": "choice", "name": "team", "choice": True, "probabilities": chosen, "confidence": 0.5}
    scripted.reply(answered(answer))
    decision: Decision = runner.do(llm, "decide", "Hi", [TEAM])
    assert decision.choice("team").choice is True
    assert [each.value for each in decision.choice("team").probabilities] == ["a", True]


def test_an_answer_of_another_type_is_kept(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    # OpenAI's own server may decline a question.
    scripted.reply(answered({"type": "refusal", "name": "damaged", "refusal": "No."}, predicate(name=None)))
    decision: Decision = runner.do(llm, "decide", "Hi", [DAMAGED, DAMAGED])
    declined, answer = decision.answers
    assert type(declined) is DecisionAnswer
    assert declined.model_extra == {"refusal": "No."}
    assert isinstance(answer, PredicateAnswer)
    with pytest.raises(KeyError, match="no predicate named 'damaged' was answered"):
        decision.predicate("damaged")


@pytest.mark.parametrize("method", ["predicate", "choice", "score"])
def test_a_name_of_another_type_is_not_found(method: str) -> None:
    decision = Decision.model_validate(answered(predicate(name="other")))
    with pytest.raises(KeyError, match=f"no {method} named 'damaged' was answered"):
        getattr(decision, method)("damaged")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (answered(), "it has 0 answers to 1 questions"),
        (answered(predicate(), predicate()), "it has 2 answers to 1 questions"),
        (answered(predicate(name="other")), "answers[0] is not the one to 'damaged'"),
        (
            answered(predicate(probability=None)),
            "answers.0.predicate.probability: Input should be a valid number",
        ),
        (
            answered({"type": "predicate", "name": "damaged"}),
            "answers.0.predicate.probability: Field required",
        ),
        ({"model": "m"}, "it has no answers"),
    ],
)
def test_what_is_not_an_answer_to_each_question_raises(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider, body: dict[str, Any], reason: str
) -> None:
    scripted.reply(body)
    with pytest.raises(ResponseError) as caught:
        runner.do(llm, "decide", "Hi", [DAMAGED])
    assert f"the response is not a decision ({reason})" in str(caught.value)


def test_other_questions_in_the_extra_body_are_not_counted(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    scripted.reply(answered(predicate(name="x"), predicate(name="y")))
    decision: Decision = runner.do(llm, "decide", "Hi", [DAMAGED], extra_body={"questions": []})
    assert [answer.name for answer in decision.answers] == ["x", "y"]


# Errors of servers


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("decisions_context", ContextWindowExceededError, "maximum context length is 2048 tokens"),
        ("decisions_paused", ServiceUnavailableError, "Generation is paused."),
    ],
)
def test_recorded_errors(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider, name: str, kind: type[Exception], text: str
) -> None:
    recorded = recordings.load(name, SERVER)
    scripted.reply(recorded.body, recorded.status)
    with pytest.raises(kind, match=text):
        runner.do(llm, "decide", "Hi", [DAMAGED])


def test_a_model_that_makes_no_decisions(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    # The words of vLLM 0.33's route for a model that it cannot ask.
    message = "The model does not support the Decisions API"
    scripted.reply(
        {"error": {"message": message, "type": "NotImplementedError", "param": None, "code": 501}}, 501
    )
    with pytest.raises(InternalServerError, match=message) as caught:
        runner.do(llm, "decide", "Hi", [DAMAGED])
    assert caught.value.status_code == 501
    assert len(scripted.requests) == 1


def test_an_older_server_does_not_have_the_route(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    scripted.reply({"detail": "Not Found"}, 404)
    with pytest.raises(NotFoundError, match=r"Decisions need vLLM 0\.33 or newer"):
        runner.do(llm, "decide", "Hi", [DAMAGED])


# What is sent, and what is not


def test_messages_and_parameters_are_sent(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    recorded = recordings.load("decisions_messages", SERVER)
    scripted.reply(recorded.body)
    asked = dict(recorded.fields)
    subject = (asked.pop("input"), asked.pop("questions"))
    del asked["model"]
    runner.do(llm, "decide", *subject, joint=False, **asked)
    sent = scripted.requests[0].json()
    assert sent == {"model": "m", "input": subject[0], "questions": subject[1], "joint": False, **asked}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (None, "input=None: must be a string or a list of mappings, not None."),
        ([{"role": "system", "content": "Hi"}], "input[0].role='system': must be \"user\"."),
        ([{"role": "user"}], "input[0].content: is required."),
        (
            [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}],
            "input[0].content[0].type='input_image': must be \"input_text\".",
        ),
    ],
)
def test_an_invalid_input_is_explained(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider, given: object, problem: str
) -> None:
    assert problem in refused(runner, llm, given, [DAMAGED])
    assert not scripted.requests


@pytest.mark.parametrize(
    ("questions", "problem"),
    [
        (None, "questions=None: must be a list of mappings, not None."),
        ([], "questions=[]: must not be empty."),
        ([DAMAGED] * 201, "must have at most 200 items, not 201."),
        ([{**DAMAGED, "name": None}], "questions[0].name=None: must not be None. Leave it out."),
        ([{"type": "predicate"}], "questions[0].instructions: is required."),
        (
            [{**DAMAGED, "type": "predicat"}],
            'must be "predicate", "choice" or "score". Did you mean "predicate"?',
        ),
        ([{**TEAM, "choices": ["a", "b"]}], "questions[0].choices[0]='a': must be a mapping, not a str."),
        ([{**TEAM, "choices": [{"value": "a"}]}], "must have at least 2 items, not 1."),
        (
            [{**TEAM, "choices": [{"value": "a"}, {"value": 1}]}],
            "questions[0].choices[1].value=1: must be a string or True or False, not an int.",
        ),
        (
            [TEAM, {**TEAM, "choices": [{"value": "a"}, {"value": "b"}, {"value": "a"}]}],
            "questions[1].choices[2].value='a': is the value of an earlier option too.",
        ),
        (
            [{**LEVEL, "levels": [{"label": str(n)} for n in range(11)]}],
            "must have at most 10 items, not 11.",
        ),
    ],
)
def test_an_invalid_question_is_explained(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider, questions: object, problem: str
) -> None:
    assert any(problem in found for found in refused(runner, llm, "Hi", questions))
    assert not scripted.requests


def test_a_value_and_its_name_are_two_options(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    question = {**TEAM, "choices": [{"value": True}, {"value": "True"}, {"value": False}]}
    chosen = [{"value": True, "probability": 1.0}]
    answer = {"type": "choice", "name": "team", "choice": True, "probabilities": chosen, "confidence": 1.0}
    scripted.reply(answered(answer))
    runner.do(llm, "decide", "Hi", [question])
    assert scripted.requests[0].json()["questions"] == [question]


def test_names_of_other_places_are_explained(runner: Runner, llm: VLLMProvider) -> None:
    found = refused(
        runner, llm, "Hi", [DAMAGED], temperature=0, state="Hi", images=["x"], safty_identifier="x"
    )
    assert found == [
        "temperature=0: is a parameter of chats; /v1/decisions rejects it. Leave it out.",
        "state='Hi': is the input of /v1/systemone: here it is the first argument. Write decide(input, [...]).",
        "images=['x']: is not supported: the server accepts only text. Leave it out.",
        "safty_identifier='x': is not a parameter of VLLMProvider.decide. Did you mean `safety_identifier`?",
    ]


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"joint": 1}, "joint=1: must be True or False, not an int."),
        ({"safety_identifier": "x" * 129}, "must have at most 128 characters, not 129."),
        ({"cache_salt": "a@b"}, "cache_salt: must not contain any of: @ / \\ NUL"),
    ],
)
def test_an_invalid_parameter_is_explained(
    runner: Runner, llm: VLLMProvider, params: dict[str, object], problem: str
) -> None:
    [found] = refused(runner, llm, "Hi", [DAMAGED], **params)
    assert problem in found


def test_all_problems_are_in_one_error(runner: Runner, llm: VLLMProvider) -> None:
    found = refused(runner, llm, 1, [{"type": "score"}], joint="yes")
    assert [problem.partition("=")[0].partition(":")[0] for problem in found] == [
        "input",
        "questions[0].instructions",
        "questions[0].levels",
        "joint",
    ]
