"""Runs a fake server: `python -m vllmchat.testing`."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from typing import TYPE_CHECKING

from vllmchat.testing.delivery import slow
from vllmchat.testing.model import NEWEST
from vllmchat.testing.replies import reply
from vllmchat.testing.server import FakeServer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vllmchat.testing.call import Call
    from vllmchat.testing.script import Answer


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the server until Ctrl-C. Returns the exit code.

    Args:
        arguments: The arguments of the command line; None for those of the process.
    """
    options = _parser().parse_args(arguments)

    def answer(call: Call) -> Answer:
        text = options.reply if options.reply is not None else f"You said: {call.text}"
        answered = reply(text, reasoning=options.reasoning)
        return slow(answered, options.delay_ms / 1000, options.between_ms / 1000)

    server = FakeServer(
        answer,
        model=options.model,
        version=options.vllm_version,
        api_key=options.api_key,
        port=options.port,
    )
    try:
        server.start()
    except OSError as error:
        sys.stderr.write(
            f"port {options.port} cannot be used: {os.strerror(error.errno or 0)}. Write --port 0 for a free one\n"
        )
        return 1
    try:
        sys.stdout.write(f"{server.base_url}\n")
        sys.stdout.flush()
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        server.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m vllmchat.testing",
        description="A local server that speaks like vLLM and has no model. It prints its URL and runs until Ctrl-C.",
    )
    parser.add_argument("--port", type=int, default=8000, help="0 for any free one (default: 8000)")
    parser.add_argument("--reply", help="the text of all replies (default: what the user wrote)")
    parser.add_argument("--reasoning", help="the reasoning before it")
    parser.add_argument("--model", help="the name of the model (default: it accepts every name)")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="pause before a reply begins")
    parser.add_argument("--between-ms", type=float, default=0.0, help="pause between the pieces of a stream")
    parser.add_argument("--api-key", help="the key that it requires")
    parser.add_argument(
        "--vllm-version", default=NEWEST, help="the version that it reports (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
