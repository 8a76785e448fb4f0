"""The table of what comes out of each recording: `tests/recorded/outcomes.json`.

By recording and method it has the outcomes, each with the servers whose answer led to it. To write it anew, after a
change that is meant to change outcomes, or with a new server's recordings:

    PYTHONPATH=tests .venv/bin/python -m support.outcome_table

and read what has changed.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support import recordings
from support.replay import Replay
from support.runners import runner_of
from support.scripted import ScriptedServer

if TYPE_CHECKING:
    from support.outcomes import Facts

FILE = Path(__file__).parents[1] / "recorded" / "outcomes.json"

Outcomes = dict[str, dict[str, "Facts"]]
"""By recording and method."""


@cache
def read(file: Path = FILE) -> dict[str, Outcomes]:
    """The table, by server."""
    table: dict[str, dict[str, list[dict[str, Any]]]] = json.loads(file.read_text("utf-8"))
    found: dict[str, Outcomes] = {}
    for name, methods in table.items():
        for method, rows in methods.items():
            for row in rows:
                outcome = {fact: value for fact, value in row.items() if fact != "servers"}
                for server in row["servers"].split():
                    found.setdefault(server, {}).setdefault(name, {})[method] = outcome
    return found


def written(outcomes: dict[str, Outcomes]) -> str:
    """The table as text: a line for each outcome, so that what a change changes can be read."""
    rows: dict[str, dict[str, dict[str, list[str]]]] = {}
    for server in sorted(outcomes, key=recordings.servers().index):
        for name, methods in outcomes[server].items():
            for method, outcome in methods.items():
                shown = json.dumps(outcome, ensure_ascii=False)
                rows.setdefault(name, {}).setdefault(method, {}).setdefault(shown, []).append(server)
    blocks: list[str] = []
    for name in sorted(rows):
        methods_shown: list[str] = []
        for method, found in rows[name].items():
            lines = [
                json.dumps({"servers": " ".join(servers), **json.loads(shown)}, ensure_ascii=False)
                for shown, servers in found.items()
            ]
            methods_shown.append(f"  {json.dumps(method)}: [\n   " + ",\n   ".join(lines) + "\n  ]")
        blocks.append(f" {json.dumps(name)}: {{\n" + ",\n".join(methods_shown) + "\n }")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


def replayed(replay: Replay) -> Outcomes:
    """What comes out of all recordings of a server."""
    found: Outcomes = {}
    for name, method, outcome in replay.outcomes():
        # As JSON has it: no tuples, and keys are text.
        found.setdefault(name, {})[method] = json.loads(json.dumps(outcome))
    return found


def main() -> int:
    """Write the table."""
    outcomes: dict[str, Outcomes] = {}
    with runner_of("sync") as runner:
        for server in recordings.servers():
            with ScriptedServer() as scripted:
                replay = Replay(server, scripted, runner)
                outcomes[server] = replayed(replay)
                runner.close(replay.llm)
    FILE.write_text(written(outcomes), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
