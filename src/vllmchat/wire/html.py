"""What notebooks show of replies and results: HTML in which every text is escaped.

Texts of models are not rendered as Markdown: notebooks run the scripts of what they trust, and they trust what a cell
returned.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MOST_ROWS = 60


def text_block(text: str) -> str:
    """A text, with its line breaks."""
    return f'<div style="white-space: pre-wrap">{escape(text)}</div>'


def folded(title: str, text: str) -> str:
    """A text that is shown on a click."""
    return f"<details><summary>{escape(title)}</summary>{text_block(text)}</details>"


def code_line(text: str) -> str:
    """A line of code."""
    return f"<div><code>{escape(text)}</code></div>"


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
