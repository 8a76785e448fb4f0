"""Which vLLM version added a shared parameter to an endpoint, and what happens with older servers.

`Since` in an annotation names the version for the first endpoint that got the parameter, usually chats. Other
endpoints that inherit the annotation often got it in another release. Those are listed here, by the TypedDict of their
method. Parameters that came with the endpoint itself, or earlier, are not listed.

Servers ignore parameters that they do not know. So a parameter is not sent to a server that is too old for it: the
call raises, and the error names the version it needs. The exceptions are listed here too.
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
        "data_parallel_rank": "0.33",
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
"""By TypedDict and parameter. The endpoints themselves: responses since 0.10, generate since 0.11.1."""

OLDEST: Final = "0.8.5"
"""The oldest supported version: a parameter that it has is never too new."""

HARMLESS: Final = frozenset(
    {
        "data_parallel_rank",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "request_id",
        "safety_identifier",
        "session_id",
        "stream_interval",
        "user",
    }
)
"""Parameters that an old server may ignore: they affect neither what is generated nor who can see it. The caller is
warned."""

REWRITTEN: Final = frozenset({"embed_dtype", "endianness", "structured_outputs", "use_activation"})
"""Parameters that are rewritten for old servers, or rejected by rules of their own: see `vllmchat.versions`."""

NEUTRAL: Final[Mapping[str, object]] = {"thinking_token_budget": -1, "watermarking": False}
"""Further values, in addition to the defaults, with which a server behaves as if it did not know the parameter."""
