"""What differs between vLLM 0.8 and 0.33 on the wire, and how this library handles it.

Most requests are written so that every version understands them, and most responses are read in any form: then the
server's version does not matter. `DIFFERENCES` is the complete list; `docs/versions.md` shows it. If a request must be
written differently for old and new servers, the provider looks up the server's `/version`, once; `must_ask` decides
which requests need that, and `fit` writes them.

A server without `/version`, or with something other than a version of vLLM there, is treated as the newest.
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
"""The version assumed if a server's version is not known."""

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


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference between versions.

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
        "constraints of `complete` on a server with a reasoning parser",
        "apply after the end of the reasoning; before, never",
        "nothing",
    ),
    Difference(
        "0.9",
        "`tools` of `tokenize` and `count_tokens`",
        "new; before, silently ignored",
        "asks for the version; too old a server is an `InvalidRequestError`",
    ),
    Difference(
        "0.9",
        "`top_k=0`",
        "0 switches it off; before, only -1 does, and 0 is rejected",
        "sends -1, which all versions understand, for speech too",
    ),
    Difference(
        "0.9",
        "tool calls in streams",
        "`id` and `type` arrive once, not in every chunk",
        "reads both forms",
    ),
    Difference(
        "0.10.1",
        "error bodies",
        "nested under `error`; before, flat",
        "reads all of them, and empty bodies",
    ),
    Difference(
        "0.10.1, 0.16, 0.26",
        "`use_activation` of `embed`",
        "0.10.1 adds it as `normalize`, 0.16 under this name, 0.26 drops the old name",
        "asks for the version and sends the name that the server knows; too old a server is an "
        "`InvalidRequestError`",
    ),
    Difference(
        "0.10.2",
        "`truncate_prompt_tokens=-1` of chats and completions",
        "-1 is allowed; before, rejected",
        "sends it; an old server returns a `BadRequestError`",
    ),
    Difference(
        "0.11",
        "`top_logprobs=-1` of chats, `prompt_logprobs=-1`",
        "-1 is allowed; before, rejected",
        "sends it; an old server returns a `BadRequestError`",
    ),
    Difference(
        "0.11",
        "`structured_outputs`",
        "new; before, `guided_json`, `guided_regex`, `guided_choice`, `guided_grammar`",
        "asks for the version and sends the form that the server knows; too old a server is an "
        "`InvalidRequestError`",
    ),
    Difference(
        "0.11.1",
        "`response_format` with a JSON schema on `/v1/completions`",
        "works; before, silently ignored",
        "asks for the version and sends a constraint that the server knows",
    ),
    Difference(
        "0.11.1",
        "`response_format` with a structural tag on `/v1/completions`",
        "works; before, silently ignored",
        "asks for the version; too old a server is an `InvalidRequestError`",
    ),
    Difference(
        "0.11.1",
        "the syntax of structural tags in chats",
        "`format`, in addition to the older `structures` and `triggers`",
        "nothing: sends the given syntax",
    ),
    Difference(
        "0.11.1",
        "`embed_dtype`, `endianness`",
        "new; before, silently ignored",
        "asks for binary numbers, which old servers reject, or with `base64` for the version; too old a server "
        "is an `InvalidRequestError`",
    ),
    Difference(
        "0.11.1",
        "`use_activation` of `pool`, `classify`, `score` and `rerank`",
        "new; before, silently ignored",
        "asks for the version; too old a server is an `InvalidRequestError`",
    ),
    Difference(
        "0.11.1",
        "`reasoning`",
        "the new name of `reasoning_content`, which 0.16 drops; both at once in between",
        "reads either as `.reasoning`, never both",
    ),
    Difference(
        "0.11.1",
        "`reasoning` in the history",
        "passed to the chat template; before, ignored. (`reasoning_content` there is ignored by 0.16 to 0.21)",
        "sends `reasoning`; nothing for older servers",
    ),
    Difference(
        "0.11.1",
        "tools, reasoning items in the input, and `status` of `respond`",
        "as documented; before, tools and reasoning items are rejected (except for OpenAI's models), and a response "
        "that was truncated is `completed`",
        "nothing: an old server returns a `BadRequestError`",
    ),
    Difference(
        "0.12",
        "`guided_json` and the like, `best_of`, `structural_tag` next to the other parameters",
        "removed and silently ignored",
        "rejects these names and says what to write",
    ),
    Difference(
        "0.12",
        "`parallel_tool_calls`",
        "False is obeyed; before, ignored",
        "sends it; read all of `tool_calls`",
    ),
    Difference(
        "0.14",
        "the code of an error inside a stream",
        "says what went wrong; before, always 400",
        "nothing: before, even a dead engine is a `BadRequestError` there",
    ),
    Difference(
        "0.16",
        "the modes of `pause`",
        "`mode`; before, `wait_for_inflight_requests`, and running requests are aborted without it",
        '`"wait"` is sent in both forms; nothing for `"keep"`, with which old servers abort',
    ),
    Difference(
        "0.17",
        "`structured_outputs` of `respond`",
        "new; before, silently ignored",
        "asks for the version and writes a JSON schema into `text`, which all versions know; too old a server "
        "is an `InvalidRequestError`",
    ),
    Difference(
        "0.17",
        "`logits_processors`",
        "removed and silently ignored",
        "rejects the name; `extra_body` reaches old servers",
    ),
    Difference(
        "0.18",
        "usage in streams whose `stream_options` do not mention it",
        "none; before, included. (Without `stream_options`, none in any version)",
        "always sends whether it is wanted",
    ),
    Difference(
        "0.18",
        "what `render` and `render_completion` return",
        "the tokens and sampling parameters; before, the engine's input, without sampling parameters",
        "reads both",
    ),
    Difference(
        "0.18, 0.21",
        "`reasoning_effort`",
        "`none`, then the other new values; before, rejected",
        "sends it; an old server returns a `BadRequestError`",
    ),
    Difference(
        "0.20",
        "streams of `/inference/v1/generate`",
        "chunks; before, `stream` is ignored",
        "yields a whole response as one chunk",
    ),
    Difference(
        "0.20",
        "`tools=[]`",
        "rejected; before, treated as no tools",
        "rejects it for all versions",
    ),
    Difference(
        "0.22",
        "what `reasoning_effort` passes to the chat template",
        "also the `enable_thinking` that it implies; from 0.14, the effort alone; before, nothing",
        "sends it; `count_tokens` asks for the version and counts what the server's chats do",
    ),
    Difference(
        "0.24",
        "`temperature` above 2",
        "rejected; before, unlimited",
        "rejects it; `extra_body` reaches old servers",
    ),
    Difference(
        "0.24",
        "`include_reasoning=False` in streams",
        "works; before, only without streaming",
        "sends it; an old server's stream has the reasoning anyway",
    ),
    Difference(
        "0.26, 0.32",
        "the responses of `/reset_prefix_cache`, then `/sleep` and `/wake_up`",
        "JSON; before, empty",
        "reads either; the result is None if the response is empty",
    ),
    Difference(
        "0.28",
        "more than four `stop` texts",
        "rejected; before, any number",
        "sends them; a new server returns a `BadRequestError`",
    ),
    Difference(
        "0.30",
        "`logprobs=-1` of `complete`",
        "-1 is allowed; before, rejected",
        "sends it; an old server returns a `BadRequestError`",
    ),
    Difference(
        "0.31",
        "`presence_penalty` and `frequency_penalty` if not given",
        "the model's generation config; before, 0",
        "nothing: sends no defaults",
    ),
    Difference(
        "0.32",
        '`text={"format": {"type": "json_object"}}` of `respond`',
        "works; some earlier ones silently ignore it",
        "asks for the version and writes a schema for any object, which all versions know",
    ),
    Difference(
        "0.32",
        "`max_tokens` beyond the context",
        "truncated; before, rejected",
        "sends it; an old server returns a `ContextWindowExceededError`",
    ),
    Difference(
        "0.33",
        "the finish reason of a tool call that `max_tokens` truncated",
        "`length`; before, often `tool_calls`, with JSON that the server has completed",
        "looks at the call and the usage: `ToolCall.complete`",
    ),
)
"""Every difference that this library handles or a caller could notice, oldest first."""


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
    if route == COMPLETIONS:
        _fit_completion(fitted, version)
    elif "encoding_format" in fitted or "use_activation" in fitted:
        _fit_pooling(fitted, version, route)
    if version < STRUCTURED_OUTPUTS and "structured_outputs" in fitted:
        wanted = cast("Mapping[str, object]", fitted.pop("structured_outputs"))
        fitted.update(_guided(wanted, version))
    return fitted


def _fit_completion(fields: dict[str, object], version: Version) -> None:
    wanted = cast("Mapping[str, object]", fields.get("response_format") or {})
    if version >= COMPLETION_SCHEMAS:
        return
    if wanted.get("type") == "structural_tag":
        raise InvalidRequestError([needs("response_format", COMPLETION_SCHEMAS, version)])
    if (schema := _schema_in(fields)) is not None:
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


def _only_schema(wanted: Mapping[str, object], version: Version) -> object:
    """The JSON schema of a constraint that has nothing else."""
    given = {name: value for name, value in wanted.items() if value is not None and value is not False}
    schema = given.pop("json", None)
    if given.pop("json_object", None):
        schema = _ANY_OBJECT
    problems = [needs(f"structured_outputs.{name}", RESPONSE_CONSTRAINTS, version) for name in given]
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
            problems.append(needs(f"structured_outputs.{name}", STRUCTURED_OUTPUTS, version))
    if problems:
        raise InvalidRequestError(problems)
    return fields
