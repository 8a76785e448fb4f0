"""Error messages in the words of the command line: options instead of parameters."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vllmchat.errors import InvalidRequestError, Problem

OPTIONS: Final = {
    "base_url": "--url",
    "model": "--model",
    "timeout": "--timeout",
    "api_key": "--api-key-file",
    "inputs": "INPUT",
}
"""The options that have other names than their parameters, or that all commands share."""

_PROVIDERS: Final = {"VLLMProvider": "--provider vllm", "OpenAIProvider": "--provider openai"}

_WRITTEN: Final = re.compile(
    r"(?<![\w.\"'-])(?P<tick>`?)(?P<name>[a-z][a-z0-9_]*)(?P<value>=(?:(?:True|False|None)\b)?)?(?P=tick)"
)
_OBJECT: Final = re.compile(r"(--[a-z-]+) (\{[^']*\})")
"""A JSON object, which a shell needs in quotes."""

_TIMEOUT: Final = re.compile(
    r"timeout=Timeout\([a-z_]+=\.\.\.\)|timeout=Timeout\(\.\.\.\)|\bTimeout\.total\b"
)


def option_of(name: str) -> str:
    """Returns the option of a parameter."""
    return OPTIONS.get(name) or f"--{name.replace('_', '-')}"


def in_options(text: str, names: Mapping[str, str]) -> str:
    """Returns a text in which parameters are options.

    Args:
        text: The text, in which `name=` and `name` in backticks are parameters.
        names: The options by the names of their parameters.
    """

    def option(match: re.Match[str]) -> str:
        value = match["value"] or ""
        known = names.get(match["name"])
        if known is None or not (match["tick"] or value):
            return match[0]
        if value == "=False" and known.startswith("--"):
            return f"--no-{known[2:]}"
        after = match.string[match.end() : match.end() + 1]
        return f"{known} " if value == "=" and after.strip() else known

    text = _TIMEOUT.sub("--timeout", text)
    for written, known in _PROVIDERS.items():
        text = re.sub(rf"\b{written}\b(?!\.)", known, text)
    text = re.sub(r"\bbase_url\b(?!=)", OPTIONS["base_url"], text)
    return _OBJECT.sub(r"\1 '\2'", _WRITTEN.sub(option, text))


def explained(error: InvalidRequestError, names: Mapping[str, str]) -> str:
    """Returns what is wrong with a request, in one line for each problem."""
    if not error.problems:
        return in_options(error.message, names)
    lines = [_line(problem, names) for problem in error.problems]
    return lines[0] if len(lines) == 1 else "".join(f"\n  {line}" for line in lines).removeprefix("\n  ")


def _line(problem: Problem, names: Mapping[str, str]) -> str:
    top = re.split(r"[.\[]", problem.parameter, maxsplit=1)[0]
    inside = problem.parameter[len(top) :].lstrip(".")
    value = problem.value
    if value == "None" or (value.startswith("'") and inside == "" and top == "model"):
        value = value.strip("'") if value != "None" else ""
    head = " ".join(part for part in (names.get(top, top), inside, value) if part)
    words = f"{problem.rule} {problem.suggestion}" if problem.suggestion else problem.rule
    return f"{head}: {in_options(words, names)}"
