"""Which version of vLLM brought a parameter to an endpoint that shares it, and what is done where a server is older.

`Since` in an annotation says when the first endpoint, mostly chats, got the parameter. Another endpoint that inherits
the annotation often got it in another release: those are listed here, by the TypedDict of what its verb takes. What
came with the endpoint itself, or before it, needs no word.

A server ignores what it does not know. So one that is too old for a parameter is not sent it: the call fails, and says
which version it needs. Exceptions stand here too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_TRANSLATIONS: Final[Mapping[str, str]] = {
    "frequency_penalty": "0.27",
    "min_p": "0.27",
    "presence_penalty": "0.27",
    "repetition_penalty": "0.27",
    "seed": "0.10.2",
    "top_k": "0.27",
    "top_p": "0.27",
    "vllm_xargs": "0.27",
}

SINCE: Final[Mapping[str, Mapping[str, str]]] = {
    "ClassifyParams": {
        "add_generation_prompt": "0.11.1",
        "add_special_tokens": "0.11.1",
        "chat_template": "0.11.1",
        "chat_template_kwargs": "0.11.1",
        "continue_final_message": "0.15",
        "enable_thinking": "0.11.1",
        "mm_processor_kwargs": "0.11.1",
        "request_id": "0.11.1",
    },
    "ClassifyTextParams": {
        "add_special_tokens": "0.11.1",
        "mm_processor_kwargs": "0.16",
        "request_id": "0.11.1",
    },
    "EmbedTextParams": {"mm_processor_kwargs": "0.16"},
    "PoolTextParams": {"mm_processor_kwargs": "0.16"},
    "RerankParams": {"mm_processor_kwargs": "0.10", "request_id": "0.15", "user": "0.15"},
    "ScoreParams": {"mm_processor_kwargs": "0.10", "request_id": "0.15", "user": "0.15"},
    "StreamTranslateParams": _TRANSLATIONS,
    "TranslateParams": _TRANSLATIONS,
    "VLLMCompletionParams": {
        "allowed_token_ids": "0.8.5",
        "bad_words": "0.26",
        "cache_salt": "0.10",
        "request_id": "0.10.1",
        "thinking_token_budget": "0.22",
    },
    "ResponseParams": {
        "frequency_penalty": "0.20",
        "ignore_eos": "0.16",
        "include_stop_str_in_output": "0.15",
        "kv_transfer_params": "0.19",
        "logit_bias": "0.13",
        "min_p": "0.32",
        "presence_penalty": "0.20",
        "repetition_penalty": "0.16",
        "seed": "0.16",
        "skip_special_tokens": "0.15",
        "stop": "0.16",
        "stop_token_ids": "0.32",
        "structured_outputs": "0.17",
        "top_k": "0.13",
        "vllm_xargs": "0.16",
    },
    "GenerateParams": {
        "logprob_token_ids": "0.20",
        "return_token_ids": "0.30",
        "routed_experts_prompt_start": "0.22",
    },
}
"""By TypedDict and parameter. The endpoints themselves: responses since 0.10, generation from tokens since 0.11.1."""

OLDEST: Final = "0.8.5"
"""The oldest version that is talked to: what is as old as it is never too new."""

HARMLESS: Final = frozenset({"request_id", "session_id", "stream_interval", "user"})
"""What an old server may ignore: neither the reply nor who can see it depends on it. The caller is warned."""

REWRITTEN: Final = frozenset({"embed_dtype", "endianness", "structured_outputs", "use_activation"})
"""What is written differently for old servers, or refused there by rules of its own: see `vllmchat.versions`."""

NEUTRAL: Final[Mapping[str, object]] = {"thinking_token_budget": -1, "watermarking": False}
"""Values that ask for nothing, beside the defaults: a server that does not know the parameter does the same."""
