"""Explains unknown parameter names that are known elsewhere: in older servers, other engines, other places.

This module is imported only for invalid requests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from vllmchat.checking.describe import format_value, suggest
from vllmchat.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

OPENAI: Final = "OpenAIProvider"
VLLM: Final = "VLLMProvider"


@dataclass(frozen=True, slots=True)
class _Belongs:
    """Where a name belongs.

    Attributes:
        rule: Why it is rejected, as a sentence about the name.
        suggestion: What to write instead. `{value}` stands for the given value, `{switch}` for it if it is a bool,
            else True.
        needs_vllm: Whether the suggestion is a parameter that only vLLM has.
    """

    rule: str
    suggestion: str = ""
    needs_vllm: bool = False


_REMOVED = "was removed in vLLM 0.12; newer servers silently ignore it."
_OTHER_NAME = "has a different name here."
_NOT_OPENAI = "is not a parameter of OpenAI's API."
_NOT_VLLM = "is not a parameter of vLLM, which would silently ignore it."
_CONSTRUCTOR = "is set on the provider, not per call."
_OFFLINE = "is an option of vLLM's offline `LLM` class, not a request parameter."
_PROMPT = "is not a parameter: the conversation is the first argument."

_SECRET = re.compile(
    r"key|secret|salt|passw|credential|authorization|bearer|headers|cookie|(^|_)(token|auth)$", re.IGNORECASE
)


def _same(name: str) -> _Belongs:
    return _Belongs(_OTHER_NAME, f"Write `{name}={{value}}`.")


def _constraint(key: str, rule: str = _REMOVED) -> _Belongs:
    return _Belongs(rule, f'Write structured_outputs={{{{"{key}": {{value}}}}}}.', needs_vllm=True)


def _vllm_name(name: str, rule: str = _OTHER_NAME) -> _Belongs:
    return _Belongs(rule, f"Write `{name}={{value}}`.", needs_vllm=True)


_THINKING: Final = _Belongs(
    _OTHER_NAME,
    'Write `enable_thinking={switch}`; for DeepSeek\'s template, chat_template_kwargs={{"thinking": {switch}}}.',
    needs_vllm=True,
)

_PLACES: Final[dict[str, _Belongs]] = {
    # removed from vLLM
    "guided_json": _constraint("json"),
    "guided_regex": _constraint("regex"),
    "guided_choice": _constraint("choice"),
    "guided_grammar": _constraint("grammar"),
    "guided_json_object": _constraint("json_object"),
    "guided_structural_tag": _constraint("structural_tag"),
    "structural_tag": _constraint("structural_tag"),
    "guided_whitespace_pattern": _Belongs(
        _REMOVED,
        'Add it to the constraint: structured_outputs={{..., "whitespace_pattern": {value}}}.',
        True,
    ),
    "guided_decoding_backend": _Belongs(
        _REMOVED,
        "Choose the backend when starting the server: vllm serve --structured-outputs-config.backend ...",
    ),
    "guided_decoding": _Belongs(
        "is the older name of `structured_outputs`, which is a mapping here.",
        'For example, write structured_outputs={{"json": {{...}}}}.',
        True,
    ),
    "best_of": _Belongs(_REMOVED, "Write `n={value}` and choose from `completion.choices`."),
    "logits_processors": _Belongs(
        "was removed in vLLM 0.17; newer servers silently ignore it.",
        "Start the server with vllm serve --logits-processors ..., and pass arguments with `vllm_xargs`.",
    ),
    "return_assistant_tokens_mask": _Belongs(
        "exists only in vLLM 0.25 to 0.30.", "For these versions, write it in `extra_body`."
    ),
    # reasoning
    "thinking": _THINKING,
    "think": _THINKING,
    "enable_reasoning": _Belongs(_OTHER_NAME, "Write `enable_thinking={switch}`.", needs_vllm=True),
    "thinking_budget": _vllm_name("thinking_token_budget"),
    "reasoning_budget": _vllm_name("thinking_token_budget"),
    "budget_tokens": _vllm_name("thinking_token_budget"),
    "max_thinking_tokens": _vllm_name("thinking_token_budget"),
    "max_reasoning_tokens": _vllm_name("thinking_token_budget"),
    "reasoning_content": _Belongs(
        "is part of replies and messages, not a parameter.",
        'Read `completion.reasoning`; in a message, write {{"role": "assistant", "reasoning": ...}}.',
    ),
    "reasoning": _Belongs(
        "is part of replies and messages, not a parameter.",
        'Read `completion.reasoning`; to set how much to reason, write `reasoning_effort="low"`.',
    ),
    "separate_reasoning": _Belongs(
        "is an option of SGLang; here reasoning is always separate from the text.",
        "Leave it out: read `completion.reasoning` and `completion.text`.",
    ),
    "stream_reasoning": _Belongs(
        "is an option of SGLang; here reasoning is always streamed.",
        "Leave it out: read `chunk.reasoning` and `chunk.text`.",
    ),
    # the same thing under another name
    "max_new_tokens": _same("max_tokens"),
    "max_length": _same("max_tokens"),
    "max_output_tokens": _same("max_tokens"),
    "max_gen_tokens": _same("max_tokens"),
    "max_gen_len": _same("max_tokens"),
    "max_tokens_to_sample": _same("max_tokens"),
    "num_predict": _same("max_tokens"),
    "n_predict": _same("max_tokens"),
    "min_new_tokens": _vllm_name("min_tokens"),
    "min_length": _vllm_name("min_tokens"),
    "num_return_sequences": _same("n"),
    "num_completions": _same("n"),
    "candidate_count": _same("n"),
    "num_choices": _same("n"),
    "stopwords": _same("stop"),
    "stop_words": _same("stop"),
    "stop_sequences": _same("stop"),
    "stop_strings": _same("stop"),
    "random_seed": _same("seed"),
    "temp": _same("temperature"),
    "freq_pen": _same("frequency_penalty"),
    "freq_penalty": _same("frequency_penalty"),
    "pres_pen": _same("presence_penalty"),
    "pres_penalty": _same("presence_penalty"),
    "repeat_penalty": _vllm_name("repetition_penalty"),
    "rep_pen": _vllm_name("repetition_penalty"),
    "rep_penalty": _vllm_name("repetition_penalty"),
    "eos_token_id": _Belongs(_OTHER_NAME, "Write `stop_token_ids=[{value}]`.", True),
    "extra_args": _vllm_name("vllm_xargs"),
    "chat_template_args": _vllm_name("chat_template_kwargs"),
    "template_kwargs": _vllm_name("chat_template_kwargs"),
    "do_sample": _Belongs(
        _OTHER_NAME, "Sampling is the default; for greedy decoding, write `temperature=0`."
    ),
    "num_beams": _Belongs(_OTHER_NAME, "Write `use_beam_search=True, n={value}`.", True),
    "beam_width": _Belongs(_OTHER_NAME, "Write `use_beam_search=True, n={value}`.", True),
    "early_stopping": _Belongs("is not a parameter of vLLM's beam search.", "Leave it out."),
    "regex": _constraint("regex", _OTHER_NAME),
    "choice": _constraint("choice", _OTHER_NAME),
    "grammar": _constraint("grammar", _OTHER_NAME),
    "ebnf": _constraint("grammar", _OTHER_NAME),
    "json_mode": _Belongs(_OTHER_NAME, 'Write response_format={{"type": "json_object"}}.'),
    "json_object": _Belongs(_OTHER_NAME, 'Write response_format={{"type": "json_object"}}.'),
    # from other places
    "stream": _Belongs(
        "is not a parameter: the method decides whether to stream.",
        "Call .stream(...) or .astream(...) to stream, .chat(...) or .achat(...) for the whole reply.",
    ),
    "messages": _Belongs(_PROMPT, "Write chat(messages, ...)."),
    "prompt": _Belongs(_PROMPT, "Write chat({value}, ...)."),
    "input": _Belongs(_PROMPT, "Write chat({value}, ...)."),
    "system": _Belongs(_PROMPT, 'Put {{"role": "system", "content": {value}}} first among the messages.'),
    "system_prompt": _Belongs(
        _PROMPT, 'Put {{"role": "system", "content": {value}}} first among the messages.'
    ),
    "instructions": _Belongs(
        _PROMPT, 'Put {{"role": "system", "content": {value}}} first among the messages.'
    ),
    "images": _Belongs(_PROMPT, "Put image_part(...) into a message's content."),
    "history": _Belongs(_PROMPT, "Write chat([*history, message], ...)."),
    "model": _Belongs("is a separate argument.", 'Write chat(messages, model="...").'),
    "model_name": _Belongs("is not a parameter.", 'Write chat(messages, model="...").'),
    "lora": _Belongs(
        "is not a parameter: a LoRA adapter is addressed as a model.", 'Write chat(messages, model="...").'
    ),
    "lora_request": _Belongs(
        "is not a parameter: a LoRA adapter is addressed as a model.", 'Write chat(messages, model="...").'
    ),
    "sampling_params": _Belongs(_OFFLINE, "Write its fields as parameters: `temperature=..., top_k=...`."),
    "use_tqdm": _Belongs(_OFFLINE, "Leave it out."),
    "detokenize": _Belongs(_OFFLINE, "Leave it out."),
    "output_kind": _Belongs(_OFFLINE, "Leave it out."),
    "headers": _Belongs(_OTHER_NAME, "Write `extra_headers={{...}}`."),
    "default_headers": _Belongs(_CONSTRUCTOR, "For one call, write `extra_headers={{...}}`."),
    "extra_query": _Belongs(
        "is not a parameter: requests have no query string.", "For a gateway, use `extra_headers`."
    ),
    "request_timeout": _same("timeout"),
    "api_key": _Belongs(
        _CONSTRUCTOR, "Write {provider}(..., api_key=...), or .with_options(api_key=...) for a copy."
    ),
    "base_url": _Belongs(_CONSTRUCTOR, "Write {provider}(..., base_url=...)."),
    "max_retries": _Belongs(
        _CONSTRUCTOR, "Write {provider}(..., max_retries=...), or .with_options(max_retries=...) for a copy."
    ),
    "http_client": _Belongs(_CONSTRUCTOR, "Write {provider}(..., http_client=...)."),
    "async_http_client": _Belongs(_CONSTRUCTOR, "Write {provider}(..., async_http_client=...)."),
    "num_ctx": _Belongs(
        "is an option of the vLLM server.", "Start it with: vllm serve --max-model-len {value}"
    ),
    "n_ctx": _Belongs(
        "is an option of the vLLM server.", "Start it with: vllm serve --max-model-len {value}"
    ),
    "context_length": _Belongs(
        "is an option of the vLLM server.", "Start it with: vllm serve --max-model-len {value}"
    ),
}

_SCHEMAS: Final = ("json_schema", "response_schema", "output_schema", "schema", "format", "guided_schema")
"""Other names of a JSON schema for the reply."""

_OPENAI_ONLY: Final[dict[str, str]] = {
    "functions": 'Write tools=[{"type": "function", "function": ...}].',
    "function_call": 'Write tool_choice={"type": "function", "function": {"name": ...}}, or "auto".',
    "prompt_cache_key": "vLLM caches prefixes automatically; `cache_salt` separates them.",
    "verbosity": "Ask for it in the prompt.",
}

_START_OPTIONS: Final = frozenset(
    {
        "allowed_local_media_path",
        "allowed_media_domains",
        "attention_backend",
        "block_size",
        "chat_template_content_format",
        "code_revision",
        "compilation_config",
        "config_format",
        "cpu_offload_gb",
        "data_parallel_size",
        "default_chat_template_kwargs",
        "disable_log_requests",
        "disable_log_stats",
        "distributed_executor_backend",
        "download_dir",
        "dtype",
        "enable_auto_tool_choice",
        "enable_chunked_prefill",
        "enable_expert_parallel",
        "enable_lora",
        "enable_mm_embeds",
        "enable_prefix_caching",
        "enable_prompt_embeds",
        "enforce_eager",
        "generation_config",
        "gpu_memory_utilization",
        "hf_overrides",
        "hf_token",
        "kv_cache_dtype",
        "kv_cache_memory_bytes",
        "kv_transfer_config",
        "limit_mm_per_prompt",
        "load_format",
        "lora_modules",
        "max_cpu_loras",
        "max_logprobs",
        "max_lora_rank",
        "max_loras",
        "max_model_len",
        "max_num_batched_tokens",
        "max_num_seqs",
        "max_seq_len_to_capture",
        "mm_processor_cache_gb",
        "model_impl",
        "num_gpu_blocks_override",
        "override_generation_config",
        "pipeline_parallel_size",
        "quantization",
        "reasoning_parser",
        "revision",
        "rope_scaling",
        "rope_theta",
        "scheduling_policy",
        "served_model_name",
        "speculative_config",
        "structured_outputs_config",
        "swap_space",
        "tensor_parallel_size",
        "tokenizer",
        "tokenizer_mode",
        "tokenizer_revision",
        "tool_call_parser",
        "tool_parser_plugin",
        "trust_remote_code",
        "trust_request_chat_template",
        "trust_request_mm_kwargs",
    }
)


def explain_unknown(
    name: str,
    value: object,
    *,
    provider: str,
    known: Mapping[str, object],
    others: Mapping[str, object],
    written: str = "",
) -> Problem:
    """Returns the problem of an unknown name: where it belongs, and what to write instead.

    Args:
        name: A name that is not a parameter of this provider.
        value: The value given for it.
        provider: `OPENAI` or `VLLM`.
        known: This provider's parameters.
        others: The other provider's parameters.
        written: The name as it was written, if `name` is a correction of it.
    """
    shown = "" if _SECRET.search(name) or _SECRET.search(written) else format_value(value)
    belongs = _PLACES.get(name)
    instead = ""
    if belongs is not None:
        switch = value if isinstance(value, bool) else True
        instead = belongs.suggestion.format(value=shown or "...", switch=switch, provider=provider)
    if belongs is not None and not (belongs.needs_vllm and provider == OPENAI):
        rule = _NOT_OPENAI if belongs.rule.startswith("was removed") and provider == OPENAI else belongs.rule
        return Problem(name, shown, rule, instead)
    if name in _SCHEMAS or (name == "guided_json" and provider == OPENAI):
        wanted = (
            '{"type": "json_schema", "json_schema": {"name": "reply", "schema": ' + (shown or "...") + "}}"
        )
        return Problem(name, shown, _OTHER_NAME, f"Write response_format={wanted}.")
    if name in others:
        if provider == OPENAI:
            rule = "is a parameter of vLLM, not of OpenAI's API."
            return Problem(name, shown, rule, f"Use VLLMProvider, or write {_escape_hatch(name, shown)}.")
        rule = "is a parameter of OpenAI's own server; vLLM silently ignores it."
        return Problem(name, shown, rule, _OPENAI_ONLY.get(name, "Leave it out."))
    if belongs is not None:  # known, but only vLLM has an equivalent
        return Problem(name, shown, _NOT_OPENAI, f"With VLLMProvider: {instead}")
    if name in _START_OPTIONS:
        option = f"--{name.replace('_', '-')}"
        return Problem(
            name, shown, "is an option of the vLLM server.", f"Start it with: vllm serve {option} ..."
        )
    meant = suggest(name, [*_PLACES, *_SCHEMAS, *_START_OPTIONS, *others, *known])
    if meant in known:
        return Problem(name, shown, f"is not a parameter of {provider}.", f"Did you mean `{meant}`?")
    if meant is not None:
        right = explain_unknown(meant, value, provider=provider, known=known, others=others, written=name)
        return replace(right, parameter=name, rule=f"is probably `{meant}`, which {right.rule}")
    rule = _NOT_VLLM if provider == VLLM else _NOT_OPENAI
    return Problem(name, shown, rule, f"If your server accepts it, write {_escape_hatch(name, shown)}.")


def _escape_hatch(name: str, shown: str) -> str:
    if name == "enable_thinking":  # only ours: servers expect it among the template variables
        return f'extra_body={{"chat_template_kwargs": {{"enable_thinking": {shown}}}}}'
    return f'extra_body={{"{name}": {shown or "..."}}}'
