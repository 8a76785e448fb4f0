"""What `mkdocs build` adds to the documentation: addresses, version, descriptions, and files for language models.

The addresses stand in `[project.urls]` of pyproject.toml, and nowhere else.
"""

from __future__ import annotations

import html
import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin

import vllmchat
from vllmchat import __version__

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.nav import Navigation
    from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parent.parent

DESCRIPTION_LENGTH: Final = 200
"""How much of a description search engines and messengers show."""

_navigation: list[Navigation] = []
"""The navigation of this build, kept for the end of it."""


def urls() -> tuple[str, str]:
    """The addresses of the documentation and of the repository."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["urls"]["Documentation"], project["urls"]["Repository"]


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Set what is written elsewhere."""
    if str(ROOT / "scripts") not in sys.path:
        sys.path.append(str(ROOT / "scripts"))  # where docs_reference.py finds its neighbors
    site, repository = urls()
    config.site_url = config.site_url or site  # `mkdocs serve` has set its own
    config.repo_url = repository
    config.repo_name = f"v{__version__}"
    config.edit_uri_template = f"{repository}/edit/main/docs/{{path}}"
    config.copyright = f"vllmchat {__version__} · Apache License 2.0"
    config.extra["package_version"] = __version__
    return config


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Add to each page a description: its first paragraph, or the names in the reference, unless it has one."""
    markdown = re.sub(r"^<!-- methods of (\w+) -->$", methods, markdown, flags=re.MULTILINE)
    if page.file.src_uri.startswith("reference/"):
        page.meta.setdefault("search", {"boost": 0.5})  # guides come first
        names = re.findall(r"^::: vllmchat\S*?\.(\w+)$", markdown, re.MULTILINE)
        described = f"Reference of {', '.join(names)}." if names else markdown
    else:
        described = markdown
    page.meta.setdefault("description", description(described) or config.site_description)
    return markdown


DRAWN: Final = re.compile(r"[│├▼]|\S {2,}\S")
"""What a text in columns has, and output of a program has not."""

NARROW: Final = 100
"""Columns of a diagram that fit a page in the size of other code."""


def diagrams(block: re.Match[str]) -> str:
    """A text in columns, which must not be wrapped as output is."""
    text = html.unescape(re.sub(r"<[^>]+>", "", block[0]))
    if not DRAWN.search(text):
        return block[0]
    wide = " wide" if max(map(len, text.splitlines())) > NARROW else ""
    return block[0].replace('class="language-text', f'class="language-text diagram{wide}', 1)


USES: Final = {
    "Chat": "Chats",
    "Structured": "Replies as Python values",
    "Tool": "Tool runs",
    "Map": "Many prompts",
    "Completion": "Completions",
    "Generate": "Tokens in, tokens out",
    "Responses": "Responses",
    "Token": "Tokenization",
    "Decision": "Decisions",
    "Embedding": "Embeddings",
    "Pooling": "Embeddings, scores, classification",
    "Audio": "Audio",
    "Model": "Models",
    "Server": "Server status",
    "Admin": "Administration",
    "Provider": "The provider itself",
}
"""What the methods are for, by the name of the class that defines them, in the order of the page."""


def methods(match: re.Match[str]) -> str:
    """The reference of a provider: the class, then its methods by use."""
    provider: type = getattr(vllmchat, match[1])
    groups: dict[str, list[str]] = {use: [] for use in USES}
    seen: set[str] = set()
    for kind in provider.__mro__[1:]:  # the provider itself only wraps them
        use = re.sub(r"^OpenAI|Methods$|Base$|Streams$", "", kind.__name__)
        names = [name for name in vars(kind) if not name.startswith("_") and name not in seen]
        groups.setdefault(use, []).extend(names)
        seen.update(names)
    path = f"vllmchat.{match[1]}"
    blocks = [f"::: {path}\n    options: {{ members: false, heading_level: 1 }}"]
    rows = ["| use | methods |", "|---|---|"]
    for use, names in groups.items():
        if names:
            title = USES.get(use, use)
            rows.append(f"| {title} | {', '.join(f'[`{name}`][{path}.{name}]' for name in names)} |")
            blocks.append(f"## {title} {{ #{use.lower()}-methods }}")
            blocks += [f"::: {path}.{name}\n    options: {{ heading_level: 3 }}" for name in names]
    blocks.insert(1, "\n".join(rows))
    return "\n\n".join(blocks)


def on_page_content(content: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let tables of text become blocks on a phone, and long expressions break between their names."""
    content = re.sub(r"<table>.*?</table>", blocks, content, flags=re.DOTALL)
    content = re.sub(r'<div class="language-text highlight">.*?</pre>', diagrams, content, flags=re.DOTALL)
    return re.sub(r"(?<!<pre>)<code>([^<\s]{24,})</code>", breakable, content)


