from __future__ import annotations

import copy
import json
import pickle
import re
import subprocess
import sys

import pytest

from support import recordings
from support.null_or_absent import null_and_absent
from vllmchat.chat.completion import (
    ChatCompletion,
    ChatMessage,
    Choice,
    FunctionCall,
    ToolCall,
    decode_completion,
)
from vllmchat.errors import ResponseError
from vllmchat.http.call import ResponseHead
from vllmchat.wire.decode import with_record
from vllmchat.wire.usage import Usage

REPLIES = recordings.names("chat*")


def recorded(name: str) -> ChatCompletion:
    return decode_completion(recordings.load(name).body)


def reply(message: object = None, **choice: object) -> ChatCompletion:
    """A reply with one choice that has the message and the given other fields."""
    body = {"object": "chat.completion", "choices": [{"index": 0, "message": message, **choice}]}
    return decode_completion(json.dumps(body).encode())


def call(arguments: object, name: object = "f", id: object = "c1") -> dict[str, object]:  # noqa: A002
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


class TestRecordedReplies:
    @pytest.mark.parametrize("name", REPLIES)
    def test_every_field_of_the_wire_is_kept(self, name: str) -> None:
        body = recordings.load(name).body
        assert json.loads(decode_completion(body).model_dump_json(exclude_unset=True)) == json.loads(body)

    @pytest.mark.parametrize("name", REPLIES)
    def test_every_field_of_the_wire_is_known(self, name: str) -> None:
        completion = recorded(name)
        assert completion.model_extra == {}
        for choice in completion.choices:
            assert choice.model_extra == {}
            assert choice.message.model_extra == {}
        assert completion.usage is not None
        assert completion.usage.model_extra == {}

    def test_text(self) -> None:
        completion = recorded("chat")
        assert completion.text == "The capital of France is Paris."
        assert completion.reasoning is None
        assert completion.tool_calls == []
        assert completion.finish_reason == "stop"
        assert completion.id == "chatcmpl-86680eea1db04ee8"
        assert completion.model == "tiny-qwen3"
        assert completion.usage is not None
        assert completion.usage.total_tokens == 44
        assert completion.usage.prompt_tokens_details is not None
        assert completion.usage.prompt_tokens_details.cached_tokens == 0
        assert completion.usage.completion_tokens_details is not None
        assert completion.usage.completion_tokens_details.reasoning_tokens == 0

    def test_reasoning_is_separate_from_the_text(self) -> None:
        completion = recorded("chat_reasoning")
        assert completion.text == "The capital of France is Paris."
        assert completion.reasoning == "The user asks for the capital of France. That is Paris."
        # The line breaks of the chat template
        assert completion.message.content == "\n\nThe capital of France is Paris."
        assert completion.message.reasoning == "\nThe user asks for the capital of France. That is Paris.\n"

    @pytest.mark.parametrize(
        ("content", "text"),
        [
            ("\r\n\n- a\n\n- b\n", "- a\n\n- b"),
            ("    if x:\n", "    if x:"),
            (" Paris.", " Paris."),
            ("\n\n", ""),
        ],
    )
    def test_only_line_breaks_around_a_text_are_left_out(self, content: str, text: str) -> None:
        message = {"content": content, "reasoning": content}
        completion = ChatCompletion.model_validate({"choices": [{"message": message}]})
        assert (completion.text, completion.reasoning) == (text, text or None)
        assert (completion.message.content, completion.message.reasoning) == (content, content)

    def test_without_content_the_text_is_empty(self) -> None:
        completion = recorded("chat_length")
        assert completion.message.content is None
        assert completion.text == ""
        assert completion.finish_reason == "length"

    def test_tool_calls(self) -> None:
        first, second = recorded("chat_tool_calls_parallel").tool_calls
        assert first.id == "chatcmpl-tool-ae447075da914a35"
        assert first.type == "function"
        assert first.name == first.function.name == "get_weather"
        assert first.arguments == first.function.arguments == '{"city": "Paris"}'
        assert first.complete
        assert first.parse() == {"city": "Paris"}
        assert second.parse() == {"city": "Oslo"}

    def test_several_choices(self) -> None:
        completion = recorded("chat_n2")
        assert [choice.index for choice in completion.choices] == [0, 1]
        assert completion.text == (completion.choices[0].message.content or "").strip("\n")

    def test_stop_reason(self) -> None:
        assert recorded("chat_stop_string").choices[0].stop_reason == " 7,"

    def test_logprobs(self) -> None:
        logprobs = recorded("chat_logprobs").choices[0].logprobs
        assert logprobs is not None
        assert logprobs.content is not None
        first = logprobs.content[0]
        assert first.token == "<think>"
        assert first.logprob == pytest.approx(-1.69e-05, rel=0.01)
        assert first.bytes == list(b"<think>")
        assert [top.token for top in first.top_logprobs] == ["<think>", " 30"]

    def test_token_ids(self) -> None:
        completion = recorded("chat_token_ids")
        assert completion.choices[0].token_ids == [700, 201, 35, 484, 16, 349]
        assert completion.prompt_token_ids is not None
        assert len(completion.prompt_token_ids) == 24

    def test_prompt_logprobs(self) -> None:
        completion = recorded("chat_prompt_logprobs")
        assert completion.prompt_logprobs is not None
        assert completion.prompt_logprobs[0] is None
        second = completion.prompt_logprobs[1]
        assert second is not None
        assert second["615"].decoded_token == " short"
        assert second["615"].rank == 1

    def test_samples_of_the_servers_own_models(self) -> None:
        text, tools = (decode_completion(body) for body in recordings.samples("nonstream"))
        assert text.text == "hi"
        assert text.prompt_logprobs is not None
        assert tools.reasoning == "r"
        assert tools.tool_calls[0].parse() == {}


