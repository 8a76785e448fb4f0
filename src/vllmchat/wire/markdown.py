"""What notebooks show of replies: their text as Markdown, in which HTML and scripts of the model do not act.

Renderers differ in what they take for code, so nothing depends on their decision: a fenced block is written again at
the margin, between blank lines, where every renderer ends it at the same line; inline code with a `<`, and such a block
in a quote, where Jupyter may take the lines around a fence for a formula, becomes a `<code>` element with every mark
escaped; everywhere else, `<` and `&` are escaped.
"""

from __future__ import annotations

import re
from string import punctuation
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

# Compiled on first use, by `re`: compiling them would be a part of the time of an import.
_FENCE: Final = (
    r"(?P<before>[ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)*)"
    r"(?P<fence>`{3,}(?=[^`\n]*$)|~{3,})[ \t]*(?P<language>[\w+#.-]*)"
)
_QUOTE: Final = r" {0,3}> ?"
_MOST_QUOTES: Final = 8
_SPECIAL: Final = (
    r"(?s)(?P<ticks>(?<!`)`{1,8}(?!`))(?P<code>[^\n]*?[^`\n])(?P=ticks)(?!`)"
    r"|\$\$(?P<display>(?:(?!\n[ \t]*\n|\$\$).){1,4000})\$\$"
    r"|(?<!\\)\\\[(?P<brackets>(?:(?!\n[ \t]*\n|\\\[).){1,4000}?)(?<!\\)\\\]"
    r"|(?<![\\$])\$(?P<inline>(?![\s$])[^$\n]*?(?<=[^\s\\]))\$(?![\d$])"
    r"|(?<!\\)\\\((?P<parentheses>(?:(?!\n[ \t]*\n|\\\().){1,4000}?)(?<!\\)\\\)"
)
_ENTITY: Final = r"&(?=[#\w])"
_TO_ESCAPE: Final = r"\\[^<&]|\\?(?:<|&(?=[#\w]))"
_SCRIPT: Final = r"(?i)\b(javascript|vbscript)(\\?:)(?![ \t\n]|$)"
_MARKS: Final = str.maketrans({mark: f"&#{ord(mark)};" for mark in punctuation})


class Shown(Protocol):
    """What a notebook shows as Markdown."""

    def _repr_markdown_(self) -> str | None: ...


class Called(Protocol):
    """A tool call."""

    @property
    def name(self) -> str:
        """The function's name."""
        ...

    @property
    def arguments(self) -> str:
        """The arguments, as JSON text."""
        ...


def shown(value: Shown) -> str | None:
    """Returns what a notebook shows of a value."""
    return value._repr_markdown_()  # pyright: ignore[reportPrivateUsage] - the name is that of notebooks


def joined(blocks: Iterable[str | None]) -> str | None:
    """Joins blocks of Markdown; None, so that a notebook shows the `repr`, if all are empty."""
    return "\n\n".join(block for block in blocks if block) or None


def reply(text: str | None, reasoning: str | None = None, calls: Iterable[Called] = ()) -> str | None:
    """Returns a reply: the reasoning as a block quote, the text, and the tool calls as code."""
    lines = [f"{call.name}({call.arguments})" for call in calls]
    return joined(
        [
            _quoted(f"*Reasoning*\n\n{safe(reasoning, quoted=True)}")
            if reasoning and reasoning.strip()
            else None,
            safe(text or ""),
            code("\n".join(lines)) if lines else None,
        ]
    )


def code(text: str, language: str = "") -> str:
    """Returns a fenced block of code."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def safe(text: str, *, quoted: bool = False) -> str:
    """Returns a model's text as Markdown that cannot run anything. Blocks that it left open are closed.

    Args:
        text: The text.
        quoted: Whether the result will be in a block quote.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return _safe(lines, _MOST_QUOTES - quoted)


def _safe(lines: list[str], depth: int) -> str:
    blocks: list[str] = []
    plain: list[str] = []

    def add(block: str) -> None:
        blocks.extend((_inline("\n".join(plain)).strip("\n"), block))
        plain.clear()

    place = 0
    while place < len(lines):
        line = lines[place]
        place += 1
        if (fence := re.match(_FENCE, line)) is not None:
            before = fence["before"]
            if before.strip():
                plain.append(before.rstrip())
            end = re.compile(rf"[ \t]*{fence['fence'][0]}{{{len(fence['fence'])},}}[ \t]*")
            inside: list[str] = []
            while place < len(lines) and end.fullmatch(lines[place]) is None:
                inside.append(_dedented(lines[place], len(before)))
                place += 1
            place += 1
            block = "\n".join(inside)
            if depth < _MOST_QUOTES and _is_risky(block):
                add(f"<pre><code>{block.translate(_MARKS)}\n</code></pre>")
            else:
                add(code(block, fence["language"]))
        elif depth and re.match(_QUOTE, line):
            quoted = [line]
            while place < len(lines) and re.match(_QUOTE, lines[place]):
                quoted.append(lines[place])
                place += 1
            add(_quoted(_safe([re.sub(_QUOTE, "", each, count=1) for each in quoted], depth - 1)))
        else:
            plain.append(line)
    add("")
    return joined(blocks) or ""


def _dedented(line: str, columns: int) -> str:
    indent = len(line) - len(line.lstrip(" \t"))
    return line[min(indent, columns) :]


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" if line else ">" for line in text.split("\n"))


def _inline(text: str) -> str:
    pieces: list[str] = []
    end = 0
    for found in re.finditer(_SPECIAL, text):
        pieces += [_plain(text[end : found.start()]), _special(found)]
        end = found.end()
    return re.sub(_SCRIPT, r"\1 \2", "".join([*pieces, _plain(text[end:])]))


def _plain(text: str) -> str:
    return re.sub(_TO_ESCAPE, _escaped, text)


def _escaped(found: re.Match[str]) -> str:
    mark = found[0][-1]
    return {"<": "&lt;", "&": "&amp;"}.get(mark, found[0])


def _is_risky(code: str) -> bool:
    """Whether code must be escaped where a renderer may not take it for code."""
    return re.search("[<&]", code) is not None or re.search(_SCRIPT, code) is not None


def _special(found: re.Match[str]) -> str:
    if (inside := found["code"]) is not None:
        if not _is_risky(inside):
            return found[0]
        return f"<code>{inside.strip(' ').translate(_MARKS)}</code>"
    display = found["display"] or found["brackets"]
    # `&` separates columns, and renderers of formulas do not read entities.
    inside = (display or found["inline"] or found["parentheses"]).replace("<", r"\lt ")
    inside = re.sub(_ENTITY, "& ", inside)
    return f"$${inside}$$" if display else f"${inside.strip() or ' '}$"
