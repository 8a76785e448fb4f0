"""Runs the tests in `inside/`, which import MassGen, in MassGen's environment, and reports the result of each.

They run in one process, because importing MassGen takes more than ten seconds.
"""

from __future__ import annotations

import ast
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.fake_vllm import RunPython
    from support.vllm import LiveServer

INSIDE = Path(__file__).with_name("inside")


def names() -> list[str]:
    """The names of those tests, as `file::function`, found without importing anything."""
    found: list[str] = []
    for file in sorted(INSIDE.glob("test_*.py")):
        body = ast.parse(file.read_text(encoding="utf-8")).body
        functions = [node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        found += [f"{file.stem}::{name}" for name in functions if name.startswith("test_")]
    return found


@pytest.fixture(scope="module")
def outcomes(
    run_massgen_python: RunPython, vllm_server: LiveServer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[ET.Element]]:
    """The reports of all those tests, by name. A parametrized test has several."""
    report = tmp_path_factory.mktemp("inside") / "report.xml"
    options = ["-c", str(INSIDE / "pytest.ini"), "--rootdir", str(INSIDE), "-p", "no:cacheprovider", "-q"]
    done = run_massgen_python(
        *("-m", "pytest", *options, "--junitxml", str(report), str(INSIDE)),
        env={
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # MassGen's dependencies install pytest plugins that are not needed.
            "VLLMCHAT_TEST_SERVER": vllm_server.base_url,
            "VLLMCHAT_TEST_MODEL": vllm_server.model,
        },
    )
    assert report.exists(), done.stdout + done.stderr
    cases: dict[str, list[ET.Element]] = {}
    for case in ET.parse(report).iter("testcase"):
        name = case.get("name", "").partition("[")[0]
        cases.setdefault(f"{case.get('classname', '').rpartition('.')[2]}::{name}", []).append(case)
    return cases


@pytest.mark.parametrize("name", names())
def test_inside(name: str, outcomes: dict[str, list[ET.Element]]) -> None:
    cases = outcomes.get(name, [])
    assert cases, f"{name} did not run; these did: {', '.join(outcomes)}"
    bad = [each for case in cases for each in case if each.tag in ("failure", "error", "skipped")]
    assert not bad, "\n\n".join(f"{each.get('message')}\n{each.text}" for each in bad)