class TestLeniency:
    @pytest.mark.parametrize("name", ["chat", "chat_tool_call", "chat_logprobs", "chat_token_ids"])
    def test_null_is_absent(self, name: str) -> None:
        body = json.loads(recordings.load(name).body)
        for null, absent in null_and_absent(body):
            assert decode_completion(json.dumps(null).encode()) == decode_completion(
                json.dumps(absent).encode()
            )
            assert ChatCompletion.model_validate(null) == ChatCompletion.model_validate(absent)

    def test_only_choices_are_required(self) -> None:
        completion = decode_completion(b'{"choices":[{}]}')
        assert completion.text == ""
        assert completion.object == "chat.completion"
        assert completion.message.role == "assistant"
        assert completion.finish_reason is None
        assert completion.usage is None

    @pytest.mark.parametrize(
        "body", [b'{"choices":[]}', b'{"choices":null}', b'{"object":"chat.completion"}']
    )
    def test_a_reply_without_choices_is_empty(self, body: bytes) -> None:
        completion = decode_completion(body)
        assert completion.text == ""
        assert completion.reasoning is None
        assert completion.tool_calls == []
        assert completion.finish_reason is None
        assert completion.message == ChatMessage()

    def test_unknown_fields_are_kept(self) -> None:
        completion = decode_completion(
            b'{"new":1,"choices":[{"newer":[2],"message":{"newest":{"a":3},"tool_calls":[{"x":4}]}}],'
            b'"usage":{"cost":0.5}}'
        )
        assert completion.model_extra == {"new": 1}
        assert completion.choices[0].model_extra == {"newer": [2]}
        assert completion.message.model_extra == {"newest": {"a": 3}}
        assert completion.tool_calls[0].model_extra == {"x": 4}
        assert completion.usage is not None
        assert completion.usage.model_extra == {"cost": 0.5}

    @pytest.mark.parametrize(
        ("message", "reasoning"),
        [
            ({"reasoning": "new"}, "new"),
            ({"reasoning_content": "old"}, "old"),
            ({"reasoning": "same", "reasoning_content": "same"}, "same"),
            ({"reasoning_content": "same", "reasoning": "same"}, "same"),
            ({"reasoning": "new", "reasoning_content": "old"}, "new"),
            ({"reasoning": None, "reasoning_content": "old"}, "old"),
            ({"reasoning_content": "old", "reasoning": None}, "old"),
            ({"reasoning": "new", "reasoning_content": None}, "new"),
            ({"reasoning": None, "reasoning_content": None}, None),
            ({"reasoning_content": None}, None),
            ({}, None),
        ],
    )
    def test_the_old_name_of_reasoning_is_read(
        self, message: dict[str, object], reasoning: str | None
    ) -> None:
        completion = reply({"content": "x", **message})
        assert completion.reasoning == reasoning
        assert completion.text == "x"
        assert completion.message.model_extra == {}

    def test_content_parts_are_joined(self) -> None:
        parts = [{"type": "text", "text": "a"}, "b", {"type": "image_url"}, 5, {"text": None}, {"text": "c"}]
        assert reply({"content": parts}).text == "abc"

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [('{"a": 1}', '{"a": 1}'), ({"a": "é"}, '{"a": "é"}'), ({}, "{}"), (None, ""), ("", "")],
    )
    def test_arguments_become_text(self, arguments: object, text: str) -> None:
        assert reply({"tool_calls": [call(arguments)]}).tool_calls[0].arguments == text

    def test_a_tool_call_of_nulls(self) -> None:
        tool_call = reply({"tool_calls": [call(None, name=None, id=None) | {"type": None}]}).tool_calls[0]
        assert (tool_call.id, tool_call.type, tool_call.name) == ("", "function", "")

    def test_a_missing_logprob_has_a_default(self) -> None:
        logprobs = reply({}, logprobs={"content": [{"token": "b", "bytes": [98]}]}).choices[0].logprobs
        assert logprobs is not None
        assert logprobs.content is not None
        assert logprobs.content[0].logprob == -9999.0
        assert logprobs.content[0].top_logprobs == []

    def test_fractional_numbers(self) -> None:
        completion = decode_completion(
            b'{"created":1795447413.75,"choices":[],"usage":{"prompt_tokens":3.0}}'
        )
        assert completion.created == 1795447413
        assert completion.usage is not None
        assert completion.usage.prompt_tokens == 3

    def test_infinite_numbers(self) -> None:
        body = b'{"choices":[{"logprobs":{"content":[{"token":"a","logprob":-Infinity}]}}]}'
        logprobs = decode_completion(body).choices[0].logprobs
        assert logprobs is not None
        assert logprobs.content is not None
        assert logprobs.content[0].logprob == float("-inf")

    @pytest.mark.parametrize("reason", ["stop", "abort", "repetition", "something-new"])
    def test_any_finish_reason(self, reason: str) -> None:
        assert reply({}, finish_reason=reason).finish_reason == reason

    @pytest.mark.parametrize("reason", [151645, "</s>", None])
    def test_any_stop_reason(self, reason: object) -> None:
        assert reply({}, stop_reason=reason).choices[0].stop_reason == reason


