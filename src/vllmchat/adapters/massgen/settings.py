"""Sorts the keys of a `type: vllm` backend block. Does not depend on the MassGen package.

A block has MassGen's own options and the request parameters of `VLLMChatParams`. The parameters are sent to the server;
MassGen's options never are; anything else is a mistake and is reported before the first request.
"""

from __future__ import annotations

import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, cast

from vllmchat.adapters.massgen.wording import in_yaml, value_in_yaml
from vllmchat.chat.check import VLLM_CHAT_NAMES, check_vllm, suggest
from vllmchat.errors import InvalidRequestError, Problem
from vllmchat.http.timeout import Timeout

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

OWN_NAMES: Final = frozenset(
    {
        "api_key",
        "append_system_prompt",
        "base_url",
        "max_incomplete_response_retries",
        "max_mcp_message_history",
        "media_max_file_size_mb",
        "model",
        "previous_response_id",
        "provider",
        "provider_name",
        "stream",
        "system_message",
        "system_prompt",
        "type",
    }
)
"""MassGen's options that are missing from its list of those not to send."""

NOT_FOR_VLLM: Final = {
    "enable_code_interpreter": "A vLLM server does not run code. Use `enable_mcp_command_line: true` or an MCP server.",
    "enable_web_search": "A vLLM server does not search the web. Use an MCP server for that.",
    "engine": "It is an OpenRouter option.",
    "max_results": "It is an OpenRouter option.",
    "reasoning": "It is an OpenRouter option. Use `reasoning_effort: low` or `enable_thinking: true`.",
    "search_context_size": "It is an OpenRouter option.",
    "search_prompt": "It is an OpenRouter option.",
}
"""MassGen's options that only other servers support, and what to write instead."""

REPORTED_BY_MASSGEN: Final = frozenset({"enable_code_interpreter", "enable_web_search"})
"""Those that MassGen's own validation of configuration files reports."""

GIVEN_BY_MASSGEN: Final = frozenset({"session_id", "tools"})
"""Parameters of vLLM for whose names MassGen passes something of its own with each call."""


def parameters(
    config: Mapping[str, Any], call: Mapping[str, Any], *, own: Collection[str] = OWN_NAMES
) -> dict[str, Any]:
    """Returns the request parameters: those of the backend block, overridden by those of the call.

    Args:
        config: The whole backend block, as the backend keeps it. Calls that MassGen makes itself, such as for a
            summary, do not repeat it.
        call: The keyword arguments of the call, in which MassGen repeats the block along with options of its own.
        own: The names of MassGen's own options.
    """
    chosen = {name: value for name, value in config.items() if _is_parameter(name, own)}
    chosen |= {
        name: value
        for name, value in call.items()
        if value is not None and name in VLLM_CHAT_NAMES and name not in GIVEN_BY_MASSGEN
    }
    return {name: value for name, value in chosen.items() if value is not None}


def _is_parameter(name: str, own: Collection[str]) -> bool:
    # MassGen lists some of vLLM's names as its own, to keep them from OpenAI's client.
    return name in VLLM_CHAT_NAMES or not (name in own or name.startswith("_"))


def with_timeout(params: dict[str, Any]) -> dict[str, Any]:
    """Converts a `timeout` mapping, as YAML has no `Timeout`.

    Raises:
        InvalidRequestError: The mapping has a key that `Timeout` lacks, or a value that is not a number of seconds.
    """
    timeout = params.get("timeout")
    if not isinstance(timeout, dict):
        return params
    limits = cast("dict[str, Any]", timeout)
    known = [field.name for field in fields(Timeout)]
    if unknown := [name for name in limits if name not in known]:
        rule = f"has no key {', '.join(map(repr, unknown))}: the keys are {', '.join(known)}."
        raise InvalidRequestError([Problem("timeout", repr(limits), rule)])
    try:
        return {**params, "timeout": Timeout(**limits)}
    except (TypeError, ValueError) as error:
        raise InvalidRequestError([Problem("timeout", repr(limits), f"{error}.")]) from None


