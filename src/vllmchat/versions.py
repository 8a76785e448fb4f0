"""What differs between vLLM 0.8 and 0.33 on the wire, and how this library handles it.

Most requests are written so that every version understands them, and most responses are read in any form: then the
server's version does not matter. `docs/versions.md` lists every difference. If a request must be written differently
for old and new servers, the provider looks up the server's `/version`, once; `must_ask` decides which requests need
that, and `fit` writes them.

A server without `/version`, or with something other than a version of vLLM there, is treated as the newest.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from vllmchat.errors import InvalidRequestError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

Version: TypeAlias = tuple[int, int, int]
"""Major, minor and patch number."""

NEWEST: Final[Version] = (9999, 0, 0)
"""The version assumed if a server's version is not known."""

TESTED: Final[Version] = (0, 33, 0)
"""The newest version that this library is tested with."""

_OLDEST: Final[Version] = (0, 8, 0)
"""Older versions are not supported. Servers that report an older one were built without tags: `0.1.dev1+g...`."""

STRUCTURED_OUTPUTS: Final[Version] = (0, 11, 0)
"""The first version with `structured_outputs`; earlier ones have `guided_json` and the like."""

COMPLETION_SCHEMAS: Final[Version] = (0, 11, 1)
"""The first version whose `/v1/completions` supports more than `json_object` in `response_format`."""

RESPONSE_CONSTRAINTS: Final[Version] = (0, 17, 0)
"""The first version whose `/v1/responses` has `structured_outputs`; earlier ones have only the schema in `text`."""

RESPONSE_OBJECTS: Final[Version] = (0, 32, 0)
"""A version whose `/v1/responses` supports the format `json_object`; some earlier ones ignore it, and all support a
schema."""

PACKING: Final[Version] = (0, 11, 1)
"""The first version with `embed_dtype` and `endianness`; earlier ones ignore them."""

ACTIVATION: Final[Version] = (0, 11, 1)
"""The first version with `use_activation`, but not for embeddings."""

NORMALIZE: Final[Version] = (0, 10, 1)
"""The first version with `normalize` for embeddings, which 0.26 rejects."""

EMBEDDING_ACTIVATION: Final[Version] = (0, 16, 0)
"""The first version with `use_activation` for embeddings."""

EFFORT_IN_TEMPLATE: Final[Version] = (0, 14, 0)
"""The first version whose chats pass `reasoning_effort` to the template; earlier ones only for OpenAI's models."""

EFFORT_THINKS: Final[Version] = (0, 22, 0)
"""The first version whose chats also pass the `enable_thinking` that the effort implies."""

BEAM_TOKENS: Final[Version] = (0, 33, 0)
"""The first version whose beam search obeys `allowed_token_ids`; earlier ones ignore it there."""

CHATS: Final = "/chat/completions"
COMPLETIONS: Final = "/completions"
RESPONSES: Final = "/responses"
EMBEDDINGS: Final = "/embeddings"


def read_version(text: str) -> Version:
    """Parses the version that a server reports.

    Args:
        text: Such as `0.11.0`, `0.10.2rc1.dev27+g1a2b3c4` or `dev`. A release candidate counts as the release.
    """
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", text)
    if found is None:
        return NEWEST
    version = (int(found[1]), int(found[2]), int(found[3] or 0))
    return version if version >= _OLDEST else NEWEST


def must_ask(fields: Mapping[str, object], route: str = CHATS) -> bool:
    """Whether a request is written differently for some versions, or rejected for them.

    Args:
        fields: The checked fields of its body.
        route: Its route, below `/v1` if the route is there.
    """
    try:
        return fit(fields, _OLDEST, route) != fields
    except InvalidRequestError:
        return True


def fit(fields: Mapping[str, object], version: Version, route: str = CHATS) -> dict[str, object]:
    """Returns the fields for a given server version.

    Args:
        fields: The checked fields of the body. They are not modified.
        version: The server's version.
        route: See `must_ask`.

    Raises:
        InvalidRequestError: The server is too old for something and would silently ignore it.
    """
    fitted = dict(fields)
    if route == RESPONSES:
        _fit_response(fitted, version)
        return fitted
    if version < BEAM_TOKENS and fields.get("use_beam_search") is True and fields.get("allowed_token_ids"):
        problem = needs("allowed_token_ids", BEAM_TOKENS, version)
        raise InvalidRequestError([replace(problem, rule=f"with use_beam_search=True {problem.rule}")])
    if route == COMPLETIONS:
        _fit_completion(fitted, version)
    elif "encoding_format" in fitted or "use_activation" in fitted:
        _fit_pooling(fitted, version, route)
    if version < STRUCTURED_OUTPUTS and "structured_outputs" in fitted:
        constraint = cast("Mapping[str, object]", fitted.pop("structured_outputs"))
        fitted.update(_guided(constraint, version))
    return fitted


