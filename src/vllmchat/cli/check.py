"""`vllmchat check`: what works with a server, and what to change."""

from __future__ import annotations

import json as jsons
import os
import sys
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from vllmchat.cli.command import Command
from vllmchat.cli.examine import Examination
from vllmchat.cli.terminal import write
from vllmchat.cli.wording import OPTIONS, in_options
from vllmchat.wire.controls import without_controls

if TYPE_CHECKING:
    from vllmchat.cli.findings import Finding
    from vllmchat.cli.server import Server

_SECONDS: Final = 60.0
"""How long one request may take, unless `--timeout` says so."""

_COLORS: Final = {"ok": "green", "warning": "yellow", "problem": "red", "unknown": "cyan"}


def check(server: Server, json: bool) -> int:
    """Find out what works with a server, and what to change.

    It asks the server about itself, and sends it a few tiny requests: a chat, a stream, a question to reason about, one
    with a tool, one with a constraint. The exit code is 1 if there is a problem.
    """
    variable = "OPENAI_API_KEY" if server.provider == "openai" else "VLLM_API_KEY"
    findings: list[Finding] = []
    with server.connect(max_retries=0, timeout=_SECONDS) as llm:
        has_key = bool(server.api_key_file or os.environ.get(variable))
        for finding in Examination(llm, has_key=has_key).run():
            findings.append(finding)
            if not json:
                _print(finding)
    counts = Counter(finding.status for finding in findings)
    if json:
        report = {
            "url": llm.base_url,
            "ok": not counts["problem"],
            "findings": [asdict(finding) for finding in findings],
        }
        sys.stdout.write(f"{without_controls(jsons.dumps(report, indent=2, ensure_ascii=False))}\n")
    else:
        parts = [_counted(counts[status], status) for status in ("problem", "warning") if counts[status]]
        write(f"\n{', '.join(parts) or 'All is well'}.\n")
    return 1 if counts["problem"] else 0


def _print(finding: Finding) -> None:
    write(f"{finding.status:<8}", color=_COLORS[finding.status])
    write(f" {finding.what:<11} {in_options(finding.text, OPTIONS)}\n")
    if finding.advice:
        write(f"{'':<21}{in_options(finding.advice, OPTIONS)}\n")


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


COMMAND: Final = Command(
    "check",
    check,
    [click.Option(["--json"], is_flag=True, help="Print what was found as JSON.")],
    epilog="Example: vllmchat check --url http://gpu-7:8000",
)
