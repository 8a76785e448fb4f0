"""Explains unknown parameter names: names that older servers, other engines, other methods or the provider have.

This module is imported only for invalid requests.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from vllmchat.checking.describe import format_code, format_value, suggest
from vllmchat.checking.secrets import is_secret
from vllmchat.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from vllmchat.checking.validator import Explanation

_OPENAI: Final = "OpenAIProvider"


@dataclass(frozen=True, slots=True)
class Names:
    """The names that a method accepts, and what it says of some others.

    Attributes:
        owner: What accepts them, such as `VLLMProvider.embed`, or `VLLMProvider` for chats.
        known: The names.
        own: Unknown names that the method explains itself.
        chats: Explains the parameters of chats that the method does not have.
        other: The names that `VLLMProvider` has in addition, for `OpenAIProvider`.
        hatch: The parameter for names that only the server knows.
    """

    owner: str
    known: Collection[str]
    own: Mapping[str, Explanation] = field(default_factory=dict[str, "Explanation"])
    chats: Explanation | None = None
    other: Collection[str] = ()
    hatch: str = "extra_body"


@dataclass(frozen=True, slots=True)
class _Belongs:
    """Where a name belongs.

    Attributes:
        rule: Why it is rejected, as a sentence about the name.
        suggestion: What to write instead. `{value}` is replaced by the given value, `{switch}` by it if it is a bool,
            else True.
        target: The parameter that the suggestion writes; without that parameter, the suggestion is not made.
        renamed: Whether the target is the same thing under another name.
    """

    rule: str
    suggestion: str = ""
    target: str = ""
    renamed: bool = False


_REMOVED = "was removed in vLLM 0.12; newer servers silently ignore it."
_OTHER_NAME = "has a different name here."
_NOT_OPENAI = "is not a parameter of OpenAI's API."
_NOT_VLLM = "is not a parameter of vLLM, which would silently ignore it."
_CONSTRUCTOR = "is set on the provider, not per call."
_OFFLINE = "is an option of vLLM's offline `LLM` class, not a request parameter."
_LORA = "is not a parameter: a LoRA adapter is addressed as a model."
_IN_REPLIES = "is part of replies and messages, not a parameter."
_MODEL = 'Write `model="..."`.'


def _same(name: str) -> _Belongs:
    return _Belongs(_OTHER_NAME, f"Write `{name}={{value}}`.", name, renamed=True)


def _constraint(key: str, rule: str = _REMOVED) -> _Belongs:
    return _Belongs(rule, f'Write structured_outputs={{{{"{key}": {{value}}}}}}.', "structured_outputs")


_THINKING: Final = _Belongs(
    _OTHER_NAME,
    'Write `enable_thinking={switch}`; for DeepSeek\'s template, chat_template_kwargs={{"thinking": {switch}}}.',
    "enable_thinking",
)

_MAX_TURNS: Final = _Belongs(
    "is not a parameter of chats: tool runs have `max_turns`.",
    "Write run_tools(messages, tools=[...], max_turns={value}).",
)
_TYPE: Final = _Belongs("is not a parameter: `parse` accepts a type.", "Write parse(messages, {value}).")

_ALIASES: Final[dict[str, tuple[str, ...]]] = {
    "chat_template_kwargs": ("chat_template_args", "template_kwargs"),
    "frequency_penalty": ("freq_pen", "freq_penalty"),
    "max_tokens": (
        "max_new_tokens", "max_length", "max_output_tokens", "max_gen_tokens", "max_gen_len", "max_tokens_to_sample",
        "num_predict", "n_predict",
    ),
    "min_tokens": ("min_new_tokens", "min_length"),
    "n": ("num_return_sequences", "num_completions", "candidate_count", "num_choices"),
    "presence_penalty": ("pres_pen", "pres_penalty"),
    "repetition_penalty": ("repeat_penalty", "rep_pen", "rep_penalty"),
    "seed": ("random_seed",),
    "stop": ("stopwords", "stop_words", "stop_sequences", "stop_strings"),
    "temperature": ("temp",),
    "thinking_token_budget": (
        "thinking_budget", "reasoning_budget", "budget_tokens", "max_thinking_tokens", "max_reasoning_tokens",
    ),
    "timeout": ("request_timeout",),
    "vllm_xargs": ("extra_args",),
}  # fmt: skip
"""Parameters, and their names in other libraries."""

_PLACES: Final[dict[str, _Belongs]] = {
    **{alias: _same(name) for name, aliases in _ALIASES.items() for alias in aliases},
    # removed from vLLM
    **{f"guided_{key}": _constraint(key) for key in ("json", "regex", "choice", "grammar", "json_object")},
    **dict.fromkeys(("guided_structural_tag", "structural_tag"), _constraint("structural_tag")),
    "guided_whitespace_pattern": _Belongs(
        _REMOVED,
        'Add it to the constraint: structured_outputs={{..., "whitespace_pattern": {value}}}.',
        "structured_outputs",
    ),
    "guided_decoding_backend": _Belongs(
        _REMOVED,
        "Choose the backend when starting the server: vllm serve --structured-outputs-config.backend ...",
    ),
    "guided_decoding": _Belongs(
        "is the older name of `structured_outputs`, which is a mapping here.",
        'For example, write structured_outputs={{"json": {{...}}}}.',
        "structured_outputs",
    ),
    "best_of": _Belongs(_REMOVED, "Write `n={value}` and choose from `completion.choices`.", "n"),
    "logits_processors": _Belongs(
        "was removed in vLLM 0.17; newer servers silently ignore it.",
        "Start the server with vllm serve --logits-processors ..., and pass arguments with `vllm_xargs`.",
    ),
    "return_assistant_tokens_mask": _Belongs(
        "exists only in vLLM 0.25 to 0.30.", "For these versions, write it in `extra_body`."
    ),
    # reasoning
    **dict.fromkeys(("thinking", "think"), _THINKING),
    "enable_reasoning": _Belongs(_OTHER_NAME, "Write `enable_thinking={switch}`.", "enable_thinking"),
    "reasoning_content": _Belongs(
        _IN_REPLIES,
        'Read `completion.reasoning`; in a message, write {{"role": "assistant", "reasoning": ...}}.',
        "reasoning_effort",
    ),
    "reasoning": _Belongs(
        _IN_REPLIES,
        'Read `completion.reasoning`; to set how much to reason, write `reasoning_effort="low"`.',
        "reasoning_effort",
    ),
    "separate_reasoning": _Belongs(
        "is an option of SGLang; here reasoning is always separate from the text.",
        "Leave it out: read `completion.reasoning` and `completion.text`.",
        "reasoning_effort",
    ),
    "stream_reasoning": _Belongs(
        "is an option of SGLang; here reasoning is always streamed.",
        "Leave it out: read `chunk.reasoning` and `chunk.text`.",
        "reasoning_effort",
    ),
    # the same thing in another form
    "eos_token_id": _Belongs(_OTHER_NAME, "Write `stop_token_ids=[{value}]`.", "stop_token_ids"),
    "do_sample": _Belongs(
        _OTHER_NAME, "Sampling is the default; for greedy decoding, write `temperature=0`.", "temperature"
    ),
    **dict.fromkeys(
        ("num_beams", "beam_width"),
        _Belongs(_OTHER_NAME, "Write `use_beam_search=True, n={value}`.", "use_beam_search"),
    ),
    "early_stopping": _Belongs(
        "is not a parameter of vLLM's beam search.", "Leave it out.", "use_beam_search"
    ),
    **{key: _constraint(key, _OTHER_NAME) for key in ("regex", "choice", "grammar")},
    "ebnf": _constraint("grammar", _OTHER_NAME),
    **dict.fromkeys(
        ("json_mode", "json_object"),
        _Belongs(_OTHER_NAME, 'Write response_format={{"type": "json_object"}}.', "response_format"),
    ),
    "headers": _Belongs(_OTHER_NAME, "Write `extra_headers={{...}}`.", "extra_headers"),
    # from other places
    **dict.fromkeys(
        ("max_turns", "max_steps", "max_iterations", "max_rounds", "max_tool_rounds"), _MAX_TURNS
    ),
    "on_tool_error": _Belongs(
        "is an argument of `run_tools`.", "Write run_tools(messages, on_tool_error=...)."
    ),
    **dict.fromkeys(("kind", "output_type", "response_model", "result_type", "text_format"), _TYPE),
    "options": _Belongs("is an argument of `choose`.", "Write choose(messages, {value})."),
    "model": _Belongs("is a separate argument.", _MODEL),
    "model_name": _Belongs("is not a parameter.", _MODEL),
    **dict.fromkeys(("lora", "lora_request"), _Belongs(_LORA, _MODEL)),
    "sampling_params": _Belongs(_OFFLINE, "Write its fields as parameters: `temperature=..., top_k=...`."),
    **dict.fromkeys(("use_tqdm", "detokenize", "output_kind"), _Belongs(_OFFLINE, "Leave it out.")),
    "extra_query": _Belongs(
        "is not a parameter: requests have no query string.", "For a gateway, use `extra_headers`."
    ),
    "default_headers": _Belongs(_CONSTRUCTOR, "For one call, write `extra_headers={{...}}`."),
    **{
        name: _Belongs(
            _CONSTRUCTOR, f"Write {{provider}}(..., {name}=...), or .with_options({name}=...) for a copy."
        )
        for name in ("api_key", "max_retries")
    },
    **{
        name: _Belongs(_CONSTRUCTOR, f"Write {{provider}}(..., {name}=...).")
        for name in ("base_url", "http_client", "async_http_client")
    },
    **dict.fromkeys(
        ("num_ctx", "n_ctx", "context_length"),
        _Belongs("is an option of the vLLM server.", "Start it with: vllm serve --max-model-len {value}"),
    ),
}

_SYSTEM = 'Put {{"role": "system", "content": {value}}} first among the messages.'

_IN_CONVERSATION: Final[dict[str, str]] = {
    "messages": "Write chat(messages, ...).",
    "prompt": "Write chat({value}, ...).",
    "input": "Write chat({value}, ...).",
    "system": _SYSTEM,
    "system_prompt": _SYSTEM,
    "instructions": _SYSTEM,
    "images": "Put image_part(...) into a message's content.",
    "history": "Write chat([*history, message], ...).",
}
"""What is part of a conversation, and how to write it."""

_FIRST: Final = ("messages", "prompt", "input", "inputs", "texts", "file", "audio_file")
"""Names of the first argument in other libraries."""

_STREAMED: Final = ("complete", "generate", "respond", "transcribe", "translate")
"""The methods whose streaming version is called `stream_` and the name. Chats are streamed with `stream`."""

METHODS: Final[dict[str, frozenset[str]]] = {
    method: frozenset(names.split())
    for method, names in {
        "chat": """
            add_generation_prompt add_special_tokens allowed_token_ids bad_words chat_template chat_template_kwargs
            continue_final_message data_parallel_rank documents ec_transfer_params echo enable_thinking
            frequency_penalty ignore_eos include_reasoning include_stop_str_in_output kv_transfer_params length_penalty
            logit_bias logprob_token_ids logprobs max_completion_tokens max_tokens media_io_kwargs min_p min_tokens
            mm_payload mm_processor_kwargs n parallel_tool_calls presence_penalty prompt_logprobs reasoning_effort
            repetition_detection repetition_penalty response_format return_mm_kwargs return_prompt_text return_token_ids
            return_token_offsets return_tokens_as_token_ids return_weight_versions routed_experts_prompt_start seed
            session_id skip_special_tokens spaces_between_special_tokens stop stop_token_ids stream_interval
            stream_options structured_outputs temperature thinking_token_budget tool_choice tools top_k top_logprobs
            top_p truncate_prompt_tokens truncation_side use_beam_search vllm_xargs watermarking
            cache_salt priority request_id user""",
        "complete": "prompt_embeds suffix",
        "generate": """
            content_parts detokenize extra_sampling_params features output_mode parse_context reasoning_ended
            reasoning_parser_kwargs""",
        "respond": """
            enable_response_messages include instructions max_output_tokens max_tool_calls previous_input_messages
            previous_response_id reasoning text truncation""",
        "tokenize": "return_token_strs",
        "decide": "joint",
        "embed": "dimensions embed_dtype encoding_format endianness padding use_activation",
        "embed_tokens": "late_chunking_params",
        "pool": "task",
        "score": "instruction max_tokens_per_doc max_tokens_per_query",
        "rerank": "top_n",
        "transcribe": "hotwords language prompt timestamp_granularities to_language",
        "stream_transcribe": "stream_continuous_usage_stats stream_include_usage",
    }.items()
}
"""The first method of `VLLMProvider` that has a parameter. Those that every method has are not listed."""

_OPENAI_CHATS: Final = frozenset(
    """
    audio function_call functions metadata modalities moderation prediction prompt_cache_key prompt_cache_options
    prompt_cache_retention safety_identifier service_tier store verbosity web_search_options
    """.split()  # noqa: SIM905 - easier to read and extend, as in METHODS
)
"""The parameters of chats that only OpenAI's own server has."""

