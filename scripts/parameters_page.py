"""Write the tables of parameters in docs/, and the last paragraph of each parameter's text, from their annotations.

    python scripts/parameters_page.py           write both
    python scripts/parameters_page.py --check   say whether they are as they would be written; exit code 1 if not

A parameter's annotation is the source: its bounds, default and version are read from there. They are written into the
text under the annotation, which editors show, and into the page. The rest of the page, outside the two marks, is
written by hand.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal, get_args, get_origin

from typing_extensions import TypeForm, is_typeddict

import vllmchat.generate.params
import vllmchat.responses.params
import vllmchat.text.params
from vllmchat.chat import params
from vllmchat.checking.rules import (
    Bounds,
    Field,
    Length,
    NotBlank,
    Rule,
    Without,
    enforced,
    fields_of,
    is_python,
    members,
    unwrap,
)
from vllmchat.checking.since import SINCE
from vllmchat.http.timeout import Timeout

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "vllmchat" / "chat" / "params.py"
PAGE = ROOT / "docs" / "parameters.md"
BEGIN = "<!-- Written by scripts/parameters_page.py from here on. -->"
END = "<!-- Written by scripts/parameters_page.py up to here. -->"

COMMON = ("SamplingBase", "TopPBase", "SeveralBase", "ChatParamsBase", "PlainChatParams", "CallBase")
VLLM = ("VLLMSamplingBase", "VLLMDecodingBase", "VLLMPromptingBase", "VLLMRenderingBase", "VLLMChatParams")
TOP = (*COMMON, *VLLM, "CommonChatParams", "ChatParams")


@dataclass(frozen=True)
class Page:
    """The page of an endpoint whose parameters stand partly with those of chats.

    Attributes:
        module: Where they are written.
        page: The page.
        params: What its verb takes, its own parameters in these classes.
    """

    module: ModuleType
    page: Path
    params: tuple[str, ...]

    @property
    def source(self) -> Path:
        """The module's file."""
        return ROOT / "src" / Path(*self.module.__name__.split(".")).with_suffix(".py")


PAGES = (
    Page(vllmchat.text.params, ROOT / "docs" / "completions.md", ("CompletionBase", "VLLMCompletionParams")),
    Page(vllmchat.generate.params, ROOT / "docs" / "tokens-in-out.md", ("GenerateBase", "GenerateParams")),
    Page(vllmchat.responses.params, ROOT / "docs" / "responses.md", ("ResponseParams",)),
)


@dataclass(frozen=True)
class Text:
    """The text under one annotation.

    Attributes:
        name: The key it belongs to.
        group: The comment above its group of keys, or "".
        paragraphs: What it says, without the written paragraph.
        first: Its first line in the file, counted from 0.
        last: The line after its last.
    """

    name: str
    group: str
    paragraphs: tuple[str, ...]
    first: int
    last: int