def check(config: Mapping[str, Any], *, own: Collection[str] = OWN_NAMES) -> list[Problem]:
    """Checks a backend block: unknown names, wrong values, contradictions.

    Args:
        config: The block.
        own: The names of MassGen's own options.
    """
    problems: list[Problem] = list(_not_in_a_block(config))
    chosen = parameters(config, {}, own=own)
    for name, hint in NOT_FOR_VLLM.items():
        if config.get(name) and name not in VLLM_CHAT_NAMES:
            problems.append(Problem(name, repr(config[name]), "is not an option of a vLLM backend.", hint))
    for name in [name for name in chosen if name not in VLLM_CHAT_NAMES]:
        if (meant := _massgen_name(name, own)) is not None:
            problems.append(Problem(name, "", "is not a MassGen option.", f"Did you mean `{meant}`?"))
            del chosen[name]
    problems.extend(_files(config))
    if "tool_choice" in chosen and "tools" not in chosen:
        # The tools come with each call, so they are not known yet.
        chosen["tools"] = [_any_tool(chosen["tool_choice"])]
    try:
        check_vllm(with_timeout(chosen), stream=True)
    except InvalidRequestError as error:
        problems.extend(map(_about_a_block, error.problems))
    order = {name: place for place, name in enumerate(config)}
    return sorted(problems, key=lambda problem: order.get(_PATH.split(problem.parameter)[0], len(order)))


_PATH = re.compile(r"[.\[]")


def _not_in_a_block(config: Mapping[str, Any]) -> Iterable[Problem]:
    """Keys that MassGen takes silently and does not use."""
    if config.get("stream") is False:
        rule = "is not possible: MassGen reads every reply as a stream."
        yield Problem("stream", "False", rule, "Leave it out.")
    if config.get("system_message"):
        # MassGen's own words for `system_prompt`.
        hint = "Use 'system_message' at the agent level (outside backend block) instead."
        yield Problem("system_message", "", "in backend config is not supported.", hint)


def _about_a_block(problem: Problem) -> Problem:
    """A problem without advice that only a Python program can follow."""
    advice = problem.suggestion or ""
    if "Write chat(" in advice:
        rule = "is not a key of a backend block: MassGen writes the conversation."
    elif "VLLMProvider(" in advice:
        rule = "cannot be set in a backend block."
    else:
        return problem
    return Problem(problem.parameter, problem.value, rule)


def _massgen_name(name: str, own: Collection[str]) -> str | None:
    """MassGen's option that was meant, if it is a closer match than every parameter of vLLM."""
    meant = suggest(name, sorted({*own, *VLLM_CHAT_NAMES}))
    return meant if meant is not None and meant not in VLLM_CHAT_NAMES else None


_FILES: Final = ("image_path", "audio_path", "video_path")


def _files(config: Mapping[str, Any]) -> Iterable[Problem]:
    entries = config.get("upload_files")
    if not isinstance(entries, list):
        return
    for place, entry in enumerate(cast("list[object]", entries)):
        if not isinstance(entry, dict):
            continue
        given = cast("dict[str, object]", entry)
        if "file_path" in given:
            yield Problem(
                f"upload_files[{place}].file_path",
                repr(given["file_path"]),
                "is not supported by the vLLM backend: vLLM servers do not read documents.",
                "Add the file's directory to the orchestrator's `context_paths`, or use image_path, audio_path or "
                "video_path.",
            )
        elif not any(name in given for name in _FILES):
            keys = ", ".join(f"`{name}`" for name in given) or "nothing"
            hint = "A file is given as `image_path`, `audio_path` or `video_path`; each may also be a URL."
            yield Problem(f"upload_files[{place}]", "", f"has {keys}, which names no file.", hint)


def _any_tool(choice: object) -> dict[str, Any]:
    name = "any"
    match choice:
        case {"function": {"name": str(text)}}:
            name = text
        case _:
            pass
    return {"type": "function", "function": {"name": name}}


def report(problems: Iterable[Problem], path: str) -> list[str]:
    """The problems as lines, each with its place in the YAML file.

    Args:
        problems: What `check` found.
        path: The place of the block, such as `agents[1].backend`.
    """
    return [_line(problem, path) for problem in problems]


def _line(problem: Problem, path: str) -> str:
    place = f"{path}.{problem.parameter}" + (f": {problem.value}" if problem.value else "")
    said = " ".join(filter(None, (problem.rule, problem.suggestion))).replace("VLLMProvider", "vLLM")
    return value_in_yaml(f"{place} {in_yaml(said)}")