class TestOtherThings:
    @pytest.mark.parametrize(
        "body",
        [
            b'{"foo":1}',
            b"[]",
            b"null",
            b'"choices"',
            b"",
            b"   ",
            b"<html><body>502 Bad Gateway</body></html>",
            b'{"error":{"message":"m","code":400}}',
            b'{"object":"list","data":[]}',
            b'{"choices":5}',
            b'{"choices":[5]}',
            b'{"choices":[{"message":"text"}]}',
            b'{"choices":[{"message":{"content":5}}]}',
            b'{"choices":[{"message":{"tool_calls":{"a":1}}}]}',
            b'{"choices":[{"message":{"tool_calls":[{"function":{"arguments":[1]}}]}}]}',
            b'{"choices":[{"message":{"content":"cut',
        ],
    )
    def test_errors_show_the_start_of_the_body(self, body: bytes) -> None:
        with pytest.raises(ResponseError, match="not a chat completion") as caught:
            decode_completion(body)
        assert caught.value.body == body.decode("utf-8", "replace")
        if body.strip():
            assert body.decode("utf-8", "replace")[:100] in str(caught.value)
        else:
            assert "it is empty" in str(caught.value)

    @pytest.mark.parametrize(
        ("choices", "place"),
        [
            ('[{},{"message":{"content":5}}]', "choices.1.message.content: "),
            (
                '[{"message":{"tool_calls":[{"function":{"arguments":[1]}}]}}]',
                "choices.0.message.tool_calls.0.function.arguments: ",
            ),
            ("5", "choices: "),
        ],
    )
    def test_errors_name_the_field(self, choices: str, place: str) -> None:
        with pytest.raises(ResponseError, match=rf"completion \({re.escape(place)}"):
            decode_completion(f'{{"choices":{choices}}}'.encode())

    def test_a_long_body_is_shortened(self) -> None:
        body = b"<html>" + b"x" * 1_000_000
        with pytest.raises(ResponseError) as caught:
            decode_completion(body)
        assert len(str(caught.value)) < 400
        assert caught.value.body == body[:2_000].decode()


