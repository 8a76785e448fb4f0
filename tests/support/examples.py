"""The examples in the documentation: found, run, and compared with their promised output.

An example is a fenced block, or the file that the block includes (`--8<-- "examples/x.py"`). Its output is promised in
one of two ways: by comments `#> ...` inside it, or by a block `text` right after it, with nothing in between. An `…`
there stands for anything, and a long line may be wrapped. A comment right before the fence marks a special example:

- `<!-- example: type-error -->`: wrong on purpose, and a type checker reports it. If it raises, the last lines of the
  traceback are part of its output.
- `<!-- example: pooling -->`: runs against a server with an embedding model.
- `<!-- example: ray -->`: runs on a local Ray cluster.
- `<!-- example: adapters -->`: runs against a server with LoRA adapters, `adapters/legal` and `adapters/medical`.
- `<!-- example: notebook -->`: a cell of `examples/notebook.ipynb`, which runs as a whole.
- `<!-- example: stand-in -->`: runs against a stand-in, since it needs more than the tiny model can do.
- `<!-- example: offline -->`: runs without a server; its tests may use fixtures.
- `<!-- example: not-run (REASON) -->`: it is only compiled and type-checked.
- `<!-- example: not-checked (REASON) -->`: it is only compiled.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[2]

DIRECTIVES: Final = frozenset(
    {"type-error", "pooling", "ray", "adapters", "notebook", "stand-in", "offline", "not-run", "not-checked"}
)

_FENCE: Final = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,}|~{3,}) *(?P<language>[\w+-]*).*$")
_INCLUDED: Final = re.compile(r'^ *--8<-- "(?P<path>examples/[\w/.-]+)"$')
_DIRECTIVE: Final = re.compile(r"^ *<!-- example: (?P<name>[\w-]+)(?: \((?P<reason>.+)\))? -->$")


@dataclass(frozen=True, slots=True)
class Example:
    """One fenced block.

    Attributes:
        path: Its file.
        line: Number of its first line of code, from 1.
        language: The language of the fence, such as `python`.
        code: The text inside.
        directive: Its directive, or empty.
        follows: Whether it comes right after another block.
        output: Its promised output.
    """

    path: Path
    line: int
    language: str
    code: str
    directive: str = ""
    follows: bool = False
    output: list[str] = field(default_factory=list[str])

    @property
    def name(self) -> str:
        """Its place, such as `docs/streaming.md:12`."""
        return f"{self.path.relative_to(ROOT).as_posix()}:{self.line}"

    @property
    def module(self) -> str:
        """The name of the module it is written to."""
        return re.sub(r"\W", "_", self.name.removesuffix(".md"))

    def at_its_line(self) -> str:
        """The code, padded so that an error names the line in the documentation."""
        return "\n" * (self.line - 1) + self.code


def pages() -> list[Path]:
    """All files with examples."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def examples(*languages: str) -> list[Example]:
    """All fenced blocks in certain languages."""
    return [example for page in pages() for example in read(page) if example.language in languages]


def read(path: Path) -> list[Example]:
    """The fenced blocks of a file.

    Raises:
        ValueError: A fence is not closed, or a directive is unknown or has no block.
    """
    found: list[Example] = []
    previous = ""
    for block in _blocks(path, path.read_text(encoding="utf-8").splitlines()):
        if block.language == "text" and block.follows and previous == "python":
            found[-1].output.extend(block.code.splitlines())
        else:
            if block.language == "python":
                block.output.extend(re.findall(r"^ *#> ?(.*)$", block.code, re.MULTILINE))
            found.append(block)
        previous = block.language
    return found


def _blocks(path: Path, lines: list[str]) -> Iterator[Example]:
    directive = ""
    follows = False
    numbered = enumerate(lines, 1)
    for number, line in numbered:
        if (says := _DIRECTIVE.match(line)) is not None:
            directive = says["name"]
            if directive not in DIRECTIVES or (directive.startswith("not-") and not says["reason"]):
                raise ValueError(f"{path}:{number}: what is {line.strip()!r}?")
            continue
        fence = _FENCE.match(line)
        if fence is None:
            if directive and line.strip():
                raise ValueError(f"{path}:{number}: the directive {directive!r} has no block")
            follows = follows and not line.strip()
            continue
        code: list[str] = []
        for _, inside in numbered:
            if inside.strip() == fence["ticks"]:
                break
            code.append(inside.removeprefix(fence["indent"]))
        else:
            raise ValueError(f"{path}:{number}: this fence is not closed")
        text = "".join(f"{each}\n" for each in code)
        if len(code) == 1 and (included := _INCLUDED.match(code[0])) is not None:
            file = ROOT / included["path"]
            yield Example(file, 1, fence["language"], file.read_text(encoding="utf-8"), directive, follows)
        else:
            yield Example(path, number + 1, fence["language"], text, directive, follows)
        directive, follows = "", True


def as_promised(promised: list[str], printed: str) -> bool:
    """Whether the output is the promised one, except for blank lines.

    A promised line may go on in the next one where the printed one has a space.
    """
    pieces = _lines("\n".join(promised)).split("…")
    pattern = ".*".join(re.escape(piece).replace("\\\n", "[ \\n]") for piece in pieces)
    return re.fullmatch(pattern, _lines(printed), re.DOTALL) is not None


def _lines(text: str) -> str:
    return "\n".join(" ".join(line.split()) for line in text.splitlines() if line.strip())
