"""The documentation builds without a complaint, fetches nothing, and names everything that is public."""

from __future__ import annotations

import inspect
import json
import re
import tomllib
from collections import Counter
from functools import cache
from html import unescape
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urljoin, urlsplit

import httpx
import pytest
import yaml  # type: ignore[import-untyped] # it has no types, and this one call needs none

import docs_hooks
import docs_look
import docs_terminal
import vllmchat
from support.examples import ROOT, examples, read as examples_of

if TYPE_CHECKING:
    from pathlib import Path


@cache
def html_pages(site: Path) -> dict[str, str]:
    """The pages by their paths."""
    return {
        path.relative_to(site).as_posix(): path.read_text(encoding="utf-8") for path in site.rglob("*.html")
    }


def test_it_fetches_nothing_from_elsewhere(site: Path) -> None:
    fetched = re.compile(
        r"""<(?:script|img|iframe|source)[^>]+src=["']?(?:https?:)?//|<link[^>]+rel=["']?(?:stylesheet|preconnect|icon)"""
        r"""["']?[^>]+href=["']?(?:https?:)?//"""
    )
    for name, html in html_pages(site).items():
        assert fetched.search(html) is None, name


def test_every_page_is_in_the_navigation(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert pages == set(re.findall(r"([\w/-]+\.md)$", settings, re.MULTILINE))


def test_the_reference_has_every_public_name(site: Path) -> None:
    reference = "".join(html for name, html in html_pages(site).items() if name.startswith("reference/"))
    headings = set(re.findall(r'<h[1-6] id="([\w.]+)"', reference))
    described = {heading.rpartition(".")[2] for heading in headings}
    assert set(vllmchat.__all__) - {"__version__"} <= described


PATHS = re.compile(r"^::: (\S+)|(?:from|import) (vllmchat[\w.]*)", re.MULTILINE)
PUBLIC = re.compile(
    r"vllmchat(?:\.types|\.testing)?(?:\.[A-Za-z_]+)?|vllmchat\.adapters\.(?:massgen|otel|ray(?:\.\w+_rows)?)"
)


def test_nothing_is_documented_at_an_inner_path() -> None:
    """What is public is imported from the package, its `types` or its `testing`; a backend, from its adapter."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    inner = {
        f"{page.name}: {path}"
        for page in pages
        if page.name != "architecture.md"
        for match in PATHS.finditer(page.read_text(encoding="utf-8"))
        if not PUBLIC.fullmatch(path := match[1] or match[2])
    }
    assert not inner


def test_docstrings_are_markdown(site: Path) -> None:
    for name, html in html_pages(site).items():
        if name.startswith("reference/"):
            assert re.search(r"::</p>|:(?:class|func|meth|ref):`|``", html) is None, name


def test_the_changelog_names_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert vllmchat.__version__ in text


def project_urls() -> dict[str, str]:
    urls: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["urls"]
    return urls


def settings() -> dict[str, Any]:
    # Its tags and environment variables are not used here.
    found: dict[str, Any] = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    return found


# Finding


def test_there_are_at_most_seven_sections() -> None:
    sections = [section for item in settings()["nav"] for section in item]
    assert len(sections) <= 7
    assert "Reference" in sections


def test_no_two_pages_have_the_same_name(site: Path) -> None:
    headings = [re.search(r"<h1[^>]*>(.*?)</h1>", html, re.DOTALL) for html in html_pages(site).values()]
    names = Counter(re.sub(r"<[^>]+>|&para;", "", heading[1]).strip() for heading in headings if heading)
    titles = Counter(re.findall(r"<title>(.*?)</title>", "".join(html_pages(site).values())))
    assert {name for name, count in (names + titles).items() if count > 1} == set()


def test_every_link_within_the_site_leads_somewhere(site: Path) -> None:
    base = project_urls()["Documentation"]
    pages = {urljoin(base, name): html for name, html in html_pages(site).items()}
    targets = {url: set(re.findall(r"""\bid=["']?([^"'\s>]+)""", html)) for url, html in pages.items()}
    dead: set[str] = set()
    for url, html in pages.items():
        for found in re.findall(r"""\b(?:href|src)=["']?([^"'\s>]+)""", html):
            target, _, fragment = urljoin(url, unescape(found)).partition("#")
            if not target.startswith(base) or fragment.startswith("only-"):
                continue
            path = site / unquote(urlsplit(target).path.removeprefix(urlsplit(base).path) or "index.html")
            there = path.is_file() or (path / "index.html").is_file()
            if not there or (fragment and target in targets and unquote(fragment) not in targets[target]):
                dead.add(f"{url}: {found}")
    assert not dead


def test_pages_have_neighbors(site: Path) -> None:
    html = html_pages(site)["streaming.html"]
    assert 'rel="prev"' in html
    assert 'rel="next"' in html


# For search engines, messengers and language models


def test_addresses_come_from_one_setting(site: Path) -> None:
    urls = project_urls()
    html = html_pages(site)["streaming.html"]
    assert f'<link rel="canonical" href="{urls["Documentation"]}streaming.html">' in html
    assert f'href="{urls["Repository"]}/edit/main/docs/streaming.md"' in html
    assert f'href="{urls["Repository"]}"' in html
    written = [ROOT / "mkdocs.yml", *(ROOT / "docs").rglob("*.md")]
    assert not [path.name for path in written if urls["Documentation"] in path.read_text("utf-8")]


def test_the_sitemap_lists_every_page(site: Path) -> None:
    listed = set(re.findall("<loc>(.+?)</loc>", (site / "sitemap.xml").read_text(encoding="utf-8")))
    pages = {
        urljoin(project_urls()["Documentation"], name) for name in html_pages(site) if name != "404.html"
    }
    assert listed == pages


def test_each_page_describes_itself_and_names_the_version(site: Path) -> None:
    seen = Counter[str]()
    for name, html in html_pages(site).items():
        described = re.search(r'<meta name="description" content="(.*?)">', html)
        shared = re.search(r'<meta property="og:description" content="(.*?)">', html)
        assert described is not None, name
        assert shared is not None, name
        assert 10 < len(described[1]) <= 300, name
        assert unescape(described[1]) == unescape(shared[1])
        assert '<meta property="og:image" content="https://' in html, name
        assert f"vllmchat {vllmchat.__version__}" in html, name
        if name != "404.html":
            seen[described[1]] += 1
    assert seen.most_common(1)[0][1] == 1


def test_a_description_is_one_or_more_whole_sentences() -> None:
    assert docs_hooks.description(
        "# Tools\n\n```python\nx\n```\n\nThe [model](a.md) calls `f`.\n\nMore."
    ) == ("The model calls f.")
    long = "A sentence that is long enough to be kept on its own, at sixty characters. " + "word " * 60
    assert docs_hooks.description(long) == long[:74]


def test_language_models_get_every_page(site: Path) -> None:
    listed = (site / "llms.txt").read_text(encoding="utf-8")
    whole = (site / "llms-full.txt").read_text(encoding="utf-8")
    base = project_urls()["Documentation"]
    for name in html_pages(site):
        if name != "404.html":
            url = urljoin(base, name)
            assert f"]({url}): " in listed or f"]({url.removesuffix('index.html')}): " in listed, name
    for example in examples("python"):
        if example.path.is_relative_to(ROOT / "docs") and not example.code.startswith(" "):
            assert example.code.strip() in whole, example.name
    assert "<div" not in whole
    assert "--8<--" not in whole


def test_the_page_for_dead_links_works_anywhere_below_the_site(site: Path) -> None:
    base = urlsplit(project_urls()["Documentation"]).path
    html = html_pages(site)["404.html"]
    for found in re.findall(r"""\b(?:href|src)=["']?([^"'\s>]+)""", html):
        assert found.startswith((base, "https://", "#", "data:")), found


def test_it_works_from_disk(site: Path) -> None:
    for name, html in html_pages(site).items():
        if name != "404.html":
            assert not re.findall(r"""\b(?:href|src)=["']?(/[^"'\s>]*)""", html), name
            assert "assets/javascripts/iframe-worker.js" in html
    assert (site / "search" / "search_index.js").read_text(encoding="utf-8").startswith("var __index = {")


# The first page


def test_the_first_page_is_home(site: Path) -> None:
    pages = html_pages(site)
    assert f"<title>vllmchat: {settings()['site_description']}</title>" in pages["index.html"]
    assert re.search(
        r'<a href="\.\./index\.html" title="vllmchat" class="md-header__button md-logo"',
        pages["reference/index.html"],
    )


def test_the_first_page_gives_measured_numbers() -> None:
    results = json.loads((ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))
    chunk, flight, start = results["work"]["aburst"], results["work"]["fanout_2000"], results["import_ms"]
    page = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    numbers = re.findall(r"<li><a [^>]+><b>(.+?)</b> (.+?)</a></li>", page)
    assert numbers == [
        (
            f"{chunk['openai']['cpu'] / chunk['vllmchat']['cpu']:.0f}\N{MULTIPLICATION SIGN}",
            "less CPU per streamed chunk than openai",
        ),
        (
            f"{flight['vllmchat']['wall']:.1f} s",
            f"for 2,000 replies in flight, where openai takes {flight['openai']['wall']:.1f} s",
        ),
        (
            f"{start['from vllmchat import VLLMProvider']:.0f} ms",
            f"to import, against {start['import openai']:.0f} ms",
        ),
    ]


def test_the_terminal_shows_its_recording() -> None:
    outputs = docs_terminal.read(docs_terminal.RECORDING.read_text(encoding="utf-8"))
    drawn = docs_terminal.PICTURE.read_text(encoding="utf-8")
    assert drawn == docs_terminal.draw(outputs), "draw it: python scripts/docs_terminal.py --draw"
    typed = [
        line
        for line in "".join(text for _, text in outputs).splitlines()
        if line[:4] in docs_terminal.PROMPTS
    ]
    assert [line[4:] for line in typed] == [*docs_terminal.SESSION, ""]


# The reference


@pytest.mark.parametrize("provider", ["VLLMProvider", "OpenAIProvider"])
def test_the_reference_has_every_method_by_use(provider: str, site: Path) -> None:
    html = html_pages(site)[f"reference/{provider.lower()}.html"]
    methods = re.findall(rf'<h3 id="vllmchat\.{provider}\.(\w+)"', html)
    public = {name for name, _ in inspect.getmembers(getattr(vllmchat, provider)) if not name.startswith("_")}
    assert len(methods) == len(set(methods))
    assert set(methods) == public
    first = [
        name
        for name in methods
        if name in {"chat", "stream", "parse", "run_tools", "complete", "with_options"}
    ]
    assert first == ["chat", "stream", "parse", "run_tools", "complete", "with_options"]
    titles = re.findall(r'<h2 id="(\w+)-methods"', html)
    assert {title.capitalize() for title in titles} <= set(docs_hooks.USES), "name the use in docs_hooks.USES"


def test_the_reference_shows_types_and_versions_in_words(site: Path) -> None:
    for name, html in html_pages(site).items():
        text = unescape(re.sub(r"<[^>]+>", "", html))
        if name.startswith("reference/"):
            noise = re.search(
                r"Annotated\[(?!\.\.\.)|\b(?:Bounds|Default|Since|Length)\(|Bases:|instance-attribute", text
            )
            assert noise is None, f"{name}: {noise}"


def test_parameters_are_listed_where_a_method_accepts_them(site: Path) -> None:
    html = html_pages(site)["reference/vllmprovider.html"]
    for method in ("chat", "stream", "parse", "run_tools", "complete", "embed"):
        start = html.index(f'<h3 id="vllmchat.VLLMProvider.{method}"')
        part = html[start : html.index("<h3 id=", start + 1)]
        assert re.search(r"\d+ parameters of the request", part), method
    start = html.index('<h3 id="vllmchat.VLLMProvider.chat"')
    chat = unescape(re.sub(r"<[^>]+>", "", html[start : html.index("<h3 id=", start + 1)]))
    assert re.search(
        r"top_k\s+int · at least -1 · default: 0, or the model's generation config\s+Sample only", chat
    )
    assert re.search(
        r"truncation_side\s+Literal\['left', 'right'\] · default: .+? · since vLLM 0\.22\s", chat
    )


# The look; the rest is checked by scripts/docs_look.py, in a browser


WIDEST: Final = {"python": 88, "text": 122}
"""Columns of the lines of code that fit a page at 1440 pixels; 102 for other languages. Output wraps by itself."""


def test_code_fits_the_page() -> None:
    wide = [
        f"{example.name}: {line}"
        for path in sorted((ROOT / "docs").rglob("*.md"))
        for example in examples_of(path)
        for line in example.code.splitlines()
        if len(line) > (102 if line.lstrip().startswith("#>") else WIDEST.get(example.language, 102))
        and (example.language != "text" or docs_hooks.DRAWN.search(example.code))
    ]
    assert not wide


def test_charts_have_a_dark_version(site: Path) -> None:
    html = html_pages(site)["performance.html"]
    assert "performance.svg#only-light" in html
    assert "performance-dark.svg#only-dark" in html
    assert "#ffffff" not in (ROOT / "docs" / "assets" / "performance-dark.svg").read_text(encoding="utf-8")


def test_without_a_browser_the_check_of_the_look_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CHROMIUM", raising=False)
    with pytest.raises(SystemExit, match=r"chromium is not installed\. On Debian: apt-get install chromium"):
        docs_look.program("CHROMIUM", "chromium", "google-chrome")


def test_the_check_of_the_look_serves_the_site_below_a_path(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("home", encoding="utf-8")
    (tmp_path / "404.html").write_text("lost", encoding="utf-8")
    with docs_look.served(tmp_path) as base, httpx.Client(base_url=base) as client:
        assert (client.get("index.html").status_code, client.get("index.html").text) == (200, "home")
        assert (client.get("deep/er.html").status_code, client.get("deep/er.html").text) == (404, "lost")
