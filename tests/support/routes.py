"""The route of each method of a vLLM provider, and how to call the method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Asked:
    """A call of a method.

    Attributes:
        route: The HTTP method and the path of its request; with several requests, those of the first that does not look
            up the version.
        method: The method's name, without the `a` of its async version.
        arguments: Its positional arguments.
        params: Its keyword arguments.
    """

    route: str
    method: str
    arguments: tuple[Any, ...] = ()
    params: tuple[tuple[str, Any], ...] = ()


def _tool(city: str) -> str:
    """Returns the weather."""
    return city


_TOOLS = (("tools", [_tool]),)

ASKED: tuple[Asked, ...] = (
    Asked("GET /health", "health"),
    Asked("GET /health", "ready", params=(("timeout", 0.1),)),
    Asked("GET /is_paused", "is_paused"),
    Asked("GET /is_sleeping", "is_sleeping"),
    Asked("GET /load", "load"),
    Asked("GET /metrics", "metrics"),
    Asked("GET /v1/models", "max_model_len"),
    Asked("GET /v1/models", "models"),
    Asked("GET /version", "get", ("/version",)),
    Asked("GET /version", "version"),
    Asked("POST /abort_requests", "abort", ("chatcmpl-1",)),
    Asked("POST /abort_requests", "abort_all"),
    Asked("POST /classify", "classify", ("Hello",)),
    Asked("POST /detokenize", "detokenize", ([1, 2],)),
    Asked("POST /inference/v1/generate", "generate", ([1, 2],)),
    Asked("POST /inference/v1/generate", "stream_generate", ([1, 2],)),
    Asked("POST /pause", "pause"),
    Asked("POST /pooling", "pool", ("Hello",)),
    Asked("POST /reset_prefix_cache", "reset_prefix_cache"),
    Asked("POST /resume", "resume"),
    Asked("POST /sleep", "sleep"),
    Asked("POST /tokenize", "count_tokens", ("Hello",)),
    Asked("POST /tokenize", "post", ("/tokenize", {"prompt": "Hello"})),
    Asked("POST /tokenize", "tokenize", ("Hello",)),
    Asked("POST /v1/audio/transcriptions", "stream_transcribe", (b"RIFF",)),
    Asked("POST /v1/audio/transcriptions", "transcribe", (b"RIFF",)),
    Asked("POST /v1/audio/translations", "stream_translate", (b"RIFF",)),
    Asked("POST /v1/audio/translations", "translate", (b"RIFF",)),
    Asked("POST /v1/chat/completions", "chat", ("Hello",)),
    Asked("POST /v1/chat/completions", "choose", ("Hello", ["yes", "no"])),
    Asked("POST /v1/chat/completions", "parse", ("Hello", int)),
    Asked("POST /v1/chat/completions", "run_tools", ("Hello",), _TOOLS),
    Asked("POST /v1/chat/completions", "stream", ("Hello",)),
    Asked("POST /v1/chat/completions", "stream_parse", ("Hello", int)),
    Asked("POST /v1/chat/completions", "stream_run_tools", ("Hello",), _TOOLS),
    Asked("POST /v1/chat/completions/batch", "chat_batch", (["Hello"],)),
    Asked("POST /v1/chat/completions/render", "render", ("Hello",)),
    Asked("POST /v1/completions", "complete", ("Hello",)),
    Asked("POST /v1/completions", "stream_complete", ("Hello",)),
    Asked("POST /v1/completions/render", "render_completion", ("Hello",)),
    Asked(
        "POST /v1/decisions",
        "decide",
        ("Hello", [{"type": "predicate", "instructions": "Is it a greeting?"}]),
    ),
    Asked("POST /v1/embeddings", "embed", ("Hello",)),
    Asked("POST /v1/embeddings", "embed_tokens", ("Hello",)),
    Asked("POST /v1/load_lora_adapter", "load_lora", ("mine", "/adapters/mine")),
    Asked("POST /v1/rerank", "rerank", ("Hello", ["Hello"])),
    Asked("POST /v1/responses", "respond", ("Hello",)),
    Asked("POST /v1/responses", "stream_respond", ("Hello",)),
    Asked("POST /v1/score", "score", ("Hello", ["Hello"])),
    Asked("POST /v1/unload_lora_adapter", "unload_lora", ("mine",)),
    Asked("POST /wake_up", "wake_up"),
)
"""Every method that sends something, once."""
