from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given, settings

from support import recordings
from support.replies import Streamed, streamed_replies
from vllmchat.chat.accumulate import Accumulator
from vllmchat.chat.chunk import ChatCompletionChunk, decode_chunk
from vllmchat.chat.completion import ChatCompletion, ToolCall, decode_completion
from vllmchat.http.call import ResponseHead

STREAMS = recordings.names("stream*")


def chunk(*choices: dict[str, Any], **fields: Any) -> ChatCompletionChunk:
    return decode_chunk(json.dumps({"id": "x", **fields, "choices": choices}).encode())


def delta(fields: dict[str, Any], index: int = 0, **choice: Any) -> ChatCompletionChunk:
    return chunk({"index": index, "delta": fields, **choice})


def calls(*pieces: dict[str, Any], **choice: Any) -> ChatCompletionChunk:
    return delta({"tool_calls": pieces}, **choice)


def piece(
    index: int | None = 0,
    arguments: Any = None,
    *,
    id: Any = None,  # noqa: A002
    name: Any = None,
) -> dict[str, Any]:
    return {"index": index, "id": id, "function": {"name": name, "arguments": arguments}}


END = delta({}, finish_reason="stop")


def accumulated(*chunks: ChatCompletionChunk, expected: int = 1) -> Accumulator:
    accumulator = Accumulator(expected=expected)
    for each in chunks:
        accumulator.add(each)
    return accumulator


def added_up(*chunks: ChatCompletionChunk) -> ChatCompletion:
    return accumulated(*chunks).reply()


def recorded_stream(name: str) -> Accumulator:
    return accumulated(*map(decode_chunk, recordings.load(name).chunks))


def recorded_reply(name: str) -> ChatCompletion:
    return decode_completion(recordings.load(name).body)


def comparable(completion: ChatCompletion) -> Any:
    """Returns what two replies to one request have in common: all but ids and times."""
    dumped = completion.model_dump(exclude={"id", "created"})
    for choice in dumped["choices"]:
        for call in choice["message"]["tool_calls"]:
            call["id"] = ""
    return dumped


class TestRecordedStreams:
    def test_a_stream_adds_up_to_the_reply(self) -> None:
        assert comparable(recorded_stream("stream").reply()) == comparable(recorded_reply("chat"))

    @pytest.mark.parametrize("name", ["tool_call", "tool_calls_parallel", "tool_required"])
    def test_a_stream_of_tool_calls_adds_up_to_the_reply(self, name: str) -> None:
        streamed, whole = (
            comparable(recorded_stream(f"stream_{name}").reply()),
            recorded_reply(f"chat_{name}"),
        )
        # The server itself differs: without streaming, a required call has an empty text instead of none.
        content = streamed["choices"][0]["message"].pop("content")
        expected = comparable(whole)
        assert content is None
        assert not expected["choices"][0]["message"].pop("content")
        assert streamed == expected
        assert [call.complete for call in whole.tool_calls] == [True] * len(whole.tool_calls)

    def test_logprobs_and_token_ids_are_those_of_the_replies(self) -> None:
        streamed = recorded_stream("stream_logprobs_token_ids").reply()
        assert streamed.choices[0].logprobs == recorded_reply("chat_logprobs").choices[0].logprobs
        assert streamed.choices[0].token_ids == recorded_reply("chat_token_ids").choices[0].token_ids
        assert streamed.prompt_token_ids == recorded_reply("chat_token_ids").prompt_token_ids
        assert streamed.message == recorded_reply("chat_token_ids").message
        assert streamed.usage == recorded_reply("chat_token_ids").usage

    def test_the_size_of_chunks_does_not_matter(self) -> None:
        large = recorded_stream("stream_interval").reply()
        assert comparable(large) == comparable(recorded_stream("stream_long").reply())
        assert large.text == ", ".join(str(number) for number in range(1, 101)) + "."

    def test_several_choices(self) -> None:
        completion = recorded_stream("stream_n2").reply()
        assert [choice.index for choice in completion.choices] == [0, 1]
        assert [choice.message.reasoning for choice in completion.choices] == [
            "\nA greeting. I greet back"
        ] * 2
        assert [choice.finish_reason for choice in completion.choices] == ["length", "length"]
        assert completion.usage is not None
        assert completion.usage.completion_tokens == 16

    def test_a_truncated_call(self) -> None:
        (call,) = recorded_stream("stream_tool_cut_by_max_tokens").reply().tool_calls
        assert call.arguments == '{"city":'
        assert not call.complete

    def test_unicode(self) -> None:
        text = recorded_stream("stream_unicode").reply().message.content
        assert text == "\n\nHello, Bonjour, こんにちは, 你好, Здравствуйте 👋🏽"

    @pytest.mark.parametrize("name", STREAMS)
    def test_the_completion_is_valid_at_any_time(self, name: str) -> None:
        chunks = [decode_chunk(data) for data in recordings.load(name).chunks]
        accumulator = Accumulator(expected=2 if name == "stream_n2" else 1)
        text = reasoning = ""
        for position, each in enumerate(chunks):
            accumulator.add(each)
            text += each.text
            reasoning += each.reasoning or ""
            completion = accumulator.reply()
            # White space before tool calls is dropped, as the server drops it without streaming.
            content = completion.message.content or ""
            assert content == ("" if completion.tool_calls and not text.strip() else text)
            assert (completion.message.reasoning or "") == reasoning
            assert completion.id == each.id
            assert completion.object == "chat.completion"
            assert accumulator.finished == (position >= len(chunks) - 2)

    @pytest.mark.parametrize("name", STREAMS)
    def test_it_serializes_like_a_reply(self, name: str) -> None:
        completion = recorded_stream(name).reply()
        assert decode_completion(completion.model_dump_json().encode()) == completion


