"""The page on versions lists every release that the server tests can run against."""

from __future__ import annotations

import re

from support.examples import ROOT
from vllm_releases import DEFAULT, RELEASES


def test_each_release_has_its_results() -> None:
    page = (ROOT / "docs" / "versions.md").read_text(encoding="utf-8")
    section = page.partition("## Tested servers\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d+\.\d+\.\d+) \| (\d+) \| (\d+) \|", section, re.MULTILINE)
    assert [version for version, _, _ in rows] == list(reversed(list(RELEASES)))
    skipped = {version: int(count) for version, _, count in rows}
    assert skipped[DEFAULT.version] == 0
    assert all(int(passed) > 0 for _, passed, _ in rows)
