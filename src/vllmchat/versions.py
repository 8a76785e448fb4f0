"""What differs between vLLM 0.8 and 0.33 on the wire, and what this library does about it.

Nearly everything is said so that every version understands it, or is read so that any answer will do: then nobody asks
which version a server is. `DIFFERENCES` is the whole list; `docs/versions.md` shows it. Where a request must be written
differently for old and for new servers, the provider asks the server's `/version`, once; `must_ask` says for which
requests, `fit` writes them.

A server without `/version`, or with an answer that is no version of vLLM, counts as the newest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from vllmchat.errors import InvalidRequestError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

Version: TypeAlias = tuple[int, int, int]
"""Major, minor and patch number."""

NEWEST: Final[Version] = (9999, 0, 0)
"""What a server counts as whose version is not known."""

_OLDEST: Final[Version] = (0, 8, 0)
"""Older ones are not supported. What calls itself older was built without its tags, as `0.1.dev1+g...`."""

STRUCTURED_OUTPUTS: Final[Version] = (0, 11, 0)
"""The first version with `structured_outputs`; those before have `guided_json` and its kind."""

COMPLETION_SCHEMAS: Final[Version] = (0, 11, 1)
"""The first version whose `/v1/completions` reads `json_schema` in `response_format`; those before ignore it."""


def read_version(text: str) -> Version:
    """The version that a server says it is.

    Args:
        text: Such as `0.11.0`, `0.10.2rc1.dev27+g1a2b3c4` or `dev`. Of a release candidate, the release counts.
    """
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", text)
    if found is None:
        return NEWEST
    version = (int(found[1]), int(found[2]), int(found[3] or 0))
    return version if version >= _OLDEST else NEWEST


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which versions differ.

    Attributes:
        since: The version that changed it.
        what: What it is about.
        change: What changed.
        here: What this library does.
    """

    since: str
    what: str
    change: str
    here: str


DIFFERENCES: Final = (
    Difference(
        "0.9",
        "`top_k=0`",
        "0 switches it off; before, only -1 does, and 0 is refused",
        "sends -1, which all versions understand",
    ),
    Difference(
        "0.9",
        "tool calls in streams",
        "`id` and `type` come once, not in every piece",
        "reads all forms",
    ),
    Difference(
        "0.10.1",
        "error bodies",
        "nested under `error`; before, flat",
        "reads four shapes, and none",
    ),
    Difference(
        "0.10.2",
        "`truncate_prompt_tokens=-1`, `prompt_logprobs=-1`",
        "-1 is allowed; before, refused",
        "sends it; an old server answers with a `BadRequestError`",
    ),
    Difference(
        "0.11",
        "`structured_outputs`",
        "new; before, `guided_json`, `guided_regex`, `guided_choice`, `guided_grammar`",
        "asks for the version and writes the form that the server reads; an old server's lack is an "
        "`InvalidRequestError`",
    ),
    Difference(
        "0.11.1",
        "`response_format` with a JSON schema on `/v1/completions`",
        "works; before, ignored without a word",
        "asks for the version and writes a constraint that the server reads",
    ),
    Difference(
        "0.11.1",
        "`reasoning`",
        "the name of `reasoning_content`, which 0.16 drops; both at once in between",
        "reads either as `.reasoning`, never both",
    ),
    Difference(
        "0.12",
        "`guided_json` and its kind, `best_of`, `structural_tag` beside the other parameters",
        "removed, and ignored without a word",
        "refuses these names and says what to write",
    ),
    Difference(
        "0.12",
        "`parallel_tool_calls`",
        "False is obeyed; before, ignored",
        "sends it; read all of `tool_calls`",
    ),
    Difference(
        "0.18",
        "usage in streams",
        "only where it is asked for; before, always",
        "always says whether it is wanted",
    ),
    Difference(
        "0.18, 0.21",
        "`reasoning_effort`",
        "`none`, then the other new words; before, refused",
        "sends it; an old server answers with a `BadRequestError`",
    ),
    Difference(
        "0.20",
        "`tools=[]`",
        "refused; before, taken for none",
        "refuses it for all of them",
    ),
    Difference(
        "0.24",
        "`temperature` above 2",
        "refused; before, without bound",
        "refuses it; `extra_body` reaches old servers",
    ),
    Difference(
        "0.28",
        "more than four `stop` texts",
        "refused; before, any number",
        "sends them; a new server answers with a `BadRequestError`",
    ),
    Difference(
        "0.32",
        "`max_tokens` beyond the context",
        "cut; before, refused",
        "sends it; an old server answers with a `ContextWindowExceededError`",
    ),
    Difference(
        "0.33",
        "the finish reason of a tool call that `max_tokens` cut",
        "`length`; before, often `tool_calls`",
        "looks at the call itself: `ToolCall.complete`",
    ),
)
"""Every difference that this library knows and that a caller could notice, oldest first."""


def must_ask(fields: Mapping[str, object], *, completions: bool = False) -> bool:
    """Whether a request is written differently for some versions.

    Args:
        fields: The fields of its body that are checked.
        completions: Whether it goes to `/v1/completions`; else it is a chat.
    """
    return "structured_outputs" in fields or (completions and _schema_in(fields) is not None)


def fit(fields: Mapping[str, object], version: Version, *, completions: bool = False) -> dict[str, object]:
    """The fields as a server of a version reads them.

    Args:
        fields: The fields of the body that are checked. They are not changed.
        version: The server's.
        completions: Whether they go to `/v1/completions`; else it is a chat.

    Raises:
        InvalidRequestError: The server is too old for something, and would ignore it without a word.
    """
    fitted = dict(fields)
    if completions and version < COMPLETION_SCHEMAS and (schema := _schema_in(fitted)) is not None:
        del fitted["response_format"]
        fitted.setdefault("structured_outputs", {"json": schema})
    if version < STRUCTURED_OUTPUTS and "structured_outputs" in fitted:
        wanted = cast("Mapping[str, object]", fitted.pop("structured_outputs"))
        fitted.update(_guided(wanted, version))
    return fitted


def _schema_in(fields: Mapping[str, object]) -> object:
    """The JSON schema in a `response_format`, if there is one."""
    wanted = cast("Mapping[str, object]", fields.get("response_format") or {})
    if wanted.get("type") != "json_schema":
        return None
    return cast("Mapping[str, object]", wanted["json_schema"]).get("schema")


_GUIDED: Final = {
    "json": "guided_json",
    "regex": "guided_regex",
    "choice": "guided_choice",
    "grammar": "guided_grammar",
    "whitespace_pattern": "guided_whitespace_pattern",
}


def _guided(wanted: Mapping[str, object], version: Version) -> dict[str, object]:
    """A constraint in the form of servers before 0.11."""
    fields: dict[str, object] = {}
    problems: list[Problem] = []
    for name, value in wanted.items():
        if value is None or value is False:
            continue
        if name == "json_object":
            fields["response_format"] = {"type": "json_object"}
        elif name in _GUIDED:
            fields[_GUIDED[name]] = value
        else:
            rule = f"needs vLLM 0.11 or newer; this server is {'.'.join(map(str, version))}."
            problems.append(Problem(f"structured_outputs.{name}", "", rule))
    if problems:
        raise InvalidRequestError(problems)
    return fields