class TestAnyStream:
    @settings(deadline=None)
    @given(streamed_replies())
    def test_adds_up_to_the_reply(self, streamed: Streamed) -> None:
        chunks = [decode_chunk(data) for data in streamed.chunks]
        accumulator = accumulated(*chunks, expected=len(streamed.reply["choices"]))
        whole = decode_completion(streamed.body)
        assert accumulator.reply() == whole
        assert accumulator.finished
        for choice, expected in zip(accumulator.reply().choices, whole.choices, strict=True):
            flags = [call.complete for call in choice.message.tool_calls]
            assert flags == [call.complete for call in expected.message.tool_calls]

    @settings(deadline=None)
    @given(streamed_replies())
    def test_an_interrupted_stream_never_has_a_false_complete_call(self, streamed: Streamed) -> None:
        accumulator = Accumulator()
        whole = decode_completion(streamed.body)
        for data in streamed.chunks:
            accumulator.add(decode_chunk(data))
            for choice in accumulator.reply().choices:
                for number, call in enumerate(choice.message.tool_calls):
                    expected = whole.choices[choice.index].message.tool_calls
                    if call.complete:
                        assert call in expected
                    if choice.finish_reason is not None:
                        assert call.complete == expected[number].complete

    @settings(deadline=None)
    @given(streamed_replies())
    def test_chunks_are_not_changed(self, streamed: Streamed) -> None:
        chunks = [decode_chunk(data) for data in streamed.chunks]
        accumulated(*chunks).reply()
        assert chunks == [decode_chunk(data) for data in streamed.chunks]


class TestTheEnd:
    def test_no_chunks(self) -> None:
        accumulator = Accumulator()
        assert not accumulator.finished
        assert accumulator.reply() == ChatCompletion()

    def test_needs_a_finish_reason_for_every_expected_choice(self) -> None:
        first, second = delta({"content": "a"}, finish_reason="stop"), delta({"content": "b"}, index=1)
        assert not accumulated(delta({"content": "a"})).finished
        assert accumulated(first).finished
        assert not accumulated(first, expected=2).finished
        assert not accumulated(first, second).finished
        assert accumulated(first, second, delta({}, index=1, finish_reason="length"), expected=2).finished

    def test_a_repeated_finish_reason_counts_once(self) -> None:
        accumulator = accumulated(END, delta({}, finish_reason="length"), delta({}, index=1), expected=2)
        assert not accumulator.finished
        assert accumulator.reply().finish_reason == "length"

    def test_an_empty_finish_reason_is_ignored(self) -> None:
        accumulator = accumulated(delta({"content": "a"}, finish_reason=""))
        assert not accumulator.finished
        assert accumulator.reply().finish_reason is None

    def test_a_chunk_without_choices_is_not_the_end(self) -> None:
        assert not accumulated(delta({"content": "a"}), chunk(usage={"prompt_tokens": 1})).finished