_SCHEMAS: Final = ("json_schema", "response_schema", "output_schema", "schema", "format", "guided_schema")
"""Other names of a JSON schema for the reply."""

_OPENAI_ONLY: Final[dict[str, str]] = {
    "functions": 'Write tools=[{"type": "function", "function": ...}].',
    "function_call": 'Write tool_choice={"type": "function", "function": {"name": ...}}, or "auto".',
    "prompt_cache_key": "vLLM caches prefixes automatically; `cache_salt` separates them.",
    "verbosity": "Ask for it in the prompt.",
}

_START_OPTIONS: Final = frozenset(
    """
    allowed_local_media_path allowed_media_domains attention_backend block_size chat_template_content_format
    code_revision compilation_config config_format cpu_offload_gb data_parallel_size default_chat_template_kwargs
    disable_log_requests disable_log_stats distributed_executor_backend download_dir dtype enable_auto_tool_choice
    enable_chunked_prefill enable_expert_parallel enable_lora enable_mm_embeds enable_prefix_caching
    enable_prompt_embeds enforce_eager generation_config gpu_memory_utilization hf_overrides hf_token kv_cache_dtype
    kv_cache_memory_bytes kv_transfer_config limit_mm_per_prompt load_format lora_modules max_cpu_loras max_logprobs
    max_lora_rank max_loras max_model_len max_num_batched_tokens max_num_seqs max_seq_len_to_capture
    mm_processor_cache_gb model_impl num_gpu_blocks_override override_generation_config pipeline_parallel_size
    quantization reasoning_parser revision rope_scaling rope_theta scheduling_policy served_model_name
    speculative_config structured_outputs_config swap_space tensor_parallel_size tokenizer tokenizer_mode
    tokenizer_revision tool_call_parser tool_parser_plugin trust_remote_code trust_request_chat_template
    trust_request_mm_kwargs
    """.split()  # noqa: SIM905 - easier to read and extend, as in METHODS
)