class TestToolCall:
    @pytest.mark.parametrize(
        ("arguments", "parsed"),
        [
            ("{}", {}),
            ('{"a": [1, null]}', {"a": [1, None]}),
            (' \n{"a":"é"} ', {"a": "é"}),
            ("", {}),
            (" ", {}),
            ("null", {}),
        ],
    )
    def test_parse(self, arguments: str, parsed: dict[str, object]) -> None:
        tool_call = ToolCall(function=FunctionCall(name="f", arguments=arguments))
        assert tool_call.complete
        assert tool_call.parse() == parsed

    @pytest.mark.parametrize(
        "arguments", ["{", '{"city": "Par', '{"a": 1, ', '{"a": tr', '{"a": {"b": [1, {"c": "\\']
    )
    def test_truncated_arguments(self, arguments: str) -> None:
        tool_call = ToolCall(id="c", function=FunctionCall(name="get_weather", arguments=arguments))
        assert not tool_call.complete
        assert tool_call.truncated
        with pytest.raises(ResponseError, match=r"'get_weather' has arguments that were truncated") as e:
            tool_call.parse()
        assert arguments in str(e.value)
        assert e.value.body == arguments

    @pytest.mark.parametrize("arguments", ["{'a': 1}", '{"a": 1}}', '{"a": 1} {"b": 2}', "get_weather(1)"])
    def test_invalid_arguments(self, arguments: str) -> None:
        tool_call = ToolCall(function=FunctionCall(name="f", arguments=arguments))
        assert not tool_call.complete
        assert not tool_call.truncated
        with pytest.raises(ResponseError, match="are not valid JSON"):
            tool_call.parse()

    @pytest.mark.parametrize("arguments", ["[1]", '"text"', "5"])
    def test_arguments_that_are_not_an_object(self, arguments: str) -> None:
        with pytest.raises(ResponseError, match="not a JSON object"):
            ToolCall(function=FunctionCall(name="f", arguments=arguments)).parse()

    def test_deeply_nested_arguments(self) -> None:
        tool_call = ToolCall(function=FunctionCall(arguments='{"a":' + "[" * 200_000))
        assert not tool_call.complete
        with pytest.raises(ResponseError) as caught:
            tool_call.parse()
        assert len(str(caught.value)) < 600

    @pytest.mark.parametrize("reason", ["length", "abort", "repetition", "content_filter"])
    def test_a_truncated_reply_truncates_its_last_call(self, reason: str) -> None:
        first, last = reply(
            {"tool_calls": [call("{}"), call("{}", id="c2")]}, finish_reason=reason
        ).tool_calls
        assert first.complete
        assert not first.truncated
        assert first.parse() == {}
        assert not last.complete
        assert last.truncated
        with pytest.raises(ResponseError, match="was truncated"):
            last.parse()

    @pytest.mark.parametrize("reason", ["stop", "tool_calls", None])
    def test_a_complete_reply_has_complete_calls(self, reason: str | None) -> None:
        tool_calls = reply({"tool_calls": [call("{}"), call("")]}, finish_reason=reason).tool_calls
        assert [tool_call.complete for tool_call in tool_calls] == [True, True]

    def test_a_truncated_call_is_recognized_by_its_json(self) -> None:
        # Up to vLLM 0.32, a call truncated by max_tokens may have the finish reason of a complete one.
        completion = reply({"tool_calls": [call('{"city":')]}, finish_reason="tool_calls")
        assert not completion.tool_calls[0].complete

    def test_the_flag_survives_copies(self) -> None:
        completion = reply({"tool_calls": [call("{}")]}, finish_reason="length")
        for copied in (
            copy.deepcopy(completion),
            pickle.loads(pickle.dumps(completion)),
            completion.model_copy(deep=True),
            ChatCompletion.model_validate_json(completion.model_dump_json()),
        ):
            assert not copied.tool_calls[0].complete
            assert copied == completion