class TestContent:
    def test_is_empty_for_an_empty_reply(self) -> None:
        assert added_up(delta({"role": "assistant", "content": ""}), END).message.content == ""

    def test_is_none_with_only_reasoning_or_calls(self) -> None:
        assert added_up(delta({"content": ""}), delta({"reasoning": "r"}), END).message.content is None
        assert added_up(delta({"content": ""}), calls(piece(name="f")), END).message.content is None

    def test_line_endings_are_kept(self) -> None:
        text = "a\r\nb\rc\n\u2028\u2029\x85\x00"
        assert added_up(*(delta({"content": char, "reasoning": char}) for char in text)).text == text
        assert added_up(*(delta({"content": char, "reasoning": char}) for char in text)).reasoning == text

    def test_another_role(self) -> None:
        assert added_up(delta({"role": "tool"}), delta({"content": "x"})).message.role == "tool"


class TestToolCalls:
    def tool_calls(self, *chunks: ChatCompletionChunk) -> list[tuple[str, str, str]]:
        return [(call.id, call.name, call.arguments) for call in added_up(*chunks, END).tool_calls]

    def test_a_late_name(self) -> None:
        assert self.tool_calls(
            calls(piece(id="c1")), calls(piece(arguments="{")), calls(piece(name="f", arguments="}"))
        ) == [("c1", "f", "{}")]

    def test_a_repeated_name_and_id(self) -> None:
        assert self.tool_calls(
            calls(piece(id="c1", name="f", arguments='{"a"')),
            calls(piece(id="c1", name="f", arguments=": 1}")),
        ) == [("c1", "f", '{"a": 1}')]

    def test_the_first_id_is_kept(self) -> None:
        assert self.tool_calls(
            calls(piece(id="c1", name="f", arguments='{"a"')),
            calls(piece(id="c2", name="f", arguments=": 1}")),
            calls(piece(id="c3")),
        ) == [("c1", "f", '{"a": 1}')]

    def test_calls_that_are_all_numbered_0(self) -> None:
        assert self.tool_calls(
            calls(piece(id="c1", name="f", arguments='{"a": 1}'), piece(id="c2", name="f", arguments='{"a"')),
            calls(piece(arguments=": 2}")),
        ) == [("c1", "f", '{"a": 1}'), ("c2", "f", '{"a": 2}')]

    def test_calls_without_numbers(self) -> None:
        assert self.tool_calls(
            calls(piece(None, id="c1", name="f", arguments="{}")),
            calls(piece(None, id="c2", name="g", arguments="{}")),
        ) == [("c1", "f", "{}"), ("c2", "g", "{}")]

    def test_calls_without_numbers_and_ids(self) -> None:
        assert self.tool_calls(
            calls(piece(None, name="f", arguments='{"a":')),
            calls(piece(None, arguments="1}")),
            calls(piece(None, name="f", arguments='{"a":2}')),
        ) == [("", "f", '{"a":1}'), ("", "f", '{"a":2}')]

    def test_numbers_out_of_order(self) -> None:
        assert self.tool_calls(calls(piece(2, id="c", name="h")), calls(piece(0, id="a", name="f"))) == [
            ("a", "f", ""),
            ("c", "h", ""),
        ]

    def test_arguments_that_are_an_object(self) -> None:
        assert self.tool_calls(calls(piece(id="c", name="f", arguments={"a": 1}))) == [("c", "f", '{"a": 1}')]

    def test_no_function_at_all(self) -> None:
        assert self.tool_calls(calls({"index": 0, "id": "c"})) == [("c", "", "")]

    def test_unknown_fields_are_kept(self) -> None:
        raw = {"index": 0, "id": "c", "extra_content": {"s": 1}, "function": {"name": "f", "strict": True}}
        (call,) = added_up(calls(raw), END).tool_calls
        assert call.model_extra == {"extra_content": {"s": 1}}
        assert call.function.model_extra == {"strict": True}

    def test_the_type_is_kept(self) -> None:
        (call,) = added_up(calls({"index": 0, "id": "c", "type": "custom"}), END).tool_calls
        assert call.type == "custom"

    @pytest.mark.parametrize("reason", ["length", "abort"])
    def test_a_truncated_reply_truncates_its_last_call(self, reason: str) -> None:
        whole = calls(piece(0, "{}", name="f"), piece(1, "{}", name="f"), finish_reason=reason)
        assert [call.complete for call in added_up(whole).tool_calls] == [True, False]

    def test_an_open_call_is_not_complete(self) -> None:
        def flags(*chunks: ChatCompletionChunk) -> list[bool]:
            return [call.complete for call in added_up(*chunks).tool_calls]

        first, second = calls(piece(0, '{"a": 1}', name="f")), calls(piece(1, "", name="g"))
        assert flags(first) == [False]
        assert flags(first, second) == [True, False]
        assert flags(calls(piece(0, "", name="f")), second) == [False, False]
        assert flags(calls(piece(0, "12", name="f")), second) == [False, False]
        assert flags(first, second, END) == [True, True]

    def test_later_chunks_do_not_change_a_completion(self) -> None:
        accumulator = accumulated(calls(piece(0, "{", name="f")))
        (before,) = accumulator.reply().tool_calls
        accumulator.add(calls(piece(0, "}"), finish_reason="stop"))
        assert before.arguments == "{"
        assert accumulator.reply().tool_calls == [
            ToolCall.model_validate({"function": {"name": "f", "arguments": "{}"}})
        ]


