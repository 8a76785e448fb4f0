"""How long a program takes to start: to import a client, and to get its first reply.

Each measurement is a fresh process. One environment holds what the programs need and nothing else, with the bytecode
that pip compiles; the other one holds trio too, which httpcore imports wherever it is installed.

`python -m benchmarks.start` measures them alone; `make bench` does it too.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent

MODELS = """class Message(BaseModel): content: str
class Choice(BaseModel): message: Message
class Reply(BaseModel): choices: list[Choice]"""

IMPORTS = {
    "python": "pass",
    "import vllmchat": "import vllmchat",
    "from vllmchat import VLLMProvider": "from vllmchat import VLLMProvider",
    "import httpx, pydantic": "import httpx; from pydantic import BaseModel",
    "pydantic with three models": f"""
from pydantic import BaseModel
{MODELS}""",
}

WITH_TRIO = ("trio", "attrs", "outcome", "sniffio", "sortedcontainers")
"""What trio adds to an environment."""


def first_replies(url: str) -> dict[str, str]:
    """Programs that get one reply, by client."""
    return {
        "vllmchat": f"""
from vllmchat import VLLMProvider
print(VLLMProvider("bench", base_url={url!r}).chat("Hello").text)""",
        "vllmchat with parameters": f"""
from vllmchat import VLLMProvider
llm = VLLMProvider("bench", base_url={url!r})
print(llm.chat("Hello", temperature=0, max_tokens=20).text)""",
        "httpx": f"""
import httpx
from pydantic import BaseModel
{MODELS}
with httpx.Client() as client:
    body = {{"model": "bench", "messages": [{{"role": "user", "content": "Hello"}}]}}
    reply = client.post({url + "/chat/completions"!r}, json=body).raise_for_status()
print(Reply.model_validate_json(reply.content).choices[0].message.content)""",
    }


def started(code: str, python: str = sys.executable) -> float:
    """CPU seconds of a fresh interpreter that runs some code."""
    script = f"import time\n{code}\nprint(time.process_time())"
    # Bytecode is kept, as it is wherever a program runs twice.
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH")
    }
    environment = {**kept, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [python, "-c", script],
        cwd=ROOT / "benchmarks",  # where nothing is imported from
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.split()[-1])


def starts(programs: dict[str, str], repeats: int, python: str = sys.executable) -> dict[str, float]:
    """Median CPU milliseconds of programs, run in turn."""
    times: dict[str, list[float]] = {name: [] for name in programs}
    for code in programs.values():
        started(code, python)  # compiles what is not compiled yet
    for _ in range(max(repeats, 5)):
        for name, code in programs.items():
            times[name].append(started(code, python))
    return {name: round(statistics.median(each) * 1000, 1) for name, each in times.items()}


@contextmanager
def environments() -> Iterator[dict[str, str]]:
    """The interpreters of fresh environments, by what they hold. They are deleted at the end."""
    locked = (ROOT / "locks" / "dev.txt").read_text("utf-8")
    of_trio = [
        found[0]
        for name in WITH_TRIO
        if (found := re.search(rf"^{name}==(?:.*\\\n)*.*\n", locked, re.MULTILINE)) is not None
    ]
    with tempfile.TemporaryDirectory() as folder:
        extra = Path(folder) / "trio.txt"
        extra.write_text("".join(of_trio), "utf-8")
        pythons: dict[str, str] = {}
        for name, files in (
            ("dependencies only", [ROOT / "locks" / "runtime.txt"]),
            ("with trio", [ROOT / "locks" / "runtime.txt", extra]),
        ):
            place = Path(folder) / name.replace(" ", "-")
            subprocess.run([sys.executable, "-m", "venv", place], check=True)
            python = str(place / "bin" / "python")
            pip = [
                python,
                "-m",
                "pip",
                "--disable-pip-version-check",
                "--no-input",
                "install",
                "--quiet",
                "--no-deps",
            ]
            for file in files:
                subprocess.run([*pip, "--require-hashes", "-r", file], check=True)
            subprocess.run([*pip, "--no-build-isolation", "--no-index", ROOT], check=True)
            pythons[name] = python
        yield pythons


def measure(url: str, repeats: int) -> dict[str, dict[str, dict[str, float]]]:
    """CPU milliseconds of imports and of first replies, by environment."""
    with environments() as pythons:
        return {
            name: {
                "import_ms": starts(IMPORTS, repeats, python),
                "first_reply_ms": starts(first_replies(url), repeats, python),
            }
            for name, python in pythons.items()
        }


def ratios(found: dict[str, dict[str, float]]) -> dict[str, float]:
    """What vllmchat takes in an environment, as a share of httpx and pydantic; the floor is pydantic alone."""
    imports, replies = found["import_ms"], found["first_reply_ms"]
    return {
        "import": round(imports["from vllmchat import VLLMProvider"] / imports["import httpx, pydantic"], 2),
        "first reply": round(replies["vllmchat"] / replies["httpx"], 2),
        "floor": round(imports["pydantic with three models"] / replies["httpx"], 2),
        "first reply with parameters": round(replies["vllmchat with parameters"] / replies["httpx"], 2),
    }


def main() -> None:
    from benchmarks.run import server

    with server() as port:
        found = measure(f"http://127.0.0.1:{port}/reply/0/v1", 9)
    for name, each in found.items():
        print(name, json.dumps(each | {"ratios": ratios(each)}, indent=1))


if __name__ == "__main__":
    main()
