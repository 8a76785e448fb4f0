"""Install vLLM's router, for the tests, into a virtual environment of its own, and start it.

It is in the cache folder next to the vLLM server, once per machine:

    python scripts/router_env.py                # from locks/router.txt; prints the interpreter
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import locks
from cached_env import Builder, CachedEnvironment, InstallError, Say, log_end, say_to_stderr

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

ROUTER_VERSION = "0.1.17"

START_TIMEOUT = 60.0
"""Seconds for the router to start."""

_LOCK = locks.locks()["router"]


class RouterError(RuntimeError):
    """The router does not start. The message has the end of its log."""


def install(*, say: Say = say_to_stderr) -> Path:
    """Install the router if it is not there yet, and return its interpreter.

    Raises:
        InstallError: It cannot be installed; the message has the end of the installer's log.
    """
    return ENVIRONMENT.install(say=say)


def _build(builder: Builder) -> None:
    builder.must("installing vllm-router", *builder.pip(*builder.locked(_LOCK)))
    builder.must("importing vllm-router", builder.python, "-c", "import vllm_router.launch_router")


ENVIRONMENT = CachedEnvironment(
    title=f"vllm-router {ROUTER_VERSION}",
    name=f"router-{ROUTER_VERSION}-{_LOCK.contents()}",
    cost="under a minute, 120 MB",
    build=_build,
)


@contextlib.contextmanager
def running(
    servers: Sequence[str], *, policy: str, log: Path, say: Say = say_to_stderr
) -> Generator[str, None, None]:
    """Run a router in front of servers, and yield its URL.

    Args:
        servers: Their URLs, without `/v1`.
        policy: How it chooses a server, such as `consistent_hash`.
        log: Where its output goes.
        say: Shows progress.

    Raises:
        InstallError: It cannot be installed.
        RouterError: It does not start.
    """
    python = install(say=say)
    port, metrics = _free_ports(2)
    url = f"http://127.0.0.1:{port}"
    words = ["-m", "vllm_router.launch_router", "--host", "127.0.0.1", "--port", str(port)]
    words += ["--prometheus-port", str(metrics), "--policy", policy, "--worker-urls", *servers]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(python), *words], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            _wait(process, f"{url}/health", log)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + START_TIMEOUT
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RouterError(f"vllm-router does not start.\n{log_end(log)}")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


if __name__ == "__main__":
    try:
        print(install())
    except InstallError as error:
        sys.exit(f"error: {error}")