class TestUsage:
    def test_the_last_usage_counts(self) -> None:
        usage = added_up(chunk(usage={"prompt_tokens": 1}), chunk(usage={"prompt_tokens": 2})).usage
        assert usage is not None
        assert usage.prompt_tokens == 2

    def test_usage_in_the_last_delta(self) -> None:
        last = chunk({"index": 0, "delta": {}, "finish_reason": "stop"}, usage={"completion_tokens": 5})
        usage = added_up(chunk(usage={"completion_tokens": 1}), delta({"content": "a"}), last).usage
        assert usage is not None
        assert usage.completion_tokens == 5

    def test_total_usage_in_a_chunk_with_several_choices(self) -> None:
        both = chunk({"index": 0}, {"index": 1}, usage={"completion_tokens": 5})
        usage = added_up(both).usage
        assert usage is not None
        assert usage.completion_tokens == 5

    def test_is_summed_over_the_choices_of_an_interrupted_stream(self) -> None:
        chunks = [decode_chunk(data) for data in recordings.load("stream_n2").chunks]
        whole, broken = added_up(*chunks).usage, added_up(*chunks[:-1]).usage
        assert whole is not None
        assert broken is not None
        assert broken.prompt_tokens_details is None
        assert broken == whole.model_copy(update={"prompt_tokens_details": None})
        last = chunks[-2].usage
        assert last is not None
        assert last.completion_tokens == 8  # the chunk's own usage is not modified

    def test_is_summed_without_details(self) -> None:
        def told(index: int, tokens: int) -> ChatCompletionChunk:
            return chunk({"index": index}, usage={"prompt_tokens": 3, "completion_tokens": tokens})

        usage = added_up(told(0, 1), told(1, 2)).usage
        assert usage is not None
        assert (usage.completion_tokens, usage.total_tokens) == (3, 6)
        assert usage.completion_tokens_details is None


