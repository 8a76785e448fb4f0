"""What the README claims is what the project's own files say, and its links lead somewhere."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any, cast

from support.examples import ROOT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = cast("dict[str, Any]", PYPROJECT["project"])
DOCUMENTATION = str(PROJECT["urls"]["Documentation"])
REPOSITORY = str(PROJECT["urls"]["Repository"])

ELSEWHERE = {"https://docs.vllm.ai"}
"""Addresses that are not ours."""


def test_the_line_of_facts_is_true() -> None:
    [line] = re.findall(r"^`Python.*$", TEXT, re.MULTILINE)
    pythons = [name.rpartition(" ")[2] for name in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", name)]
    recorded = [path.name for path in (ROOT / "tests/recorded").iterdir()]
    versions = [tuple(map(int, found[1].split("."))) for name in recorded if (found := RECORDING.match(name))]
    oldest, newest = min(versions), max(versions)
    assert re.findall(r"`([^`]+)`", line) == [
        f"Python {pythons[0]} to {pythons[-1]}",
        f"vLLM {'.'.join(map(str, oldest))} to {newest[0]}.{newest[1]}",
        "typed: mypy --strict, pyright",
        PROJECT["license"],
    ]
    assert PROJECT["requires-python"] == f">={pythons[0]}"
    assert PYPROJECT["tool"]["mypy"]["strict"] is True
    assert "Typing :: Typed" in PROJECT["classifiers"]
    assert (ROOT / "src/vllmchat/py.typed").is_file()


CLIENTS = ("vllmchat", "openai")
IMPORTS = ("from vllmchat import VLLMProvider", "import openai")
RECORDING = re.compile(r"vllm-(\d+\.\d+\.\d+)(?:\.zip)?$")


def test_the_numbers_are_the_measured_ones() -> None:
    results = json.loads((ROOT / "benchmarks/results.json").read_text(encoding="utf-8"))
    chunk, replies = results["work"]["aburst"], results["work"]["fanout_2000"]
    imports = results["import_ms"]
    measured = {
        "CPU per chunk of a fast stream, async": [f"{chunk[name]['cpu']:.1f} µs" for name in CLIENTS],
        "2,000 replies in flight, 0.5 s each": [f"{replies[name]['wall']:.1f} s" for name in CLIENTS],
        "`import`": [f"{imports[line]:.0f} ms" for line in IMPORTS],
    }
    for what, values in measured.items():
        assert f"| {what} | {' | '.join(values)} |" in TEXT
    # "less work for your program than any other client, except a bare HTTP library"
    for work in results["work"].values():
        ours = work["vllmchat"]["cpu"]
        clients = {name for name in work if not name.startswith("vllmchat")} - {"httpx", "aiohttp"}
        assert all(work[name]["cpu"] > ours for name in clients)


def test_its_dependencies_are_four() -> None:
    assert "four dependencies" in TEXT
    assert len(PROJECT["dependencies"]) == 4


def test_its_links_are_absolute_and_lead_somewhere() -> None:
    """They are also read on the package index, where relative ones lead nowhere."""
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert len(links) > 20
    for link in links:
        if link.startswith(DOCUMENTATION):
            page, _, anchor = link.removeprefix(DOCUMENTATION).partition("#")
            file = ROOT / "docs" / page.replace(".html", ".md")
            assert file.is_file(), link
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert not anchor or anchor in map(slug, headings), link
        elif link.startswith(f"{REPOSITORY}/blob/main/"):
            assert (ROOT / link.removeprefix(f"{REPOSITORY}/blob/main/")).is_file(), link
        else:
            assert link == REPOSITORY or link in ELSEWHERE, link


def slug(heading: str) -> str:
    return re.sub(r"[^\w-]+", "-", re.sub(r"[`,.:]", "", heading.lower())).strip("-")


def test_no_other_file_has_an_address_of_ours() -> None:
    """So whoever changes the addresses in pyproject.toml has only the README to change too."""
    for path in [ROOT / "CHANGELOG.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md")]:
        links = re.findall(r"\]\((https?://[^)]+)\)", path.read_text(encoding="utf-8"))
        assert not [link for link in links if "vllmchat" in link], path.name