def _fit_completion(fields: dict[str, object], version: Version) -> None:
    response_format = cast("Mapping[str, object]", fields.get("response_format") or {})
    if version >= COMPLETION_SCHEMAS:
        return
    if response_format.get("type") == "structural_tag":
        raise InvalidRequestError([needs("response_format", COMPLETION_SCHEMAS, version)])
    if response_format.get("type") == "json_schema":
        schema = cast("Mapping[str, object]", response_format["json_schema"]).get("schema")
        if schema is not None:
            del fields["response_format"]
            fields.setdefault("structured_outputs", {"json": schema})


def _fit_response(fields: dict[str, object], version: Version) -> None:
    text = cast("Mapping[str, object]", fields.get("text") or {})
    if version < RESPONSE_CONSTRAINTS and "structured_outputs" in fields:
        schema = _only_schema(cast("Mapping[str, object]", fields.pop("structured_outputs")), version)
    elif version < RESPONSE_OBJECTS and text.get("format") == {"type": "json_object"}:
        schema = _ANY_OBJECT
    else:
        return
    fields["text"] = {**text, "format": {"type": "json_schema", "name": "reply", "schema": schema}}


_ANY_OBJECT: Final = {"type": "object"}


def _only_schema(constraint: Mapping[str, object], version: Version) -> object:
    """The JSON schema of a constraint that has nothing else."""
    parts = {name: value for name, value in constraint.items() if value is not None and value is not False}
    schema = parts.pop("json", None)
    if parts.pop("json_object", None):
        schema = _ANY_OBJECT
    problems = [needs(f"structured_outputs.{name}", RESPONSE_CONSTRAINTS, version) for name in parts]
    if isinstance(schema, str):
        schema = _read_object(schema)
        if schema is None:
            rule = "must be a JSON object as a string."
            problems.append(Problem("structured_outputs.json", "", rule))
    if problems:
        raise InvalidRequestError(problems)
    return schema


def _read_object(text: str) -> dict[str, object] | None:
    import json  # rarely needed

    try:
        value: object = json.loads(text)
    except ValueError:
        return None
    return cast("dict[str, object]", value) if isinstance(value, dict) else None


def _fit_pooling(fields: dict[str, object], version: Version, route: str) -> None:
    problems: list[Problem] = []
    if version < PACKING and fields.get("encoding_format") == "base64":
        # Ignored, these would make the numbers be read as a different type.
        plain = {"embed_dtype": (None, "float32"), "endianness": (None, "little", "native")}
        problems += [
            needs(name, PACKING, version) for name, same in plain.items() if fields.get(name) not in same
        ]
    if "use_activation" in fields:
        if route != EMBEDDINGS and version < ACTIVATION:
            problems.append(needs("use_activation", ACTIVATION, version))
        elif route == EMBEDDINGS and version < NORMALIZE:
            problems.append(needs("use_activation", NORMALIZE, version))
        elif route == EMBEDDINGS and version < EMBEDDING_ACTIVATION:
            fields["normalize"] = fields.pop("use_activation")
    if problems:
        raise InvalidRequestError(problems)


def needs(name: str, since: Version, version: Version) -> Problem:
    """The problem of a parameter that the server would ignore."""
    least = ".".join(map(str, since)).removesuffix(".0")
    return Problem(name, "", f"needs vLLM {least} or newer; this server is {'.'.join(map(str, version))}.")


_GUIDED: Final = {
    "json": "guided_json",
    "regex": "guided_regex",
    "choice": "guided_choice",
    "grammar": "guided_grammar",
    "whitespace_pattern": "guided_whitespace_pattern",
}


def _guided(constraint: Mapping[str, object], version: Version) -> dict[str, object]:
    """A constraint in the form of servers before 0.11."""
    fields: dict[str, object] = {}
    problems: list[Problem] = []
    for name, value in constraint.items():
        if value is None or value is False:
            continue
        if name == "json_object":
            fields["response_format"] = {"type": "json_object"}
        elif name in _GUIDED:
            fields[_GUIDED[name]] = value
        else:
            problems.append(needs(f"structured_outputs.{name}", STRUCTURED_OUTPUTS, version))
    if problems:
        raise InvalidRequestError(problems)
    return fields