class TestOtherFields:
    def test_of_the_whole_reply(self) -> None:
        completion = added_up(
            chunk(
                {"index": 0, "delta": {"content": "a"}},
                created=5,
                model="m",
                service_tier="default",
                prompt_text="p",
                prompt_token_ids=[1, 2],
            ),
            chunk(
                {
                    "index": 0,
                    "delta": {},
                    "finish_reason": "stop",
                    "stop_reason": 7,
                    "weight_versions": [{"version": "v7", "start": 0, "end": 5}],
                    "of_a_newer_server": [1],
                },
                created=5,
                model="m",
                kv_transfer_params={"a": 1},
                ec_transfer_params={"b": 2},
            ),
            chunk(system_fingerprint="fp", metrics={"queue_time_ms": 1.5}, provider="p", nothing=None),
        )
        assert (completion.id, completion.created, completion.model) == ("x", 5, "m")
        assert (completion.service_tier, completion.system_fingerprint) == ("default", "fp")
        assert (completion.prompt_text, completion.prompt_token_ids) == ("p", [1, 2])
        assert (completion.kv_transfer_params, completion.ec_transfer_params) == ({"a": 1}, {"b": 2})
        assert completion.metrics is not None
        assert completion.metrics.queue_time_ms == 1.5
        assert completion.choices[0].stop_reason == 7
        assert completion.choices[0].weight_versions is not None
        assert [each.version for each in completion.choices[0].weight_versions] == ["v7"]
        assert completion.choices[0].model_extra == {"of_a_newer_server": [1]}
        assert completion.model_extra == {"provider": "p"}

    def test_a_first_chunk_without_an_id(self) -> None:
        completion = added_up(decode_chunk(b'{"choices":[]}'), chunk(created=3, model="m"))
        assert (completion.id, completion.created, completion.model) == ("x", 3, "m")

    def test_padding_is_ignored(self) -> None:
        assert added_up(chunk({"index": 0}, obfuscation="aZ")).model_extra == {}

    def test_refusal_logprobs(self) -> None:
        token = {"token": "a", "logprob": -1.0}
        logprobs = added_up(*[delta({}, logprobs={"refusal": [token]})] * 2).choices[0].logprobs
        assert logprobs is not None
        assert logprobs.content is None
        assert [each.token for each in logprobs.refusal or []] == ["a", "a"]

    def test_logprobs_without_tokens(self) -> None:
        logprobs = added_up(delta({}, logprobs={"content": []})).choices[0].logprobs
        assert logprobs is not None
        assert logprobs.content == []

    def test_unknown_pieces(self) -> None:
        message = added_up(
            delta({"refusal": "I ", "audio": {"id": "a", "data": "AA"}, "details": [{"x": 1}], "score": 1}),
            delta(
                {"refusal": "can't", "audio": {"id": "a", "data": "BB"}, "details": [{"x": 2}], "score": 2}
            ),
            delta({"refusal": None, "function_call": {"name": "f", "arguments": "{"}}),
            delta({"function_call": {"arguments": "}"}}),
        ).message
        assert message.content is None
        assert message.refusal == "I can't"
        assert message.audio == {"id": "a", "data": "AABB"}
        assert message.function_call is not None
        assert (message.function_call.name, message.function_call.arguments) == ("f", "{}")
        assert message.model_extra == {"details": [{"x": 1}, {"x": 2}], "score": 2}

    def test_pieces_that_change_their_type(self) -> None:
        pieces: list[Any] = ["a", [1], {"b": 1}, "c", 5]
        for position in range(1, len(pieces) + 1):
            message = added_up(*(delta({"x": value}) for value in pieces[:position])).message
            assert message.model_extra == {"x": pieces[position - 1]}

    def test_invalid_unknown_pieces_do_not_lose_the_reply(self) -> None:
        completion = added_up(delta({"content": "a", "refusal": [5]}), chunk(prompt_logprobs="?"), END)
        assert completion.text == "a"
        assert completion.finish_reason == "stop"
        assert completion.message.refusal is None

    def test_later_chunks_do_not_change_unknown_fields(self) -> None:
        first = delta(
            {"details": [1], "audio": {"id": "a"}}, token_ids=[1], logprobs={"content": [{"token": "a"}]}
        )
        accumulator = accumulated(first)
        before = accumulator.reply()
        dumped = before.model_dump()
        accumulator.add(
            delta(
                {"details": [2], "audio": {"b": "c"}}, token_ids=[2], logprobs={"content": [{"token": "b"}]}
            )
        )
        assert before.model_dump() == dumped
        assert first.choices[0].token_ids == [1]
        assert accumulator.reply().message.model_extra == {"details": [1, 2]}

    def test_both_names_of_reasoning_in_a_constructed_chunk(self) -> None:
        raw = {"choices": [{"delta": {"reasoning": "r", "reasoning_content": "r"}}]}
        message = added_up(ChatCompletionChunk.model_validate(raw)).message
        assert (message.reasoning, message.model_extra) == ("r", {})

    def test_the_request_id(self) -> None:
        assert Accumulator().reply(head=ResponseHead(200, {}, "r")).request_id == "r"