def breakable(code: re.Match[str]) -> str:
    """A long expression that may be broken between its names, and so never inside one."""
    return re.sub(r"(?<=\w[./=(,])(?=\w)|(?<=\))(?=\.)", "<wbr>", code[0])


def blocks(table: re.Match[str]) -> str:
    """A table whose cells know their headings; tables of numbers stay as they are."""
    if "text-align: right" in table[0]:
        return table[0].replace("<table>", "<table data-numbers>", 1)
    headings = [plain_html(cell) for cell in re.findall(r"<th>(.*?)</th>", table[0], re.DOTALL)]
    if len(headings) == 2:
        headings[1] = ""  # under the first cell, the second explains itself
    column = -1

    def labeled(tag: re.Match[str]) -> str:
        nonlocal column
        column = -1 if tag[0].startswith("<tr") else column + 1
        return tag[0] if column < 0 else f'<td data-label="{headings[column]}">'

    return re.sub(r"<tr\b[^>]*>|<td>", labeled, table[0]).replace("<table>", "<table data-blocks>", 1)


def plain_html(text: str) -> str:
    """The text of HTML, for an attribute."""
    return html.escape(html.unescape(re.sub(r"<[^>]+>", "", text)).strip())


def description(markdown: str) -> str:
    """The first paragraph of a page as plain text, cut at the end of a sentence or a word."""
    text = ""
    for block in re.split(r"\n\s*\n", re.sub(r"```.*?```|<!--.*?-->", "", markdown, flags=re.DOTALL)):
        if re.match(r"[A-Za-z`\[*]", block.strip()):
            text = plain(block)
            break
    if len(text) <= DESCRIPTION_LENGTH:
        return text.rstrip(":")
    start = text[:DESCRIPTION_LENGTH]
    end = max(start.rfind(". "), start.rfind(": "))
    return start[: end + 1].rstrip(":") if end > 60 else start.rpartition(" ")[0] + " …"


def plain(markdown: str) -> str:
    """Markdown without its marks."""
    text = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", markdown)
    text = re.sub(r"[`*]|\{[^}]*\}", "", text)
    return html.unescape(" ".join(text.split()))


def on_nav(nav: Navigation, *, config: MkDocsConfig, files: Files) -> Navigation:
    """Keep the navigation for the lists of pages, and name the first page, which is in a section, as the home page."""
    _navigation[:] = [nav]
    nav.homepage = nav.pages[0]
    return nav


def on_post_build(*, config: MkDocsConfig) -> None:
    """Write the pages for language models: https://llmstxt.org."""
    site = Path(config.site_dir)
    base = config.site_url or ""
    sections: dict[str, list[str]] = {}
    pieces: list[str] = []
    for page in _navigation[0].pages:
        url = urljoin(base, page.url)
        section: str = getattr(page.parent, "title", "")
        title: str = getattr(page, "title", "")
        entries = sections.setdefault(section, [])
        entries.append(f"- [{title}]({url}): {page.meta['description']}")
        # The reference is generated from the docstrings, which the installed package has too.
        if not page.file.src_uri.startswith("reference/"):
            pieces.append(f"<!-- {url} -->\n\n{source(page, url)}")
    lines = [f"# {config.site_name}", f"> {config.site_description}, version {__version__}."]
    for section, entries in sections.items():
        lines += [f"## {section}", "\n".join(entries)]
    (site / "llms.txt").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    (site / "llms-full.txt").write_text("\n\n".join(pieces) + "\n", encoding="utf-8")


def source(page: Page, url: str) -> str:
    """A page's text, with what it includes, whole links, and without what is meant for the site."""
    text = page.file.content_string
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    text = re.sub(
        r'^--8<-- "(.+)"$',
        lambda match: (ROOT / match[1]).read_text(encoding="utf-8"),
        text,
        flags=re.MULTILINE,
    )
    text = re.sub(r"^<figure.*?^</figure>\n", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(
        r"^<!-- example.*-->\n|^\{: .*\}\n|</?(?:div|p|ul|li)\b[^>]*>|<img[^>]*> ",
        "",
        text,
        flags=re.MULTILINE,
    )
    text = re.sub(r" \{ [#.][^}]*\}$", "", text, flags=re.MULTILINE)
    text = re.sub(r"\]\(([\w./-]+)\.md\b", lambda match: f"]({urljoin(url, match[1])}.html", text)
    text = re.sub(r'<a href="([^"]+)"', lambda match: f'<a href="{urljoin(url, match[1])}"', text)
    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    parts[::2] = [re.sub(r"\n{3,}", "\n\n", part) for part in parts[::2]]  # not in code
    return "".join(parts).strip()
