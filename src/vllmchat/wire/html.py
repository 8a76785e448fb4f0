"""The tables that notebooks show of results. Every text is escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MOST_ROWS = 60


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table. Of very many rows, only the first are shown."""
    shown: list[str] = []
    left = 0
    for row in rows:
        if len(shown) < _MOST_ROWS:
            shown.append("".join(f"<td>{escape(_cell(each))}</td>" for each in row))
        else:
            left += 1
    head = "".join(f"<th>{escape(each)}</th>" for each in headings)
    body = "".join(f"<tr>{cells}</tr>" for cells in shown)
    more = f"<div>and {left} more</div>" if left else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