class TestHistory:
    def test_text(self) -> None:
        assert recorded("chat").message.to_request() == {
            "role": "assistant",
            "content": "The capital of France is Paris.",
        }

    def test_reasoning(self) -> None:
        assert recorded("chat_reasoning").message.to_request() == {
            "role": "assistant",
            "content": "\n\nThe capital of France is Paris.",
            "reasoning": "\nThe user asks for the capital of France. That is Paris.\n",
        }

    def test_tool_calls(self) -> None:
        assert recorded("chat_tool_call").message.to_request() == {
            "role": "assistant",
            "content": None,
            "reasoning": "\nI need the weather tool for Paris.\n",
            "tool_calls": [
                {
                    "id": "chatcmpl-tool-bed33aa006cdcc5c",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
                }
            ],
        }

    def test_an_empty_message(self) -> None:
        assert ChatMessage().to_request() == {"role": "assistant", "content": ""}

    def test_reasoning_is_sent_back_under_the_new_name(self) -> None:
        message = reply({"content": "x", "reasoning_content": "r"}).message
        assert message.to_request() == {"role": "assistant", "content": "x", "reasoning": "r"}

    def test_fields_of_other_servers(self) -> None:
        message = reply(
            {
                "refusal": "no",
                "annotations": [],
                "audio": {"id": "a1", "data": "AAAA"},
                "function_call": {"name": "f", "arguments": "{}"},
                "reasoning_details": [{"type": "x"}],
                "nothing": None,
            }
        ).message
        assert message.to_request() == {
            "role": "assistant",
            "content": None,
            "refusal": "no",
            "audio": {"id": "a1"},
            "function_call": {"name": "f", "arguments": "{}"},
            "reasoning_details": [{"type": "x"}],
        }

    def test_audio_without_an_id_is_left_out(self) -> None:
        assert reply({"audio": {}}).message.to_request() == {"role": "assistant", "content": ""}

    def test_unknown_fields_of_a_call_are_sent_back(self) -> None:
        raw = call("{}") | {"extra_content": {"signature": "s"}}
        assert reply({"tool_calls": [raw]}).tool_calls[0].to_request() == raw

    def test_a_custom_tool(self) -> None:
        raw = {"id": "c", "type": "custom", "custom": {"name": "n", "input": "i"}}
        assert reply({"tool_calls": [raw]}).tool_calls[0].to_request() == raw

    @pytest.mark.parametrize("name", REPLIES)
    def test_messages_round_trip(self, name: str) -> None:
        message = recorded(name).message
        again = ChatMessage.model_validate_json(json.dumps(message.to_request()))
        assert again.content == message.content or (not again.content and not message.content)
        assert (again.role, again.reasoning, again.tool_calls) == (
            message.role,
            message.reasoning,
            message.tool_calls,
        )


class TestModels:
    def test_request_id(self) -> None:
        body = recordings.load("chat").body
        assert decode_completion(body).request_id is None
        completion = decode_completion(body, head=ResponseHead(200, {}, "r1"))
        assert completion.request_id == "r1"
        with_record(completion, ResponseHead(200, {}, "r2"))
        assert completion.request_id == "r2"
        assert "r2" not in completion.model_dump_json()
        assert pickle.loads(pickle.dumps(completion)).request_id == "r2"

    @pytest.mark.parametrize("name", REPLIES)
    def test_pickle_and_copy(self, name: str) -> None:
        completion = recorded(name)
        assert pickle.loads(pickle.dumps(completion)) == completion
        assert copy.deepcopy(completion) == completion
        assert copy.copy(completion) == completion

    def test_a_field_of_nulls_shares_nothing(self) -> None:
        one, other = reply({"tool_calls": None}), reply({"tool_calls": None})
        one.message.tool_calls.append(ToolCall())
        assert other.message.tool_calls == []

    def test_completions_can_be_constructed(self) -> None:
        completion = ChatCompletion(
            choices=[Choice(message=ChatMessage(content="hi", reasoning="r"), finish_reason="stop")],
            usage=Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3),
        )
        assert (completion.text, completion.reasoning, completion.finish_reason) == ("hi", "r", "stop")

    def test_has_a_json_schema(self) -> None:
        schema = ChatCompletion.model_json_schema()
        assert schema["properties"]["choices"]["items"] == {"$ref": "#/$defs/Choice"}
        assert schema["$defs"]["FunctionCall"]["properties"]["arguments"]["type"] == "string"

    def test_models_can_be_built_from_many_threads(self) -> None:
        # In a separate process, because models are built once per process.
        done = subprocess.run(
            [sys.executable, "-c", MANY_THREADS], capture_output=True, text=True, check=False, timeout=60
        )
        assert (done.stdout, done.stderr) == ("ok" * 48, "")


MANY_THREADS = """
import sys, threading
from vllmchat.chat.accumulate import Accumulator
from vllmchat.chat.chunk import decode_chunk
from vllmchat.chat.completion import decode_completion

sys.setswitchinterval(1e-6)
barrier = threading.Barrier(16)

def read():
    barrier.wait()
    for decode in (decode_completion, decode_chunk, lambda _: Accumulator().reply()):
        decode(b'{"choices":[]}')
        sys.stdout.write("ok")

threads = [threading.Thread(target=read) for _ in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"Infinity", b"-Infinity", b"NaN"])
def test_infinity_is_rejected_where_it_matters(number: bytes) -> None:
    with pytest.raises(ResponseError, match="not a chat completion"):
        decode_completion(b'{"choices":[{"index":%s,"message":{}}]}' % number)
    for body in (
        b'{"created":%s,"choices":[{"message":{}}]}',
        b'{"choices":[{"message":{}}],"usage":{"prompt_tokens":%s}}',
    ):
        completion = decode_completion(body % number)
        assert completion.created == 0
        assert completion.usage in (None, Usage())