def test_chunks_are_not_kept_alive() -> None:
    first = delta({"content": "a"})
    held = sys.getrefcount(first), sys.getrefcount(first.choices[0])
    accumulator = accumulated(first)
    assert (sys.getrefcount(first), sys.getrefcount(first.choices[0])) == held
    assert accumulator.reply().text == "a"


@pytest.mark.parametrize("reason", ["length", "abort", "content_filter", "error"])
def test_a_reason_that_truncates_stays_when_stop_follows(reason: str) -> None:
    whole_call = calls(piece(0, '{"city": "Paris"}', id="a", name="weather"))

    reply = added_up(whole_call, delta({}, finish_reason=reason), END)

    assert reply.finish_reason == reason
    assert not reply.tool_calls[0].complete


def test_the_text_null_is_no_finish_reason() -> None:
    begun = delta({"content": "a"}, finish_reason="null")

    assert accumulated(begun).shortfall() == "choice 0 has no finish reason"
    assert added_up(begun, END).finish_reason == "stop"


def test_a_whole_message_at_the_end_does_not_repeat_the_deltas() -> None:
    pieces = [delta({"role": "assistant", "content": "a"}), delta({"content": "b"})]
    endings: tuple[dict[str, Any], ...] = (
        {"delta": {}, "message": {"role": "assistant", "content": "ab"}},
        {"delta": {"role": "assistant", "content": ""}, "message": {"content": "ab"}},
        {"message": {"content": "ab"}},
        {"delta": {}, "text": "ab"},
    )
    for last in endings:
        assert added_up(*pieces, chunk({"index": 0, **last, "finish_reason": "stop"})).text == "ab"


def test_what_only_the_whole_message_at_the_end_has_is_kept() -> None:
    call = piece(0, '{"city": "Paris"}', id="a", name="weather")
    message = {"content": "a", "tool_calls": [call]}

    def last() -> ChatCompletionChunk:
        return chunk({"index": 0, "message": message, "finish_reason": "tool_calls"})

    for first in (delta({"content": "a"}), delta({"reasoning": "r"}), calls(call)):
        reply = added_up(first, last())
        assert reply.text == "a"
        assert [call.arguments for call in reply.tool_calls] == ['{"city": "Paris"}']


def test_pieces_that_come_as_messages_are_joined() -> None:
    pieces = [chunk({"index": 0, "message": {"content": "ha"}}) for _ in range(2)]

    assert added_up(*pieces, END).text == "haha"


def test_a_message_with_a_delta_of_the_role_only_is_read() -> None:
    both = {"delta": {"role": "assistant"}, "message": {"content": "ab"}, "finish_reason": "stop"}

    assert added_up(chunk({"index": 0, **both})).text == "ab"


def test_a_delta_takes_precedence_over_a_message_in_the_same_chunk() -> None:
    both = {"delta": {"content": "b"}, "message": {"content": "ab"}, "finish_reason": "stop"}

    assert added_up(delta({"content": "a"}), chunk({"index": 0, **both})).text == "ab"


def test_an_id_that_is_a_number_becomes_text() -> None:
    streamed = added_up(calls(piece(0, '{"a":', id=7, name="f")), calls(piece(0, "1}", id=7)), END)
    whole = decode_completion(
        b'{"choices":[{"message":{"tool_calls":[{"id":7,"function":{"name":"f","arguments":"{}"}}]}}]}'
    )

    assert [(call.id, call.arguments) for call in streamed.tool_calls] == [("7", '{"a":1}')]
    assert whole.tool_calls[0].id == "7"