@dataclass(frozen=True)
class Described:
    """One TypedDict of the module: its own keys and their texts."""

    name: str
    doc: str
    texts: tuple[Text, ...]
    module: ModuleType = params

    def only(self, group: str) -> Described:
        """The keys of one group."""
        return replace(self, texts=tuple(text for text in self.texts if text.group == group))

    @property
    def fields(self) -> dict[str, Field]:
        return fields_of(getattr(self.module, self.name))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 when something is stale"
    )
    check: bool = parser.parse_args().check
    source = SOURCE.read_text(encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    old = {SOURCE: source, PAGE: page}
    wanted = {SOURCE: written_source(source), PAGE: written_page(page, _tables(described(source)))}
    for each in PAGES:
        source = old[each.source] = each.source.read_text(encoding="utf-8")
        page = old[each.page] = each.page.read_text(encoding="utf-8")
        wanted[each.source] = written_source(source, each.module)
        wanted[each.page] = written_page(page, _tables_of(each, described(source, each.module)))
    stale = [path for path in old if wanted[path] != old[path]]
    for path in stale:
        print(f"{path.relative_to(ROOT)} {'is stale' if check else 'written'}")
        if not check:
            path.write_text(wanted[path], encoding="utf-8")
    if check and stale:
        print("write them with: python scripts/parameters_page.py")
    return 1 if check and stale else 0


# The source


def described(source: str, module: ModuleType = params) -> dict[str, Described]:
    """The TypedDicts of the module's source, in their order."""
    lines = source.split("\n")
    found: dict[str, Described] = {}
    for node in ast.parse(source).body:
        if not isinstance(node, ast.ClassDef):
            continue
        texts: list[Text] = []
        group = ""
        above = node.lineno
        for item, after in zip(node.body, [*node.body[1:], None], strict=True):
            if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
                continue
            for line in lines[above : item.lineno - 1]:
                if line.startswith("    # "):
                    group = line.removeprefix("    # ")
            above = item.end_lineno or item.lineno
            doc = _text(after)
            if doc is None or after is None:
                raise SystemExit(f"{node.name}.{item.target.id} has no text under it")
            texts.append(
                Text(item.target.id, group, _by_hand(doc), after.lineno - 1, after.end_lineno or after.lineno)
            )
        found[node.name] = Described(node.name, ast.get_docstring(node) or "", tuple(texts), module)
    return found


def _text(node: ast.stmt | None) -> str | None:
    if (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ):
        return node.value.value
    return None


def _by_hand(doc: str) -> tuple[str, ...]:
    paragraphs = ["\n".join(line.strip() for line in part.split("\n")) for part in doc.strip().split("\n\n")]
    return tuple(
        part for part in paragraphs if not part.startswith(("Range: ", "Default: ", "Needs: ", "Since: "))
    )


def written_source(source: str, module: ModuleType = params) -> str:
    """The module's source with the last paragraph of each text as its annotation says."""
    lines = source.split("\n")
    for one in reversed(described(source, module).values()):
        for text in reversed(one.texts):
            lines[text.first : text.last] = _docstring(text.paragraphs, facts(one.fields[text.name]))
    return "\n".join(lines)


def _docstring(paragraphs: tuple[str, ...], last: str) -> list[str]:
    if not last and len(paragraphs) == 1 and "\n" not in paragraphs[0]:
        return [f'    """{paragraphs[0]}"""']
    whole = "\n\n".join(
        (*paragraphs, textwrap.fill(last, 106, break_on_hyphens=False)) if last else paragraphs
    )
    return [*textwrap.indent(f'"""{whole}\n"""', "    ").split("\n")]


def facts(field: Field) -> str:
    """Bounds, default, need and version of a parameter, as the last paragraph of its text."""
    said = (
        ("Range", allowed(field)),
        ("Default", field.default),
        (
            "Needs",
            field.needs and f"`{field.needs}`" if field.needs and " " not in field.needs else field.needs,
        ),
        ("Since", field.since and f"vLLM {field.since}"),
    )
    return " ".join(f"{label}: {words}." for label, words in said if words)


def allowed(field: Field) -> str:
    """What the rules allow, in words; empty when the type says it all."""
    parts: list[str] = []
    for kind in members(field.type):
        bare, metadata = unwrap(kind)
        rules = (*field.rules, *enforced(metadata))
        if is_python(bare):
            continue
        if get_origin(bare) is not None and get_origin(bare) is not Literal and not is_typeddict(bare):
            parts.extend(_rule(rule, "items") for rule in rules if isinstance(rule, Length))
            for item in members(unwrap(get_args(bare)[-1])[0]):
                each = enforced(unwrap(item)[1]) + enforced(unwrap(get_args(bare)[-1])[1])
                parts.extend(f"each {_rule(rule, 'characters')}" for rule in dict.fromkeys(each))
        else:
            parts.extend(_rule(rule, "characters" if bare is str else "items") for rule in rules)
    return "; ".join(dict.fromkeys(part for part in parts if part))


_SPELT = {"\\": "backslash", "\0": "NUL"}


def _rule(rule: Rule, unit: str) -> str:
    if isinstance(rule, Bounds):
        return re.sub(r"-?2\*\*\d+( - 1)?", r"`\g<0>`", str(rule))  # else Markdown sees bold text
    if isinstance(rule, Length):
        if rule.most is None:
            return "not empty"
        return f"{rule.least} to {rule.most} {unit}" if rule.least else f"at most {rule.most} {unit}"
    if isinstance(rule, Without):
        named = [_SPELT.get(character, f"`{character}`") for character in rule.characters]
        return f"without {', '.join(named)}"
    if isinstance(rule, NotBlank):
        return "not blank"
    return ""


# The page


def written_page(page: str, tables: str) -> str:
    """The page with these tables."""
    if BEGIN not in page or END not in page:
        raise SystemExit(f"a page lacks the mark {BEGIN if BEGIN not in page else END}")
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{tables}\n{END}{after}"


def _tables(classes: dict[str, Described]) -> str:
    own = {text.name for text in classes["ChatParams"].texts}
    doubled = [text.name for name in COMMON for text in classes[name].texts if text.name in own]
    pieces = [
        "## What every provider takes",
        f"{_names(doubled)} are taken in a wider form by `OpenAIProvider`: see its own table.",
        _table(classes[name] for name in COMMON),
        "## What `VLLMProvider` takes besides",
    ]
    vllm = [classes[name] for name in VLLM]
    for group in dict.fromkeys(text.group for one in vllm for text in one.texts):
        pieces += [f"### {group}", _table(one.only(group) for one in vllm)]
    pieces += [
        "## What `OpenAIProvider` takes besides",
        "vLLM has no use for these: a name that is only here is refused by `VLLMProvider`.",
        _table([classes["ChatParams"]]),
        "## Nested values",
        "Mappings with exactly these keys. A key marked * is required.",
    ]
    for name, one in classes.items():
        if name not in TOP:
            pieces += [f"### {name}", one.doc, _table([one])]
    return "\n\n".join(pieces) + "\n"


def _tables_of(page: Page, classes: dict[str, Described]) -> str:
    own = [classes[name] for name in page.params]
    here = {text.name for one in own for text in one.texts}
    shared = [name for name in own[-1].fields if name not in here]
    pieces = [_table(own), f"And as in [chats](parameters.md): {_names(sorted(shared))}."]
    if came := SINCE.get(own[-1].name):
        others = ", ".join(f"`{name}` {since}" for name, since in came.items())
        pieces.append(f"Some of these came in another version of vLLM than to chats: {others}.")
    closed = [one for one in classes.values() if one.texts and one.name not in page.params]
    nested = [one for one in closed if not one.name.endswith("Params")]
    if nested:
        pieces += ["### Nested values", "Mappings with exactly these keys. A key marked * is required."]
    for one in nested:
        pieces += [f"#### {one.name}", one.doc, _table([one])]
    return "\n\n".join(pieces) + "\n"


def _names(names: list[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def _table(classes: Iterable[Described]) -> str:
    rows = ["| Parameter | Type | Range | Default | Meaning |", "|---|---|---|---|---|"]
    for one in classes:
        rows.extend(_row(text, one.fields[text.name], one.module.__name__) for text in one.texts)
    return "\n".join(rows)


def _row(text: Text, field: Field, home: str) -> str:
    meaning = " ".join(" ".join(part.split()) for part in text.paragraphs)
    if field.needs:
        meaning += f" Needs the server's {_option(field.needs)}."
    if field.since:
        meaning += f" *Since vLLM {field.since}.*"
    name = f"`{text.name}`{'*' if field.required else ''}"
    cells = (name, kind(field.type, home), allowed(field), field.default or "", meaning)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _option(needs: str) -> str:
    option, _, rest = needs.partition(" ")
    return f"`{option}`{f' {rest}' if rest else ''}"


def kind(hint: object, home: str = params.__name__) -> str:
    """A type as the page writes it, with links to the tables of nested ones; `home` is the page's own module."""
    bare, _ = unwrap(hint)
    parts = members(bare)
    if len(parts) > 1:
        return " or ".join(dict.fromkeys(kind(part, home) for part in parts))
    if get_origin(bare) is Literal:
        return ", ".join(f'`"{word}"`' if isinstance(word, str) else f"`{word}`" for word in get_args(bare))
    if bare is Timeout:
        return "`Timeout`"
    if is_python(bare):
        return "a type" if get_origin(bare) is TypeForm else "a function"
    if is_typeddict(bare) and isinstance(bare, type):
        page = "" if bare.__module__ == home else PAGE.name
        return f"[`{bare.__name__}`]({page}#{bare.__name__.lower()})"
    origin, inner = get_origin(bare), get_args(bare)
    if isinstance(bare, type) and origin is None:
        return f"`{bare.__name__}`"
    if len(inner) == 1:
        return f"list of {kind(inner[0], home)}"
    return "mapping" if inner[1] is object else f"mapping of {kind(inner[0], home)} to {kind(inner[1], home)}"


if __name__ == "__main__":
    sys.exit(main())
