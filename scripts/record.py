"""Record what a real vLLM server returns, byte for byte, for tests that need no server.

    python scripts/record.py chat /v1/chat/completions --body '{"messages": [{"role": "user", "content": "Hello"}]}'
    python scripts/record.py models /v1/models
    python scripts/record.py embeddings /v1/embeddings --pooling --body '{"input": "Hello"}'

It starts a server with the tiny model for the request, or uses the one at `--url`, and writes the request and the
response to `tests/recorded/vllm-VERSION/NAME.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cached_env import InstallError, say_to_stderr
from vllm_server import TINY_MODEL_NAME, VLLM_VERSION, Options, ServerError, running

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "recorded" / f"vllm-{VLLM_VERSION}"

TIMEOUT = 300.0
"""Seconds for the whole response."""


def record(
    url: str,
    path: str,
    body: dict[str, Any] | None,
    api_key: str | None = None,
    version: str = VLLM_VERSION,
) -> dict[str, Any]:
    """Send one request, and return it and its response as a recording.

    Args:
        url: The server's root, without `/v1`.
        path: The request's path.
        body: The request's JSON; None makes it a GET without a body.
        api_key: Sent as a bearer token; it is not recorded.
        version: The server's version of vLLM.

    Raises:
        OSError: No response arrived.
    """
    request = urllib.request.Request(f"{url.rstrip('/')}{path}", method="GET" if body is None else "POST")
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    if api_key is not None:
        request.add_header("Authorization", f"Bearer {api_key}")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        answer = direct.open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        answer = error  # an error of the server is a response too
    with answer:
        text = answer.read().decode("utf-8")
        # The date changes each time, and it is urllib that asks to close the connection.
        left_out = ("date", "connection")
        headers = {
            name.lower(): value for name, value in answer.headers.items() if name.lower() not in left_out
        }
        return {
            "server": f"vllm {version}",
            "request": {"method": request.get_method(), "path": path, "body": body},
            "response": {"status": answer.status, "headers": headers, "body": text},
        }


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="record.py", description="Record a response of a real vLLM server.")
    parser.add_argument("name", help="of the file to write, without .json")
    parser.add_argument("path", help="of the request: /v1/chat/completions")
    parser.add_argument(
        "--body", type=json.loads, metavar="JSON", help="a POST with this body; without it, a GET"
    )
    parser.add_argument("--url", help="the root of a running server; without it, one is started")
    parser.add_argument("--api-key", metavar="KEY", help="the server's key")
    parser.add_argument("--pooling", action="store_true", help="start an embedding server instead")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="default: %(default)s")
    arguments = parser.parse_args(argv)
    body: dict[str, Any] | None = arguments.body
    if body is not None:
        body = {"model": TINY_MODEL_NAME} | body
    options = Options(name="record", scale_out=True, dev_mode=True, pooling=arguments.pooling)
    try:
        with contextlib.ExitStack() as stack:
            url: str = arguments.url or stack.enter_context(running(options)).url
            version = json.loads(record(url, "/version", None)["response"]["body"])["version"]
            recording = record(url, arguments.path, body, arguments.api_key, version)
    except (InstallError, ServerError, OSError) as error:
        say_to_stderr(f"error: {error}")
        return 1
    arguments.folder.mkdir(parents=True, exist_ok=True)
    file: Path = arguments.folder / f"{arguments.name}.json"
    file.write_text(json.dumps(recording, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{recording['response']['status']} {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
