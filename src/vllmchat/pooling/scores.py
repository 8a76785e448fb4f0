"""How well inputs match: `/score` and `/rerank`."""

# No `from __future__ import annotations`: pydantic would have to evaluate every annotation again.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

from pydantic import Field, FiniteFloat
from typing_extensions import TypedDict

from vllmchat.chat.content import ContentPart
from vllmchat.checking.describe import as_list, as_mapping, format_value, type_name, wrong_type
from vllmchat.checking.validator import CheckedParams, Validator, check_request
from vllmchat.client.request import ModelRequest
from vllmchat.errors import Problem
from vllmchat.http.call import Response
from vllmchat.pooling.answer import ListAnswer, read_list
from vllmchat.pooling.inputs import RENAMED
from vllmchat.pooling.params import RerankParams, ScoreParams
from vllmchat.wire import html
from vllmchat.wire.decode import (
    Answer,
    JsonObject,
    LenientInt,
    LenientList,
    LenientStr,
    WireModel,
    read_answer,
    unexpected_body,
)
from vllmchat.wire.usage import Usage


class ScoreContent(TypedDict):
    """Content to compare that is not only text, for vision models. Since vLLM 0.10."""

    content: Sequence[ContentPart]
    """Its parts: text, images, video."""


Scorable: TypeAlias = str | ScoreContent
"""A text, or parts of text, images and video."""


class Score(WireModel):
    """How well one pair matches."""

    index: LenientInt = 0
    """Which pair, from 0."""

    object: LenientStr = "score"
    """Always `"score"`."""

    score: float
    """Higher is better. A cross-encoder returns a probability, an embedding model a cosine from -1 to 1."""


class Scores(ListAnswer[Score]):
    """How well all pairs match."""

    @property
    def scores(self) -> list[float]:
        """The scores alone, in the order of the pairs."""
        return [each.score for each in self.data]

    def _repr_html_(self) -> str:
        """What a notebook shows: a table."""
        return html.table(("index", "score"), ((each.index, each.score) for each in self.data))


class RankedDocument(WireModel):
    """A document as the server echoes it."""

    text: str | None = None
    """Its text, if it is a text."""

    multi_modal: list[JsonObject] | None = None
    """Its parts, if it has parts."""


class Ranked(WireModel):
    """A document and its rank."""

    index: LenientInt = 0
    """Which of the given documents, from 0."""

    document: RankedDocument = Field(default_factory=RankedDocument)
    """The document."""

    relevance_score: FiniteFloat
    """Its relevance to the query: higher is better."""


class Ranking(Answer):
    """Documents, most relevant first."""

    id: LenientStr = ""
    """The response ID."""

    model: LenientStr = ""
    """The model's first served name, or the LoRA adapter's name."""

    results: LenientList[Ranked] = Field(default_factory=list[Ranked])
    """The documents, most relevant first; at most `top_n`."""

    usage: Usage | None = None
    """The number of tokens in all inputs."""

    @property
    def order(self) -> list[int]:
        """The indices of the given documents, most relevant first."""
        return [each.index for each in self.results]

    def _repr_html_(self) -> str:
        """What a notebook shows: a table."""
        return html.table(
            ("index", "relevance score", "document"),
            ((each.index, each.relevance_score, each.document.text) for each in self.results),
        )


@dataclass(frozen=True, slots=True)
class _Side:
    """One side of the pairs.

    Attributes:
        value: The value to send.
        count: The number of items.
        problems: What is wrong with it.
    """

    value: object
    count: int
    problems: Sequence[Problem] = ()


_SCORES: Final = "a list of scores"
_RANKING: Final = "a ranking"
_NEEDS: Final = (
    "Only models that compare have it: start the server with --runner pooling and a cross-encoder, or any model with "
    "--convert embed."
)
_MOST_PROBLEMS: Final = 5

_SCORE: Final = Validator("VLLMProvider.score", ScoreParams, own=RENAMED)
_RERANK: Final = Validator("VLLMProvider.rerank", RerankParams, own=RENAMED)


