"""What a reply must look like."""

# No `from __future__ import annotations` here: the annotations are read at run time.

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Required, TypeAlias

from typing_extensions import TypedDict, TypeForm

from vllmchat.checking.rules import Default, Length, NotBlank, Without

__all__ = [
    "JSONObjectFormat",
    "JSONSchema",
    "JSONSchemaFormat",
    "LegacyStructuralTagFormat",
    "ResponseFormat",
    "StructuralTagFormat",
    "StructuralTagPassage",
    "StructuredOutputs",
    "TextFormat",
]


class StructuredOutputs(TypedDict, total=False, closed=True):
    """A constraint on the reply, enforced while it is generated. Set exactly one of the first six keys.

    The backend that enforces it (xgrammar, guidance, outlines, lm-format-enforcer) is chosen when the server
    starts.
    """

    json: Annotated[str | Mapping[str, object] | TypeForm[Any] | None, NotBlank()]
    """A JSON schema, as a mapping or a JSON string; or a type that has one, such as a pydantic model.

    Range: not blank.
    """
    regex: Annotated[str | None, Without("\0")]
    """A regular expression that the whole reply must match.

    Range: without NUL.
    """
    choice: Annotated[Sequence[str] | None, Length(1)]
    """The allowed replies.

    Range: not empty.
    """
    grammar: Annotated[str | None, NotBlank()]
    """A context-free grammar, in EBNF with `::=` or in Lark's notation.

    Range: not blank.
    """
    json_object: Literal[True] | None
    """Any JSON object."""
    structural_tag: Annotated[str | None, NotBlank()]
    """A structural tag: free text with constrained passages, as the JSON string that xgrammar reads.

    Range: not blank.
    """
    disable_any_whitespace: Annotated[bool, Default("False")]
    """Generate JSON without optional white space.

    Default: False.
    """
    disable_additional_properties: Annotated[bool, Default("False")]
    """Allow only the properties that the JSON schema names.

    Default: False.
    """
    whitespace_pattern: str | None
    """A regular expression for the white space inside JSON."""


class TextFormat(TypedDict, closed=True):
    """Free text: no constraint."""

    type: Literal["text"]
    """Always `"text"`."""


class JSONObjectFormat(TypedDict, closed=True):
    """Any JSON object."""

    type: Literal["json_object"]
    """Always `"json_object"`."""


class JSONSchema(TypedDict, total=False, closed=True):
    """A named JSON schema."""

    name: Required[Annotated[str, Length(1)]]
    """A name for the schema. OpenAI's own server allows at most 64 letters, digits, `_` and `-`.

    Range: not empty.
    """
    description: str | None
    """What the format is for."""
    schema: Mapping[str, object] | None
    """The schema, which vLLM requires. For a pydantic model, `Model.model_json_schema()`."""
    strict: bool | None
    """OpenAI's strict mode. vLLM always enforces the schema, regardless of this."""


class JSONSchemaFormat(TypedDict, closed=True):
    """JSON that matches a schema."""

    type: Literal["json_schema"]
    """Always `"json_schema"`."""
    json_schema: JSONSchema
    """The schema and its name."""


class StructuralTagFormat(TypedDict, closed=True):
    """Free text with constrained passages, in xgrammar's notation. vLLM 0.11.1 or newer."""

    type: Literal["structural_tag"]
    """Always `"structural_tag"`."""
    format: Mapping[str, object]
    """The structural tag's format, as xgrammar defines it."""


class StructuralTagPassage(TypedDict, total=False, closed=True):
    """One constrained passage of a `LegacyStructuralTagFormat`."""

    begin: Required[str]
    """The text that opens the passage."""
    schema: Mapping[str, object] | None
    """The JSON schema of the content."""
    end: Required[str]
    """The text that closes the passage."""


class LegacyStructuralTagFormat(TypedDict, closed=True):
    """Free text with constrained passages, in vLLM's older notation."""

    type: Literal["structural_tag"]
    """Always `"structural_tag"`."""
    structures: Sequence[StructuralTagPassage]
    """The passages."""
    triggers: Sequence[str]
    """The texts that must be followed by a passage."""


ResponseFormat: TypeAlias = (
    TextFormat | JSONObjectFormat | JSONSchemaFormat | StructuralTagFormat | LegacyStructuralTagFormat
)
