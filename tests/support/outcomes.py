"""What came of a call, as a few facts in JSON: for a table that a person reads and a test compares.

An empty fact is left out, and so are ids and times.
"""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel

from vllmchat import (
    APIStatusError,
    ChatCompletion,
    Choice,
    ChoiceAnswer,
    Classifications,
    Decision,
    DecisionAnswer,
    Embeddings,
    Generation,
    MaxTurnsError,
    Metrics,
    ModelList,
    ModelResponse,
    Parsed,
    PoolingOutputs,
    PredicateAnswer,
    Ranking,
    RenderedPrompt,
    ResponseError,
    ScoreAnswer,
    Scores,
    StructuredOutputError,
    TextCompletion,
    TokenEmbeddings,
    Tokenization,
    ToolRun,
    Usage,
    VLLMChatError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from vllmchat import ChatMessage, ToolCall
    from vllmchat.chat.completion import ChoiceLogprobs
    from vllmchat.completions.completion import TextChoice, TextLogprobs
    from vllmchat.generate.generation import GenerationChoice, GenerationLogprobs
    from vllmchat.wire.usage import PromptLogprob, ResponseUsage

Facts = dict[str, Any]


@singledispatch
def facts(result: object) -> Facts:
    """What came of a call that went well."""
    return {"value": result}


def failed(error: VLLMChatError, origin: str) -> Facts:
    """What came of a call that raised.

    Args:
        error: What it raised.
        origin: The server's, which may stand in the message.
    """
    found = _facts(error=type(error).__name__, message=str(error).replace(origin, "http://server"))
    if isinstance(error, APIStatusError):
        found |= _facts(status=error.status_code, param=error.param)
    if isinstance(error, StructuredOutputError):
        found["reason"] = error.reason
    if isinstance(error, MaxTurnsError):
        found["replies"] = len(error.completions)
    partial = error.partial
    if isinstance(error, (APIStatusError, ResponseError)) and partial is not None:
        found |= _facts(partial=facts(partial))
    return found


# Chats


@facts.register
def _(reply: ChatCompletion) -> Facts:
    return _facts(
        **_together([_choice(choice) for choice in reply.choices]),
        usage=_usage(reply.usage),
        prompt_token_ids=_count(reply.prompt_token_ids),
        prompt_logprobs=_prompt(reply.prompt_logprobs),
    )


def _choice(choice: Choice) -> Facts:
    return _facts(
        text=choice.message.content,
        reasoning=choice.message.reasoning,
        calls=_calls(choice.message.tool_calls),
        finish=choice.finish_reason,
        stop=choice.stop_reason,
        token_ids=choice.token_ids,
        logprobs=_logprobs(choice.logprobs),
    )


def _calls(calls: Sequence[ToolCall]) -> list[str]:
    """Each call as it would be written, with a word for one that was cut, and for one without an id."""
    return [
        f"{call.name}({call.arguments}){'' if call.complete else ' cut'}{'' if call.id else ' without an id'}"
        for call in calls
    ]


def _logprobs(logprobs: ChoiceLogprobs | GenerationLogprobs | None) -> list[str]:
    found: list[str] = []
    for each in (logprobs and logprobs.content) or []:
        name = getattr(each, "token_id", None)
        likeliest = [
            _chance(getattr(top, "token_id", None) or top.token, top.logprob) for top in each.top_logprobs
        ]
        found.append(f"{_chance(name or each.token, each.logprob)} of {', '.join(likeliest) or 'none'}")
    return found


def _chance(token: object, logprob: float | None) -> str:
    # Two digits: beyond them, the same server differs from run to run.
    return f"{token} {'-' if logprob is None else format(logprob, '.2f')}"


def _prompt(logprobs: Sequence[Mapping[str, PromptLogprob] | None] | None) -> Facts:
    """How many places of the prompt have log probabilities, and those of the last one."""
    if not logprobs:
        return {}
    last = logprobs[-1] or {}
    shown = [
        f"{token} {each.decoded_token} rank {each.rank} {each.logprob:.2f}" for token, each in last.items()
    ]
    return _facts(places=len(logprobs), without=logprobs.count(None), last=shown)


@facts.register(list)
def _(results: list[object]) -> Facts:
    return {"each": [facts(each) for each in results]}


@facts.register(Parsed)
def _(parsed: Parsed[object]) -> Facts:
    return {"value": parsed.value}


@facts.register
def _(run: ToolRun) -> Facts:
    return _facts(
        ran=[result.value for result in run.results if result.error is None],
        not_ran=[type(result.error).__name__ for result in run.results if result.error is not None],
        replies=len(run.turns),
        text=run.text,
    )


# Completions, responses, tokens


@facts.register
def _(reply: TextCompletion) -> Facts:
    return _facts(
        **_together([_text_choice(choice) for choice in reply.choices]),
        usage=_usage(reply.usage),
    )


def _text_choice(choice: TextChoice) -> Facts:
    return _facts(
        text=choice.text,
        finish=choice.finish_reason,
        stop=choice.stop_reason,
        token_ids=choice.token_ids,
        prompt_token_ids=_count(choice.prompt_token_ids),
        logprobs=_text_logprobs(choice.logprobs),
        prompt_logprobs=_prompt(choice.prompt_logprobs),
    )


def _text_logprobs(logprobs: TextLogprobs | None) -> list[str]:
    if logprobs is None:
        return []
    tops: Sequence[Mapping[str, float] | None] = logprobs.top_logprobs or [None] * len(logprobs.tokens)
    return [
        f"{_chance(token, chance)} of {', '.join(_chance(*each) for each in (top or {}).items()) or 'none'}"
        for token, chance, top in zip(logprobs.tokens, logprobs.token_logprobs, tops, strict=True)
    ]


@facts.register
def _(reply: ModelResponse) -> Facts:
    cut = reply.incomplete_details
    return _facts(
        text=reply.text,
        reasoning=reply.reasoning,
        calls=_calls(reply.tool_calls),
        items=[item.type for item in reply.output],
        status=reply.status,
        incomplete=cut and cut.reason,
        usage=_response_usage(reply.usage),
    )


@facts.register
def _(reply: Generation) -> Facts:
    return _facts(
        **_together([_generated(choice) for choice in reply.choices]),
        usage=_usage(reply.usage),
        prompt_logprobs=_prompt(reply.prompt_logprobs),
    )


def _generated(choice: GenerationChoice) -> Facts:
    return _facts(
        token_ids=choice.token_ids,
        text=choice.text,
        message=choice.message and _message(choice.message),
        finish=choice.finish_reason,
        stop=choice.stop_reason,
        logprobs=_logprobs(choice.logprobs),
    )


def _message(message: ChatMessage) -> Facts:
    return _facts(text=message.content, reasoning=message.reasoning, calls=_calls(message.tool_calls))


@facts.register
def _(decision: Decision) -> Facts:
    return _facts(
        answers=[_answer(answer) for answer in decision.answers], usage=_response_usage(decision.usage)
    )


def _answer(answer: DecisionAnswer) -> str:
    match answer:
        case PredicateAnswer(probability=probability):
            return f"{answer.name} {_chance('yes', probability)}"
        case ChoiceAnswer(choice=choice):
            chances = [_chance(repr(each.value), each.probability) for each in answer.probabilities]
            return f"{answer.name} {choice!r} of {', '.join(chances)}"
        case ScoreAnswer(score=score):
            chances = [_chance(each.label, each.probability) for each in answer.probabilities]
            return f"{answer.name} {score:.2f} of {', '.join(chances)}"
        case _:
            return f"{answer.name} {answer.type}"


@facts.register
def _(rendered: RenderedPrompt) -> Facts:
    return _facts(token_ids=rendered.token_ids, sampling=sorted(rendered.sampling_params))


@facts.register
def _(made: Tokenization) -> Facts:
    return _facts(count=made.count, tokens=made.tokens, strs=made.token_strs, context=made.max_model_len)


# Vectors and scores


@facts.register
def _(answer: Embeddings) -> Facts:
    return _facts(vectors=[_vector(each) for each in answer.vectors], usage=_usage(answer.usage))


@facts.register
def _(answer: TokenEmbeddings) -> Facts:
    return _facts(
        vectors=[_vector(each.vectors) for each in answer.data],
        chunks=[
            [chunk.char_range for chunk in each.late_chunking.chunks]
            for each in answer.data
            if each.late_chunking is not None
        ],
        usage=_usage(answer.usage),
    )


@facts.register
def _(answer: PoolingOutputs) -> Facts:
    rows = [each.tolist() for each in answer.data]
    return _facts(outputs=[_vector(row) for row in rows], usage=_usage(answer.usage))


@facts.register
def _(answer: Classifications) -> Facts:
    return _facts(
        labels=answer.labels,
        probs=[_vector(list(each.probs)) for each in answer.data],
        usage=_usage(answer.usage),
    )


@facts.register
def _(answer: Scores) -> Facts:
    return _facts(scores=[round(score, 3) for score in answer.scores], usage=_usage(answer.usage))


@facts.register
def _(answer: Ranking) -> Facts:
    return _facts(
        order=answer.order,
        scores=[round(each.relevance_score, 3) for each in answer.results],
        documents=[each.document.text for each in answer.results],
        usage=_usage(answer.usage),
    )


def _vector(numbers: Sequence[float] | Sequence[Sequence[float]]) -> str:
    """How many numbers, their length as a vector, and the first of them; of several rows, how many and the first."""
    if numbers and not isinstance(numbers[0], (int, float)):
        rows = cast("Sequence[Sequence[float]]", numbers)
        return f"{len(rows)} rows, the first: {_vector(rows[0])}"
    row = cast("Sequence[float]", numbers)
    norm = sum(number * number for number in row) ** 0.5
    return f"{len(row)} numbers of norm {norm:.2f}: {', '.join(format(number, '.3f') for number in row[:3])}"


# The server


@facts.register
def _(models: ModelList) -> Facts:
    return _facts(
        models=[f"{model.id} context {model.max_model_len} root {model.root}" for model in models.data]
    )


@facts.register
def _(metrics: Metrics) -> Facts:
    histograms = {
        "time_to_first_token": metrics.time_to_first_token,
        "inter_token_latency": metrics.inter_token_latency,
        "queue_time": metrics.queue_time,
        "request_latency": metrics.request_latency,
    }
    return {
        "families": len(metrics),
        "running": metrics.requests_running,
        "waiting": metrics.requests_waiting,
        "finished": metrics.requests_finished,
        "prompt_tokens": metrics.prompt_tokens,
        "generation_tokens": metrics.generation_tokens,
        "preemptions": metrics.preemptions,
        "kv_cache_usage": metrics.kv_cache_usage,
        "prefix_cache": [metrics.prefix_cache_queries, metrics.prefix_cache_hits],
        **{name: found and found.count for name, found in histograms.items()},
    }


# What they have in common


def _usage(usage: Usage | None) -> str | None:
    """Tokens of the prompt and of the reply, and how many of these were reasoning, where the server reports it."""
    if usage is None:
        return None
    details = usage.completion_tokens_details
    reasoning = details.reasoning_tokens if details else None
    return _tokens(usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, reasoning)


def _response_usage(usage: ResponseUsage | None) -> str | None:
    if usage is None:
        return None
    details = usage.output_tokens_details
    reasoning = details.reasoning_tokens if details else None
    return _tokens(usage.input_tokens, usage.output_tokens, usage.total_tokens, reasoning)


def _tokens(prompt: int, reply: int, total: int, reasoning: int | None) -> str:
    of_them = "" if reasoning is None else f" ({reasoning} reasoning)"
    # Some servers report only the sum.
    return f"{prompt}+{reply}{of_them}{'' if total == prompt + reply else f', {total} in total'}"


def _together(choices: list[Facts]) -> Facts:
    return choices[0] if len(choices) == 1 else {"choices": choices}


def _count(tokens: Sequence[int] | None) -> str | None:
    return f"{len(tokens)} ids from {tokens[0]}" if tokens else None


def _facts(**found: Any) -> Facts:
    nothing: tuple[object, ...] = (None, "", [], {})
    return {name: value for name, value in found.items() if value not in nothing}


def unread_fields(answer: object, path: str = "") -> Iterator[str]:
    """The fields of an answer that no model has: they are in `model_extra` only."""
    if isinstance(answer, BaseModel):
        for name in answer.model_extra or {}:
            yield f"{path}{name}"
        for name in type(answer).model_fields:
            yield from unread_fields(getattr(answer, name), f"{path}{name}.")
    elif isinstance(answer, list):
        for item in cast("list[object]", answer):
            yield from unread_fields(item, path)


# Streams


def differing_pieces(pieces: Sequence[Any], reply: object) -> Facts:
    """Where the pieces of a stream do not add up to its reply: their own text, in `pieces`; else nothing."""
    added: list[tuple[object, object]]
    match reply:
        case ChatCompletion():
            added = [
                pair for choice in reply.choices for pair in _added(_of(pieces, choice.index), choice.message)
            ]
        case TextCompletion():
            added = [
                ("".join(each.text for each in _of(pieces, choice.index)), choice.text)
                for choice in reply.choices
            ]
        case Generation():
            added = [
                ([token for each in _of(pieces, choice.index) for token in each.token_ids], choice.token_ids)
                for choice in reply.choices
            ]
        case ModelResponse():
            added = [
                ("".join(event.text_delta for event in pieces).strip("\n"), reply.text),
                ("".join(event.reasoning_delta for event in pieces).strip("\n"), reply.reasoning or ""),
            ]
        case _:
            raise AssertionError(f"no stream adds up to a {type(reply).__name__}")
    return _facts(pieces=[joined for joined, whole in added if joined != whole])


def _added(pieces: Sequence[Any], message: ChatMessage) -> list[tuple[object, object]]:
    text = "".join(piece.delta.content or "" for piece in pieces)
    if message.tool_calls and not text.strip():
        text = ""  # the blank line before a call comes as a piece; it does not belong to the content
    reasoning = "".join(piece.delta.reasoning or "" for piece in pieces)
    return [(text, message.content or ""), (reasoning, message.reasoning or "")]


def _of(chunks: Sequence[Any], index: int) -> list[Any]:
    """The pieces of one choice."""
    return [each for chunk in chunks for each in chunk.choices if each.index == index]