def score_request(
    data_1: Scorable | Sequence[Scorable], data_2: Scorable | Sequence[Scorable], params: ScoreParams
) -> ModelRequest[Scores]:
    """The request for scores.

    Raises:
        InvalidRequestError: With every problem found.
    """
    left, right = _check(data_1, "data_1"), _check(data_2, "data_2")
    found = [*left.problems, *right.problems]
    if not found and left.count > 1 and left.count != right.count:
        rule = f"must have one item, or as many as data_2 ({right.count}), not {left.count}."
        found = [Problem("data_1", format_value(data_1), rule)]
    checked = check_request(found, _SCORE.check, params)
    # The names that all versions know.
    subject = {"text_1": left.value, "text_2": right.value}
    expected = _unless_replaced(right.count, checked, ("text_1", "text_2"))
    read = partial(read_list, Scores, what=_SCORES, expected=expected)
    return ModelRequest("/score", subject, checked, read, route_hint=_NEEDS)


def rerank_request(
    query: Scorable, documents: Sequence[Scorable], params: RerankParams
) -> ModelRequest[Ranking]:
    """The request for a ranking.

    Raises:
        InvalidRequestError: With every problem found.
    """
    found = _check_one(query, "query")
    several = as_list(documents)
    if several is None:
        found = [*found, wrong_type(documents, "documents", "a list of texts or of mappings with `content`")]
    else:
        found = [*found, *_check(documents, "documents").problems]
    checked = check_request(found, _RERANK.check, params)
    subject = {"query": query, "documents": several}
    count = _unless_replaced(len(several or ()), checked, ("documents",))
    read = partial(_read_ranking, count=count)
    return ModelRequest("/rerank", subject, checked, read, route_hint=_NEEDS)


def _unless_replaced(count: int, checked: CheckedParams, names: Sequence[str]) -> int | None:
    extra: Mapping[str, object] = checked.extra_body or {}
    return None if any(name in extra for name in names) else count


def _check(value: object, path: str) -> _Side:
    """One item, or a list of them."""
    items = as_list(value)
    if items is None:
        return _Side(value, 1, _check_one(value, path, "or a list of them"))
    if not items:
        return _Side(value, 0, [Problem(path, format_value(value), "must not be empty.")])
    problems: list[Problem] = []
    for place, item in enumerate(items):
        problems.extend(_check_one(item, f"{path}[{place}]"))
        if len(problems) >= _MOST_PROBLEMS:
            break
    return _Side(items, len(items), problems)


def _check_one(value: object, path: str, more: str = "") -> list[Problem]:
    if isinstance(value, str):
        return []
    mapping = as_mapping(value)
    if mapping is None:
        what = f"a text or a mapping with `content`{', ' if more else ''}{more}"
        return [wrong_type(value, path, what)]
    if "role" in mapping:
        return [
            Problem(
                path,
                format_value(value),
                "is a message, but messages cannot be compared.",
                "Remove the role.",
            )
        ]
    if set(mapping) != {"content"}:
        return [Problem(path, format_value(value), "must have `content` as its only key.")]
    content = mapping["content"]
    if as_list(content) is None:
        hint = "Write the text itself." if isinstance(content, str) else None
        rule = f"must be a list of parts, not {type_name(content)}."
        return [Problem(f"{path}.content", format_value(content), rule, hint)]
    return []


def _read_ranking(reply: Response, count: int | None) -> Ranking:
    ranking = read_answer(Ranking, reply, _RANKING, required_key="results")
    if count and not ranking.results:
        raise unexpected_body(_RANKING, reply.body, "it has no results")
    for result in ranking.results:
        if result.index < 0 or (count is not None and result.index >= count):
            raise unexpected_body(_RANKING, reply.body, f"it has a document {result.index}, of {count}")
    if len({result.index for result in ranking.results}) < len(ranking.results):
        raise unexpected_body(_RANKING, reply.body, "it has the same document twice")
    # vLLM sorts them; some servers keep the order of the documents.
    ranking.results.sort(key=lambda result: -result.relevance_score)
    return ranking
