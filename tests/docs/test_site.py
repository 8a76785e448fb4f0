"""The documentation builds without a complaint, fetches nothing, and names everything that is public."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import vllmchat
from support.examples import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built documentation."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        # A notice of the theme's about a later version of mkdocs, which this project does not use.
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stdout + done.stderr
    return folder


def html_pages(site: Path) -> dict[str, str]:
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
PUBLIC = re.compile(r"vllmchat(?:\.types|\.testing)?(?:\.[A-Za-z_]+)?|vllmchat\.adapters\.massgen")


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
