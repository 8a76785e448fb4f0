"""The start of a body or a text, for error messages."""

from __future__ import annotations

_BODY_LIMIT = 2_000
_LIMIT = 200


def start_of(body: bytes) -> str:
    """The start of a body as text: at most 2,000 characters."""
    return body[: _BODY_LIMIT * 4].decode("utf-8", "replace")[:_BODY_LIMIT]


def excerpt(text: str) -> str:
    """The start of a text: at most 200 characters, and an ellipsis if there are more."""
    return text if len(text) <= _LIMIT else f"{text[:_LIMIT]}…"


def beginning(text: str) -> str:
    """Says how a body begins."""
    return f"it starts with: {excerpt(text)}" if text.strip() else "it is empty"
