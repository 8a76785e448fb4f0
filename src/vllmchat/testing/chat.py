"""Replies of `/v1/chat/completions`, as vLLM 0.32 sends them."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING

from pydantic_core import to_json

from vllmchat.testing.exchange import DONE, Response
from vllmchat.testing.generated import (
    FINGERPRINT,
    Count,
    Object,
    Origin,
    call_tokens,
    count,
    event,
    stream_options,
    stream_usage,
    token_logprobs,
    usage_so_far,
    whole_usage,
)
from vllmchat.testing.tokens import pieces_of, split
from vllmchat.wire.decode import as_object

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vllmchat.chat.completion import ToolCall
    from vllmchat.testing.call import Call
    from vllmchat.testing.replies import Reply


def chat_response(call: Call, origin: Origin, choices: Sequence[Reply]) -> tuple[Response, list[Count]]:
    """The response to a chat, whole or streamed, and the tokens of each choice."""
    finishes = [_finish(call, choice) for choice in choices]
    counts = [count(call, origin, choice, finish) for choice, finish in zip(choices, finishes, strict=True)]
    if call.stream:
        return Response(list(_events(call, origin, choices, finishes, counts))), counts
    return Response(to_json(_whole(call, origin, choices, finishes, counts))), counts


def prompt_of(messages: Sequence[object]) -> str:
    """A conversation as one text, of which the tokens are counted."""
    parts: list[str] = []
    for each in messages:
        message = as_object(each) or {}
        content = message.get("content")
        text = content if isinstance(content, str) else to_json(content).decode() if content else ""
        calls = message.get("tool_calls")
        parts.append(f"<{message.get('role')}>{text}{to_json(calls).decode() if calls else ''}\n")
    return "".join([*parts, "<assistant>"])


def _is_forced(call: Call) -> bool:
    """Whether the model must call a tool."""
    choice = call.params.get("tool_choice")
    return choice == "required" or as_object(choice) is not None


def _finish(call: Call, choice: Reply) -> str:
    if choice.finish_reason is not None:
        return choice.finish_reason
    named = as_object(call.params.get("tool_choice")) is not None  # vLLM reports "stop" for a named tool
    return "tool_calls" if choice.tool_calls and not named else "stop"


def _reasoning(call: Call, choice: Reply) -> str | None:
    return choice.reasoning if call.params.get("include_reasoning") is not False else None


def _call_id(origin: Origin, choice: int, index: int, call: ToolCall) -> str:
    return call.id or f"chatcmpl-tool-{origin.id.removeprefix('chatcmpl-')}-{choice}-{index}"


def _top(call: Call) -> int:
    top = call.params.get("top_logprobs")
    return top if isinstance(top, int) else 0


def _tokens(call: Call, choice: Reply) -> list[str]:
    tokens = split(_reasoning(call, choice) or "") + split(choice.text)
    for each in choice.tool_calls:
        tokens += call_tokens(each)
    return tokens


def _whole(
    call: Call, origin: Origin, choices: Sequence[Reply], finishes: Sequence[str], counts: Sequence[Count]
) -> Object:
    ids = bool(call.params.get("return_token_ids"))
    logprobs = bool(call.params.get("logprobs"))
    bodies: list[Object] = []
    for index, (choice, finish) in enumerate(zip(choices, finishes, strict=True)):
        calls = [
            {
                "id": _call_id(origin, index, number, each),
                "type": "function",
                "function": {"name": each.function.name, "arguments": each.function.arguments},
            }
            for number, each in enumerate(choice.tool_calls)
        ]
        message: Object = {
            "role": "assistant",
            "content": choice.text or (None if (calls and not _is_forced(call)) or choice.reasoning else ""),
            "refusal": choice.refusal,
            "annotations": None,
            "audio": None,
            "function_call": None,
            **({"tool_calls": calls} if calls else {}),
            "reasoning": _reasoning(call, choice),
        }
        tokens = _tokens(call, choice)
        bodies.append(
            {
                "index": index,
                "message": message,
                "logprobs": {"content": token_logprobs(tokens, _top(call))} if logprobs else None,
                "finish_reason": finish,
                "stop_reason": choice.stop_reason,
                "token_ids": origin.vocabulary.encode("".join(tokens)) if ids else None,
                "routed_experts": None,
            }
        )
    return {
        "id": origin.id,
        "object": "chat.completion",
        "created": origin.created,
        "model": origin.model,
        "choices": bodies,
        "service_tier": None,
        "system_fingerprint": FINGERPRINT,
        "usage": whole_usage(counts, choices[0].usage if len(choices) == 1 else None),
        "prompt_logprobs": None,
        "prompt_token_ids": origin.vocabulary.encode(origin.prompt) if ids else None,
        "prompt_text": origin.prompt if call.params.get("return_prompt_text") else None,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "metrics": None,
    }


def _events(
    call: Call, origin: Origin, choices: Sequence[Reply], finishes: Sequence[str], counts: Sequence[Count]
) -> Iterator[bytes]:
    ends_with_usage, continuous = stream_options(call)
    ids = bool(call.params.get("return_token_ids"))
    logprobs = bool(call.params.get("logprobs"))
    head: Object = {
        "id": origin.id,
        "object": "chat.completion.chunk",
        "created": origin.created,
        "model": origin.model,
    }
    prompt: Object = {
        "prompt_token_ids": origin.vocabulary.encode(origin.prompt) if ids else None,
        "prompt_text": origin.prompt if call.params.get("return_prompt_text") else None,
    }
    for index in range(len(choices)):
        first = {
            "index": index,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }
        usage = {"usage": usage_so_far(Count(counts[index].prompt, 0, 0))} if continuous else {}
        yield event({**head, "choices": [first], **usage, **prompt})
    so_far = [Count(each.prompt, 0, 0) for each in counts]
    strands = [_deltas(call, origin, index, choice) for index, choice in enumerate(choices)]
    for turn in zip_longest(*strands):
        for index, step in enumerate(turn):
            if step is None:
                continue
            delta, tokens = step
            body: Object = {
                "index": index,
                "delta": delta,
                "logprobs": {"content": token_logprobs(tokens, _top(call))} if logprobs and tokens else None,
                "finish_reason": None,
                "token_ids": origin.vocabulary.encode("".join(tokens)) if ids and tokens else None,
            }
            if not delta:
                body["finish_reason"] = finishes[index]
                body["stop_reason"] = choices[index].stop_reason
                so_far[index] = counts[index]
            elif continuous:
                before, most = so_far[index], counts[index]
                reasoning = before.reasoning + len(tokens) * ("reasoning" in delta)
                generated = min(before.generated + len(tokens), most.generated)
                so_far[index] = Count(before.prompt, min(reasoning, most.reasoning), generated)
            usage = {"usage": usage_so_far(so_far[index])} if continuous else {}
            yield event({**head, "choices": [body], **usage})
    if ends_with_usage:
        usage = stream_usage(counts, choices[0].usage if len(choices) == 1 else None)
        yield event({**head, "choices": [], "usage": usage, "system_fingerprint": FINGERPRINT})
    yield DONE


def _deltas(call: Call, origin: Origin, index: int, choice: Reply) -> Iterator[tuple[Object, list[str]]]:
    """What each chunk adds to a choice, and the tokens of it; at last nothing, with the finish reason."""
    chunk = choice.chunk or origin.chunk
    for piece in pieces_of(_reasoning(call, choice) or "", chunk):
        yield {"reasoning": piece}, split(piece)
    for piece in choice.pieces if choice.pieces is not None else pieces_of(choice.text, chunk):
        if piece:
            yield {"content": piece}, split(piece)
    if choice.refusal is not None:
        yield {"refusal": choice.refusal}, []
    for number, each in enumerate(choice.tool_calls):
        named = {"name": each.function.name}
        opened = {
            "id": _call_id(origin, index, number, each),
            "type": "function",
            "index": number,
            "function": named,
        }
        yield {"content": None, "tool_calls": [opened]}, split(each.function.name)
        for piece in pieces_of(each.function.arguments, chunk):
            added = {"index": number, "function": {"arguments": piece}}
            yield {"content": None, "tool_calls": [added]}, split(piece)
    yield {}, []
