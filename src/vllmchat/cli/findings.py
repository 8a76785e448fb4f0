"""What an examination of a server finds, one thing at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Status: TypeAlias = Literal["ok", "warning", "problem", "unknown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: What it is.
        status: How it is.
        text: What was found.
        advice: What to change; empty if nothing.
    """

    what: str
    status: Status
    text: str
    advice: str = ""


def split_advice(message: str) -> tuple[str, str]:
    """Splits an error message after its first sentence: what happened, and what to do about it."""
    for end in (". ", "; "):
        text, found, advice = message.partition(end)
        if found:
            return text, advice
    return message, ""
