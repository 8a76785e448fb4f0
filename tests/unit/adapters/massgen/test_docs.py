"""The configurations in the documentation and the examples pass the check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml  # type: ignore[import-untyped] # it has no types, and this one call needs none

from support.examples import ROOT, read
from vllmchat.adapters.massgen import settings

if TYPE_CHECKING:
    from pathlib import Path

    from support.examples import Example

PAGE = ROOT / "docs" / "massgen.md"
FILES = sorted((ROOT / "examples" / "massgen").glob("*.yaml"))
BLOCKS = [example for example in read(PAGE) if example.language == "yaml"]
OWN = frozenset({*settings.OWN_NAMES, *settings.NOT_FOR_VLLM, "mcp_servers", "custom_tools", "cwd"})


def vllm_blocks(text: str) -> list[dict[str, Any]]:
    """The backend blocks for vLLM in a configuration, or the only block."""
    config: dict[str, Any] = yaml.safe_load(text)
    entries: list[dict[str, Any]] = config.get("agents", [config])
    return [each["backend"] for each in entries if each["backend"]["type"] == "vllm"]


@pytest.mark.parametrize("example", BLOCKS, ids=lambda example: example.name)
def test_the_blocks_are_right_or_wrong_as_the_page_says(example: Example) -> None:
    problems = [problem for block in vllm_blocks(example.code) for problem in settings.check(block, own=OWN)]
    assert bool(problems) is ("repitition_penalty" in example.code)


def test_the_page_shows_what_is_reported() -> None:
    (wrong,) = [example for example in BLOCKS if "repitition_penalty" in example.code]
    (shown,) = [
        example for example in read(PAGE) if example.language == "text" and "repitition" in example.code
    ]
    (block,) = vllm_blocks(wrong.code)
    found = settings.check(block, own=OWN)
    place = "agents[0].backend"
    lines = [
        f"❌ [{place}.{problem.parameter}] {line.removeprefix(f'{place}.')}"
        for problem, line in zip(found, settings.report(found, place), strict=True)
    ]
    assert shown.code.splitlines() == lines


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_examples_are_right(file: Path) -> None:
    for block in vllm_blocks(file.read_text(encoding="utf-8")):
        assert settings.check(block, own=OWN) == []


def test_the_page_shows_the_example() -> None:
    written = (ROOT / "examples" / "massgen" / "three_agents_vllm.yaml").read_text(encoding="utf-8")
    assert written in [example.code for example in BLOCKS]
