"""Whose is which key of a `type: vllm` backend block. Knows nothing of the MassGen package.

A block holds MassGen's own options and the request parameters of `VLLMChatParams` side by side. The parameters go to
the server; MassGen's options never do; anything else is a mistake and is reported before the first request.
"""

from __future__ import annotations

import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, cast

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
        "system_message",
        "system_prompt",
        "type",
    }
)
"""Options of MassGen's that it does not list among those it keeps from the server."""

NOT_FOR_VLLM: Final = {
    "enable_code_interpreter": "A vLLM server runs no code. Use `enable_mcp_command_line: true` or an MCP server.",
    "enable_web_search": "A vLLM server searches no web. Use an MCP server for it.",
    "engine": "It is OpenRouter's.",
    "max_results": "It is OpenRouter's.",
    "reasoning": "It is OpenRouter's. Write `reasoning_effort: low` or `enable_thinking: true`.",
    "search_context_size": "It is OpenRouter's.",
    "search_prompt": "It is OpenRouter's.",
}
"""Options of MassGen's that only other servers have, and what to write instead."""

REPORTED_BY_MASSGEN: Final = frozenset({"enable_code_interpreter", "enable_web_search"})
"""Those of them that MassGen's own check of a configuration file reports."""

GIVEN_BY_MASSGEN: Final = frozenset({"session_id", "tools"})
"""Parameters of vLLM under whose names MassGen hands over something of its own with each call."""


def parameters(
    config: Mapping[str, Any], call: Mapping[str, Any], *, own: Collection[str] = OWN_NAMES
) -> dict[str, Any]:
    """The request parameters: those of the backend block, overlaid by those of one call.

    Args:
        config: The whole backend block, as the backend keeps it. Calls that MassGen makes by itself, such as for a
            summary, bring none of it along.
        call: The keyword arguments of the call, in which MassGen repeats the block beside options of its own.
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
    # Some names are on MassGen's list although they are vLLM's: it keeps them from OpenAI's client.
    return name in VLLM_CHAT_NAMES or not (name in own or name.startswith("_"))


def with_timeout(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters with `timeout` as the library takes it: YAML has no `Timeout`, so a mapping stands for one.

    Raises:
        InvalidRequestError: The mapping has a key that `Timeout` has not, or a value that is no number of seconds.
    """
    given = params.get("timeout")
    if not isinstance(given, dict):
        return params
    limits = cast("dict[str, Any]", given)
    known = [field.name for field in fields(Timeout)]
    if unknown := [name for name in limits if name not in known]:
        rule = f"has no limit {', '.join(map(repr, unknown))}: the limits are {', '.join(known)}."
        raise InvalidRequestError([Problem("timeout", repr(limits), rule)])
    try:
        return {**params, "timeout": Timeout(**limits)}
    except (TypeError, ValueError) as error:
        raise InvalidRequestError([Problem("timeout", repr(limits), f"{error}.")]) from None


def check(config: Mapping[str, Any], *, own: Collection[str] = OWN_NAMES) -> list[Problem]:
    """What is wrong with a backend block: unknown names, wrong values, contradictions.

    Args:
        config: The block.
        own: The names of MassGen's own options.
    """
    problems: list[Problem] = []
    chosen = parameters(config, {}, own=own)
    for name, hint in NOT_FOR_VLLM.items():
        if config.get(name) and name not in VLLM_CHAT_NAMES:
            problems.append(Problem(name, repr(config[name]), "is not an option of a vLLM backend.", hint))
    for name in [name for name in chosen if name not in VLLM_CHAT_NAMES]:
        if (meant := _massgen_name(name, own)) is not None:
            problems.append(Problem(name, "", "is not an option of MassGen's.", f"Did you mean `{meant}`?"))
            del chosen[name]
    problems.extend(_files(config))
    if "tool_choice" in chosen and "tools" not in chosen:
        # The tools come with each call. Which they are is known only then.
        chosen["tools"] = [_any_tool(chosen["tool_choice"])]
    try:
        check_vllm(with_timeout(chosen), stream=True)
    except InvalidRequestError as error:
        problems.extend(error.problems)
    order = {name: place for place, name in enumerate(config)}
    return sorted(problems, key=lambda problem: order.get(_PATH.split(problem.parameter)[0], len(order)))


_PATH = re.compile(r"[.\[]")


def _massgen_name(name: str, own: Collection[str]) -> str | None:
    """MassGen's option that was meant, if it is nearer than every parameter of vLLM's."""
    meant = suggest(name, sorted({*own, *VLLM_CHAT_NAMES}))
    return meant if meant is not None and meant not in VLLM_CHAT_NAMES else None


def _files(config: Mapping[str, Any]) -> Iterable[Problem]:
    entries = config.get("upload_files")
    if not isinstance(entries, list):
        return
    for place, entry in enumerate(cast("list[object]", entries)):
        if isinstance(entry, dict) and "file_path" in entry:
            yield Problem(
                f"upload_files[{place}].file_path",
                repr(cast("dict[str, object]", entry)["file_path"]),
                "is not for a vLLM backend: no server reads documents for it.",
                "Name the file's folder under the orchestrator's `context_paths`, or use image_path, audio_path or "
                "video_path.",
            )


def _any_tool(choice: object) -> dict[str, Any]:
    name = "any"
    match choice:
        case {"function": {"name": str(given)}}:
            name = given
        case _:
            pass
    return {"type": "function", "function": {"name": name}}


def report(problems: Iterable[Problem], path: str) -> list[str]:
    """The problems as lines, each with its place in the YAML file.

    Args:
        problems: What `check` found.
        path: Where the block stands, such as `agents[1].backend`.
    """
    return [_line(problem, path) for problem in problems]


def _line(problem: Problem, path: str) -> str:
    place = f"{path}.{problem.parameter}" + (f": {problem.value}" if problem.value else "")
    said = " ".join(filter(None, (problem.rule, problem.suggestion))).replace("VLLMProvider", "vLLM")
    # The library speaks of keyword arguments; here they are keys of a YAML file.
    return " ".join((place, _KEYWORD.sub(r"\1: ", said)))


_KEYWORD = re.compile(r"\b([a-z_]+)=(?=\S)")