def explain_unknown(name: str, value: object, names: Names, written: str = "") -> Problem:
    """Returns the problem of an unknown name: where it belongs, and what to write instead.

    Args:
        name: A name that is not a parameter.
        value: The value given for it.
        names: The names that are parameters.
        written: The name as it was written, if `name` is a correction of it.
    """
    shown = "" if is_secret(name, value) or is_secret(written, value) else format_value(value)
    provider, _, method = names.owner.partition(".")
    found = (
        _of_endpoint(name, shown, names)
        or _of_all(name, shown, value, names)
        or _of_others(name, shown, names)
    )
    if found is not None:
        return found
    candidates = [*_PLACES, *_SCHEMAS, *_START_OPTIONS, *names.own, *names.other, *names.known]
    if method:
        candidates += [other for others in METHODS.values() for other in others]
    else:
        candidates += [*_IN_CONVERSATION, "stream", *_OPENAI_CHATS]
    meant = suggest(name, names.known if method and suggest(name, names.known) else candidates)
    if meant == name:  # a known name, but nothing here takes its place
        meant = None
    if meant is not None and is_secret(meant):
        shown = ""
    if meant in names.known:
        return Problem(name, shown, f"is not a parameter of {names.owner}.", f"Did you mean `{meant}`?")
    if meant is not None:
        right = explain_unknown(meant, value, names, written=name)
        return replace(right, parameter=name, rule=f"is probably `{meant}`, which {right.rule}")
    rule = f"is not a parameter of {names.owner}."
    if not method:
        rule = _NOT_OPENAI if provider == _OPENAI else _NOT_VLLM
    if names.hatch not in names.known:
        return Problem(name, shown, rule, "Leave it out.")
    return Problem(name, shown, rule, f"If your server accepts it, write {_escape(name, shown, names)}.")


