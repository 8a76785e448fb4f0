"""What type checkers say of parameters and messages: read by mypy and pyright, never run.

A line that must be refused says so to both of them; an ignore that nothing needs is an error.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, assert_type

from vllmchat.chat.content import ImagePart
from vllmchat.chat.messages import (
    History,
    Message,
    Messages,
    audio_part,
    custom_message,
    encode_messages,
    image_part,
    text_part,
    tool_message,
    user_message,
    video_part,
)
from vllmchat.http.timeout import Timeout

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from vllmchat.chat.completion import ChatCompletion, ChatMessage
    from vllmchat.chat.content import ContentPart
    from vllmchat.chat.params import ChatParams, ChatParamsBase, CommonChatParams, VLLMChatParams
    from vllmchat.sampling.formats import ResponseFormat, StructuredOutputs
    from vllmchat.schemas.tool_params import FunctionTool


class Chats(Protocol):
    """A provider, as code that works with any sees it."""

    def chat(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[CommonChatParams]
    ) -> ChatCompletion: ...


class OpenAIs:
    def chat(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[ChatParams]
    ) -> ChatCompletion:
        raise NotImplementedError


class VLLMs:
    def chat(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[VLLMChatParams]
    ) -> ChatCompletion:
        raise NotImplementedError


class Commons:
    def chat(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[CommonChatParams]
    ) -> ChatCompletion:
        raise NotImplementedError


class Openly:
    def chat(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[ChatParamsBase]
    ) -> ChatCompletion:
        raise NotImplementedError


class Unrelated:
    def chat(self, messages: Messages, *, model: str | None = None, **params: Any) -> ChatCompletion:
        raise NotImplementedError


class UnrelatedStrict:
    def chat(self, messages: Messages, *, model: str | None = None, **params: object) -> ChatCompletion:
        raise NotImplementedError


class NoParameters:
    def chat(self, messages: Messages, *, model: str | None = None) -> ChatCompletion:
        raise NotImplementedError


def satisfied() -> list[Chats]:
    return [OpenAIs(), VLLMs(), Commons(), Unrelated(), UnrelatedStrict()]


too_few: Chats = NoParameters()  # type: ignore[assignment]
without_tools: Chats = Openly()  # type: ignore[assignment]


def passing_on(any_of: Chats, openai: OpenAIs, vllm: VLLMs, **params: Unpack[CommonChatParams]) -> None:
    """What every provider takes goes to any of them."""
    any_of.chat("x", **params)
    openai.chat("x", **params)
    vllm.chat("x", **params, top_k=5)


def passing_on_vllms(vllm: VLLMs, **params: Unpack[VLLMChatParams]) -> None:
    vllm.chat("x", **params)


def names(any_of: Chats, openai: OpenAIs, vllm: VLLMs) -> None:
    any_of.chat("x", temperature=0.5, max_tokens=5, timeout=3)
    any_of.chat("x", top_k=5)  # type: ignore[call-arg]
    openai.chat("x", store=True, verbosity="low", service_tier="on_demand", reasoning_effort="default")
    openai.chat("x", top_k=5)  # type: ignore[call-arg]
    vllm.chat("x", top_k=5, min_p=0, enable_thinking=True, cache_salt="s", priority=-1)
    vllm.chat("x", store=True)  # type: ignore[call-arg]
    vllm.chat("x", temprature=1)  # type: ignore[call-arg]
    vllm.chat("x", guided_json={})  # type: ignore[call-arg]


def types(vllm: VLLMs) -> None:
    vllm.chat("x", temperature=1, top_p=1, top_k=None, stop="a", seed=None)
    vllm.chat("x", stop=("a", "b"), stop_token_ids=(1, 2), bad_words=["x"], allowed_token_ids=range(5))
    vllm.chat("x", logit_bias={5: 1.5}, timeout=Timeout(total=3), extra_headers={"X": "y"})
    vllm.chat("x", logit_bias={"5": 1}, extra_body={"a": 1}, vllm_xargs={"a": 1, "b": ["c", 2.5]})
    vllm.chat("x", chat_template_kwargs={"a": [1, {"b": None}]}, documents=[{"title": "t", "text": "x"}])
    vllm.chat("x", top_k="5")  # type: ignore[arg-type]
    vllm.chat("x", top_k=0.5)  # type: ignore[arg-type]
    vllm.chat("x", reasoning_effort="lots")  # type: ignore[arg-type]
    vllm.chat("x", truncation_side="top")  # type: ignore[arg-type]
    vllm.chat("x", documents=["text"])  # type: ignore[list-item]


def nested(vllm: VLLMs, schema: dict[str, Any], objects: dict[str, object]) -> None:
    vllm.chat("x", structured_outputs={"json": schema})
    vllm.chat("x", structured_outputs={"json": objects, "disable_any_whitespace": True})
    vllm.chat("x", structured_outputs={"choice": ("a", "b")})
    vllm.chat("x", response_format={"type": "json_object"})
    vllm.chat("x", response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}})
    vllm.chat("x", response_format={"type": "structural_tag", "format": {"type": "any_text"}})
    vllm.chat("x", stream_options={"include_usage": True, "continuous_usage_stats": True})
    vllm.chat("x", repetition_detection={"max_pattern_size": 3, "min_count": 2})
    vllm.chat("x", structured_outputs={"jsn": {}})  # type: ignore[arg-type]
    vllm.chat("x", structured_outputs={"json_object": False})  # type: ignore[arg-type]
    vllm.chat("x", stream_options={"usage": True})  # type: ignore[arg-type]
    constraint: StructuredOutputs = {"regex": r"\d+"}
    wanted: ResponseFormat = {"type": "text"}
    vllm.chat("x", structured_outputs=constraint, response_format=wanted)


def tools(any_of: Chats, openai: OpenAIs, vllm: VLLMs, schema: dict[str, Any]) -> None:
    weather: FunctionTool = {"type": "function", "function": {"name": "weather", "parameters": schema}}
    for chats in (any_of, openai, vllm):
        chats.chat("x", tools=[weather], tool_choice="auto")
        chats.chat("x", tools=(weather,), tool_choice={"type": "function", "function": {"name": "weather"}})
    openai.chat("x", tools=[weather, {"type": "custom", "custom": {"name": "shell"}}])
    openai.chat("x", tools=[weather], tool_choice={"type": "custom", "custom": {"name": "shell"}})
    vllm.chat("x", tools=[{"type": "custom", "custom": {"name": "shell"}}])  # type: ignore[list-item]
    vllm.chat("x", tools=[{"type": "function", "function": {}}])  # type: ignore[list-item]
    vllm.chat("x", tools=[weather], tool_choice="weather")  # type: ignore[arg-type]


def conversations(vllm: VLLMs, reply: ChatCompletion) -> None:
    vllm.chat([{"role": "user", "content": "x"}])
    vllm.chat(({"role": "system", "content": "x"}, {"role": "user", "content": [text_part("y")]}))
    history: list[Message | ChatMessage] = [{"role": "user", "content": "x"}]
    history.append(reply.message)
    vllm.chat(history)
    vllm.chat([*encode_and_keep(history), reply.message, tool_message(reply.tool_calls[0], "42")])
    vllm.chat([custom_message("critic", "Hm.", score=3)])
    vllm.chat([
        {"role": "developer", "content": "x", "tools": [{"type": "function", "function": {"name": "f"}}]},
        {"role": "user", "content": [
            {"type": "text", "text": "x"},
            {"type": "image_url", "image_url": {"url": "https://h/a.png", "detail": "low"}, "uuid": "u"},
            {"type": "image_url", "image_url": None, "uuid": "u"},
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            {"type": "audio_url", "audio_url": {"url": "https://h/a.wav"}},
            {"type": "video_url", "video_url": {"url": "https://h/a.mp4"}},
            {"type": "image_embeds", "image_embeds": {"a": "AAAA"}},
            {"type": "prompt_embeds", "data": "AAAA"},
        ]},
        {"role": "assistant", "reasoning": "x", "content": None, "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        ]},
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "tool_reference", "name": "f"}]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "x", "closed": True}]},
        {"role": "function", "name": "f", "content": "x"},
    ])  # fmt: skip
    plain = [{"role": "user", "content": "x"}]
    assert_type(plain, list[dict[str, str]])
    vllm.chat(plain)
    vllm.chat([*plain, reply.message, user_message("x", images=["cat.png", b"GIF89a"], audio=Path("a.wav"))])
    appended: History = []
    appended.append(reply.message)
    appended.append({"role": "user", "content": "x"})
    appended.append({"role": "usr", "content": "x"})  # type: ignore[arg-type]
    vllm.chat(appended)
    vllm.chat([{"role": "user", "contents": [text_part("x")]}])  # type: ignore[dict-item]
    vllm.chat(["x"])  # type: ignore[list-item]
    vllm.chat({"role": "user", "content": "x"})  # type: ignore[arg-type]


def encode_and_keep(messages: list[Message | ChatMessage]) -> list[Message | ChatMessage]:
    encode_messages(messages)
    return messages


def parts() -> list[ContentPart]:
    assert_type(image_part("cat.png"), ImagePart)
    image_part(5)  # type: ignore[arg-type]
    image_part(b"", detail="sharp")  # type: ignore[arg-type]
    return [text_part("x"), image_part(Path("a.png")), audio_part(b"RIFF"), video_part("https://h/a.mp4")]
