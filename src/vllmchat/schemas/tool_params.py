"""Tools and the choice among them, as they are sent."""

# No `from __future__ import annotations` here: the annotations are read at run time.

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Required

from typing_extensions import TypedDict

from vllmchat.checking.rules import Length, Since

__all__ = [
    "AllowedTools",
    "AllowedToolsChoice",
    "CustomDefinition",
    "CustomName",
    "CustomTool",
    "FunctionCallName",
    "FunctionDefinition",
    "FunctionName",
    "FunctionTool",
    "GrammarInputFormat",
    "InputGrammar",
    "NamedCustomToolChoice",
    "NamedToolChoice",
    "TextInputFormat",
]


class FunctionDefinition(TypedDict, total=False, closed=True):
    """A function the model may call."""

    name: Required[Annotated[str, Length(1)]]
    """Its name, as it appears in the tool call.

    Range: not empty.
    """
    description: str | None
    """What it does and when to call it. The model reads this."""
    parameters: Mapping[str, object] | None
    """JSON schema of its arguments: an object schema. Without it, the function takes no arguments."""
    strict: Annotated[bool | None, Since("0.24")]
    """Constrain the arguments to the schema.

    Since: vLLM 0.24.
    """
    defer_loading: Annotated[bool | None, Since("0.21")]
    """Leave it out of the prompt until a tool search finds it, for models that support tool search.

    Since: vLLM 0.21.
    """


class FunctionTool(TypedDict, total=False, closed=True):
    """A tool that is a function."""

    type: Required[Literal["function"]]
    """Always `"function"`."""
    function: Required[FunctionDefinition]
    """The function."""
    defer_loading: Annotated[bool | None, Since("0.21")]
    """Leave it out of the prompt until a tool search finds it, for models that support tool search.

    Since: vLLM 0.21.
    """


class FunctionName(TypedDict, closed=True):
    """The name of one of the `tools` that are functions."""

    name: Annotated[str, Length(1)]
    """Its name.

    Range: not empty.
    """


class NamedToolChoice(TypedDict, closed=True):
    """Requires a call of this function."""

    type: Literal["function"]
    """Always `"function"`."""
    function: FunctionName
    """Which one."""


class TextInputFormat(TypedDict, closed=True):
    """The input of a custom tool is free text."""

    type: Literal["text"]
    """Always `"text"`."""


class InputGrammar(TypedDict, closed=True):
    """The grammar of a custom tool's input."""

    definition: str
    """The grammar itself."""
    syntax: Literal["lark", "regex"]
    """Its notation."""


class GrammarInputFormat(TypedDict, closed=True):
    """The input of a custom tool follows a grammar."""

    type: Literal["grammar"]
    """Always `"grammar"`."""
    grammar: InputGrammar
    """The grammar."""


class CustomDefinition(TypedDict, total=False, closed=True):
    """A tool that accepts text instead of JSON arguments."""

    name: Required[Annotated[str, Length(1)]]
    """Its name, as it appears in the tool call.

    Range: not empty.
    """
    description: str | None
    """What it does and when to call it."""
    format: TextInputFormat | GrammarInputFormat | None
    """The format of its input."""


class CustomTool(TypedDict, closed=True):
    """A custom tool, for servers that support them. vLLM does not."""

    type: Literal["custom"]
    """Always `"custom"`."""
    custom: CustomDefinition
    """The tool."""


class CustomName(TypedDict, closed=True):
    """The name of one of the `tools` that are custom tools."""

    name: Annotated[str, Length(1)]
    """Its name.

    Range: not empty.
    """


class NamedCustomToolChoice(TypedDict, closed=True):
    """Requires a call of this custom tool."""

    type: Literal["custom"]
    """Always `"custom"`."""
    custom: CustomName
    """Which one."""


class AllowedTools(TypedDict, closed=True):
    """A subset of the `tools`."""

    mode: Literal["auto", "required"]
    """Whether one of them must be called."""
    tools: Sequence[Mapping[str, object]]
    """The allowed tools, such as `{"type": "function", "function": {"name": "get_weather"}}`."""


class AllowedToolsChoice(TypedDict, closed=True):
    """Allows only some of the `tools` to be called."""

    type: Literal["allowed_tools"]
    """Always `"allowed_tools"`."""
    allowed_tools: AllowedTools
    """Which ones."""


class FunctionCallName(TypedDict, closed=True):
    """Requires a call of this function (old form)."""

    name: Annotated[str, Length(1)]
    """Its name.

    Range: not empty.
    """