def _of_endpoint(name: str, shown: str, names: Names) -> Problem | None:
    """Explains a name by what the endpoint says of it."""
    if name in names.own:
        rule, hint = names.own[name]
        return Problem(name, shown, rule, hint.format(value=shown or "...") if hint else None)
    method = names.owner.partition(".")[2]
    if name == "stream":
        rule, hint = "is not a parameter: the method decides whether to stream.", "Leave it out."
        if not method:
            hint = (
                "Call .stream(...) or .astream(...) to stream, .chat(...) or .achat(...) for the whole reply."
            )
        elif method in _STREAMED:
            hint = f"Call .stream_{method}(...) to stream, .{method}(...) for the whole response."
        return Problem(name, shown, rule, hint)
    if not method and name in _IN_CONVERSATION:
        rule = "is not a parameter: the conversation is the first argument."
        return Problem(name, shown, rule, _IN_CONVERSATION[name].format(value=shown or "..."))
    if name in _FIRST:
        rule = "is not a parameter: the input is the first argument."
        return Problem(name, shown, rule, f"Write {method or 'chat'}({shown or '...'}, ...).")
    return None


def _of_all(name: str, shown: str, value: object, names: Names) -> Problem | None:
    """Explains a name that other engines, older servers or the provider have."""
    provider = names.owner.partition(".")[0]
    if name in _SCHEMAS or (name == "guided_json" and provider == _OPENAI):
        hint = _schema_hint(value, shown, names)
        if hint is not None:
            return Problem(name, shown, _OTHER_NAME, hint)
    belongs = _PLACES.get(name)
    if belongs is None:
        return None
    switch = value if isinstance(value, bool) else True
    instead = belongs.suggestion.format(
        value=format_code(value) if shown else "...", switch=switch, provider=provider
    )
    if not belongs.target or belongs.target in names.known:
        rule = _NOT_OPENAI if belongs.rule is _REMOVED and provider == _OPENAI else belongs.rule
        return Problem(name, shown, rule, instead)
    if belongs.renamed and belongs.target in names.own:
        return replace(explain_unknown(belongs.target, value, names, written=name), parameter=name)
    if belongs.target in names.other:
        hint = f"With VLLMProvider: {instead}"
        if belongs.rule is not _REMOVED:
            hint = f"If your server accepts it, write {_escape(name, shown, names)}. {hint}"
        return Problem(name, shown, _NOT_OPENAI, hint)
    moved = _of_others(belongs.target, shown, names)
    return moved and replace(moved, parameter=name, rule=f"is not a parameter of {names.owner}.")


