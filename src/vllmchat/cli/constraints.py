"""`--schema` and `--regex`: constraints on the reply, shorter than the parameters for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

if TYPE_CHECKING:
    from collections.abc import Mapping


def constraint_options() -> list[click.Option]:
    """Returns the options that are short for a parameter."""
    return [
        click.Option(
            ["--schema"],
            type=click.Path(),
            metavar="FILE",
            help="A JSON schema that the reply must match: a file, or the schema itself.",
        ),
        click.Option(
            ["--regex"], metavar="REGEX", help="A regular expression that the whole reply must match."
        ),
    ]


def constrained(params: Mapping[str, object], schema: str | None, regex: str | None) -> dict[str, Any]:
    """Returns parameters with the constraints of `--schema` and `--regex`.

    Raises:
        click.UsageError: There is more than one constraint, or the schema cannot be read.
    """
    given = [
        option
        for option, value in (
            ("--schema", schema),
            ("--regex", regex),
            ("--response-format", params.get("response_format")),
            ("--structured-outputs", params.get("structured_outputs")),
        )
        if value is not None
    ]
    if len(given) > 1 and (schema is not None or regex is not None):
        raise click.UsageError(f"{given[0]} and {given[1]} are both constraints: give one of them.")
    if regex is not None:
        return {**params, "structured_outputs": {"regex": regex}}
    if schema is None:
        return dict(params)
    format_: dict[str, object] = {
        "type": "json_schema",
        "json_schema": {"name": "reply", "schema": _schema(schema)},
    }
    return {**params, "response_format": format_}


def _schema(text: str) -> dict[str, object]:
    inline = text.lstrip().startswith("{")
    try:
        value: object = json.loads(text if inline else Path(text).read_text(encoding="utf-8"))
    except OSError as error:
        raise click.UsageError(f"--schema {text}: {error.strerror}") from None
    except ValueError as error:
        raise click.UsageError(f"--schema{'' if inline else f' {text}'}: it is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise click.UsageError(f'--schema {text}: a schema is a JSON object, such as {{"type": "object"}}')
    return cast("dict[str, object]", value)
