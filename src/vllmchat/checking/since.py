"""Which version of vLLM brought a parameter to an endpoint that shares it with chats, where that is another one.

`Since` in an annotation says when chats got the parameter. Another endpoint that inherits the annotation often got it
in another release: those are listed here, by the TypedDict of what its verb takes. What came with the endpoint itself,
or before it, needs no word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

SINCE: Final[Mapping[str, Mapping[str, str]]] = {
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