def _schema_hint(value: object, shown: str, names: Names) -> str | None:
    """What to write for a schema, a type, or the word "json"."""
    if "response_format" not in names.known:
        return (
            f'Write structured_outputs={{"json": {shown or "..."}}}.'
            if "structured_outputs" in names.known
            else None
        )
    if isinstance(value, type) and shown:
        hint = f"Write response_format={value.__name__}"
        return (
            f"{hint}."
            if "." in names.owner
            else f"{hint}, or parse(messages, {value.__name__}) for a value of that type."
        )
    if isinstance(value, str):
        return 'For any JSON object, write response_format={"type": "json_object"}.'
    schema = f'{{"name": "reply", "schema": {shown or "..."}}}'
    return f'Write response_format={{"type": "json_schema", "json_schema": {schema}}}.'


def _of_others(name: str, shown: str, names: Names) -> Problem | None:
    """Explains a name that another method, the other provider or the server has."""
    provider, _, method = names.owner.partition(".")
    if name in names.other:
        rule = "is a parameter of vLLM, not of OpenAI's API."
        hint = f"Use VLLMProvider, or write {_escape(name, shown, names)}."
        return Problem(name, shown, rule, hint)
    if name in _OPENAI_CHATS and provider != _OPENAI:
        rule = "is a parameter of OpenAI's own server; vLLM silently ignores it."
        return Problem(name, shown, rule, _OPENAI_ONLY.get(name, "Leave it out."))
    home = next((method for method, others in METHODS.items() if name in others), None)
    if home is None and name in _OPENAI_CHATS:
        home = "chat"
    if home == "chat" and names.chats is not None:
        return Problem(name, shown, *names.chats)
    if home is not None:
        meant = suggest(name, names.known) if method else None
        hint = f"Did you mean `{meant}`?" if meant else f"Leave it out, or call .{home}(...)."
        owner = "VLLMProvider" if home != "chat" else provider
        return Problem(name, shown, f"is a parameter of {owner}.{home}, not of {names.owner}.", hint)
    if name == "extra_headers":
        hint = f"Write {provider}(..., headers=...), or .with_options(headers=...) for a copy."
        return Problem(name, shown, f"is not a parameter of {names.owner}.", hint)
    if name in _START_OPTIONS:
        option = f"--{name.replace('_', '-')}"
        return Problem(
            name, shown, "is an option of the vLLM server.", f"Start it with: vllm serve {option} ..."
        )
    return None


def _escape(name: str, shown: str, names: Names) -> str:
    if name == "enable_thinking":  # only ours: servers expect it among the template variables
        return f'extra_body={{"chat_template_kwargs": {{"enable_thinking": {shown}}}}}'
    return f'{names.hatch}={{"{name}": {shown or "..."}}}'
