"""Explains calls that do not fit the signature of a method or of a provider's constructor.

This module is imported only for invalid calls. No value that may be a key is shown.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Final

from vllmchat.checking.describe import format_code, format_value, suggest
from vllmchat.checking.secrets import is_secret
from vllmchat.checking.unknown_names import METHODS, Names, explain_unknown
from vllmchat.errors import InvalidRequestError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

_OTHER_NAME: Final = "has a different name here."
_PLACES: Final = ("first", "second")

_SETTINGS: Final[dict[str, tuple[str, ...]]] = {
    "model": ("model_name", "model_id", "default_model"),
    "base_url": ("url", "api_base", "endpoint", "host", "server", "server_url", "openai_api_base"),
    "api_key": ("key", "token", "api_token", "auth_token", "openai_api_key", "vllm_api_key"),
    "timeout": ("request_timeout", "timeout_seconds"),
    "max_retries": ("retries", "retry", "num_retries", "max_retry", "retry_count"),
    "max_retry_seconds": ("retry_timeout", "max_retry_time", "max_elapsed_time"),
    "headers": ("default_headers", "extra_headers", "custom_headers"),
    "http_client": ("client", "session", "httpx_client"),
    "async_http_client": ("async_client", "http_async_client"),
    "verify": ("ssl", "ssl_verify", "verify_ssl", "ssl_context", "cert"),
    "on_request": ("request_hook", "before_request"),
    "on_retry": ("retry_hook",),
    "on_response": ("response_hook", "after_response", "callback", "callbacks"),
    "pickle_secrets": ("pickle_key", "with_key", "include_secrets"),
    "max_connections": ("limits", "pool_size", "connections", "max_concurrency"),
}
"""The arguments of a provider, and their names in other libraries."""

_PROXY: Final = (
    "is not an argument: proxies are set in the environment.",
    "Set HTTPS_PROXY, or write http_client=httpx.Client(proxy=...).",
)

_ELSEWHERE: Final[dict[str, tuple[str, str]]] = {
    "proxy": _PROXY,
    "proxies": _PROXY,
    "organization": (_OTHER_NAME, 'Write headers={"OpenAI-Organization": ...}.'),
    "project": (_OTHER_NAME, 'Write headers={"OpenAI-Project": ...}.'),
    "default_query": (
        "is not an argument: requests have no query string.",
        "For a gateway, write headers={...}.",
    ),
    "api_version": (
        "is not an argument: requests have no query string.",
        "Write the version in base_url, as /v1.",
    ),
}

_ALIASES: Final[dict[str, tuple[str, ...]]] = {
    "messages": ("prompt", "input", "message", "conversation", "history", "text", "query", "question"),
    "conversations": ("messages", "prompts", "batch", "inputs"),
    "prompt": ("messages", "input", "text", "prompts", "token_ids", "tokens", "prompt_token_ids"),
    "input": ("inputs", "messages", "prompt", "text", "texts", "documents", "sentences"),
    "tokens": ("token_ids", "ids", "input_ids", "prompt"),
    "file": ("audio", "audio_file", "path", "input", "files"),
    "data_1": ("text_1", "query", "queries"),
    "data_2": ("text_2", "documents", "texts"),
    "documents": ("texts", "passages", "docs"),
    "kind": (
        "response_format", "response_model", "output_type", "result_type", "type", "schema", "json_schema",
        "text_format", "format", "cls", "model_class",
    ),
    "options": ("choices", "choice", "guided_choice", "labels", "values"),
    "name": ("lora_name",),
    "path": ("lora_path",),
}  # fmt: skip
"""Required arguments, and their names in other libraries and other methods."""


def explain_call(
    owner: str,
    method: Callable[..., object],
    args: Sequence[object],
    kwargs: Mapping[str, object],
    accepted: Collection[str] | None = None,
) -> InvalidRequestError:
    """Returns the error for a call that does not fit.

    Args:
        owner: The class, such as `VLLMProvider`.
        method: The method, or the constructor.
        args: The positional arguments, without `self`.
        kwargs: The keyword arguments.
        accepted: The names of all arguments of a constructor or of `with_options`.
    """
    parameters = list(inspect.signature(method).parameters.values())[1:]
    by_place = [each for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
    by_name = {each.name for each in parameters if each.kind is not each.VAR_KEYWORD}.union(accepted or ())
    name = owner if method.__name__ == "__init__" else method.__name__
    problems: list[Problem] = []
    if len(args) > len(by_place):
        problems.append(_too_many(owner, name, parameters, len(args)))
    problems += [
        _problem(
            each.name, kwargs[each.name], "is given twice, by position and by name.", "Keep one of them."
        )
        for each in by_place[: len(args)]
        if each.name in kwargs
    ]
    used: set[str] = set()
    for place, each in enumerate(by_place):
        if place >= len(args) and each.default is each.empty and each.name not in kwargs:
            problems.append(_missing(name, by_place, place, args, kwargs, used))
    if accepted is not None or not any(each.kind is each.VAR_KEYWORD for each in parameters):
        explain = _argument if accepted is None else _setting
        problems += [
            explain(owner, name, by_name, written, value)
            for written, value in kwargs.items()
            if written not in by_name and written not in used
        ]
    return InvalidRequestError(problems)


def explain_settings(
    owner: str,
    method: Callable[..., object],
    args: Sequence[object],
    kwargs: Mapping[str, object],
    accepted: Collection[str],
    check_defaults: Callable[[], object],
) -> InvalidRequestError:
    """Returns the error for a call of a constructor or of `with_options` that does not fit.

    Args:
        owner: See `explain_call`.
        method: See `explain_call`.
        args: See `explain_call`.
        kwargs: See `explain_call`.
        accepted: See `explain_call`.
        check_defaults: Raises `InvalidRequestError` if the defaults among the arguments are invalid.
    """
    failure = explain_call(owner, method, args, kwargs, accepted)
    try:
        check_defaults()
    except InvalidRequestError as error:
        invalid = error.problems
    else:
        return failure
    return InvalidRequestError([*failure.problems, *invalid])


_METHODS: Final = {
    "completions": "complete",
    "create": "chat",
    "invoke": "chat",
    "predict": "chat",
    "ask": "chat",
    "run": "chat",
    "ainvoke": "achat",
    "chat_completion": "chat",
    "stream_chat": "stream",
    "astream_chat": "astream",
    "chat_stream": "stream",
    "beta": "parse",
    "responses": "respond",
    "embeddings": "embed",
    "embed_query": "embed",
    "encode": "embed",
    "audio": "transcribe",
    "list_models": "models",
    "wait_ready": "ready",
    "wait_until_ready": "ready",
    "is_healthy": "health",
    "copy": "with_options",
    "batch": "chat_batch",
}
"""Methods, by their names in other libraries."""


def explain_attribute(provider: object, name: str) -> AttributeError:
    """Returns the error for a method that a provider does not have."""
    owner = type(provider)
    text = f"{owner.__name__!r} object has no attribute {name!r}"
    meant = _METHODS.get(name)
    if meant is not None and hasattr(owner, meant):
        text = f"{text}. Write llm.{meant}(...)"
    return AttributeError(text, name=name, obj=provider)


def _problem(name: str, value: object, rule: str, hint: str) -> Problem:
    return Problem(name, "" if is_secret(name, value) else format_value(value), rule, hint)


def _too_many(owner: str, name: str, parameters: Sequence[inspect.Parameter], count: int) -> Problem:
    # The values are not shown: one may be a key.
    by_place = [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
    by_name = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
    accepted = f"only {' and '.join(f'`{each}`' for each in by_place)}" if by_place else "no arguments"
    hint = (
        f"Write the others by name: {', '.join(f'{each}=...' for each in by_name[:3])}." if by_name else None
    )
    if "options" in by_place:
        hint = "Write the options as a list: [..., ...]."
    if by_place == ["messages"]:
        hint = 'Write several messages as [{"role": ..., "content": ...}, ...], and a model as model="...".'
    where = "" if name == owner else f"{owner}."
    rule = f"accepts {accepted} by position, but {count} {'was' if count == 1 else 'were'} given."
    return Problem(f"{where}{name}", "", rule, hint)


def _missing(
    name: str,
    by_place: Sequence[inspect.Parameter],
    place: int,
    args: Sequence[object],
    kwargs: Mapping[str, object],
    used: set[str],
) -> Problem:
    missing = by_place[place].name
    required = [each.name for each in by_place if each.default is each.empty]
    others = [each for each in kwargs if each not in used and each not in required]
    written = next((alias for alias in _ALIASES.get(missing, ()) if alias in others), None)
    written = written or suggest(missing, others)
    if written is None:
        return Problem(missing, "", "is required.", f"Write {name}({', '.join(required)}, ...).")
    used.add(written)
    value = kwargs[written]
    shown = "..." if is_secret(written, value) else format_code(value)
    required[place] = shown
    rule = f"is not a parameter: {_WHAT.get(missing, f'`{missing}`')} is the {_PLACES[place]} argument."
    return _problem(written, value, rule, f"Write {name}({', '.join(required)}, ...).")


_WHAT: Final = {
    "messages": "the conversation",
    "kind": "the type",
    "prompt": "the prompt",
    "input": "the input",
}


def _setting(owner: str, name: str, known: set[str], written: str, value: object) -> Problem:
    """Explains an unknown argument of a constructor or of `with_options`."""
    method = "" if name == owner else f"{owner}.{name}"
    aliases = {alias: meant for meant, others in _SETTINGS.items() for alias in others}
    meant: str | None = written if written in _SETTINGS else aliases.get(written)
    shown = "" if is_secret(meant or written, value) else format_code(value)
    if meant in known:
        return _problem(written, shown and value, _OTHER_NAME, f"Write `{meant}={shown or '...'}`.")
    if meant is not None:
        rule = "is fixed: a copy shares the connections of the original."
        return _problem(written, shown and value, rule, f"Write {owner}(..., {meant}={shown or '...'}).")
    if written in _ELSEWHERE:
        rule, hint = _ELSEWHERE[written]
        return _problem(written, value, rule, hint)
    home = next((each for each, names in METHODS.items() if written in names), None)
    home = "chat" if written in ("extra_body", "stream") else home
    if home is not None:
        rule = "is a parameter of calls, not of the provider."
        return _problem(written, value, rule, f"Write llm.{home}(..., {written}={shown or '...'}).")
    close = suggest(written, [*known, *aliases, *_ELSEWHERE, *METHODS["chat"], *_SETTINGS])
    if close in known:
        shown = "" if is_secret(close, value) else format_value(value)
        return Problem(
            written, shown, f"is not an argument of {method or owner}.", f"Did you mean `{close}`?"
        )
    if close is not None:
        right = _setting(owner, name, known, close, value)
        return Problem(written, right.value, f"is probably `{close}`, which {right.rule}", right.suggestion)
    found = explain_unknown(written, value, Names(method or owner, known, hatch=""))
    if found.rule.startswith("is an option of"):
        return found
    listed = ", ".join(f"`{each}`" for each in _SETTINGS if each in known)
    return Problem(written, found.value, f"is not an argument of {method or owner}.", f"It accepts {listed}.")


def _argument(owner: str, name: str, known: set[str], written: str, value: object) -> Problem:
    """Explains an unknown argument of a method that has no parameters."""
    return explain_unknown(written, value, Names(f"{owner}.{name}", sorted(known), hatch=""))
