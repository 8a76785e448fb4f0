"""Fixtures of all tests: two event loops, an environment without surprises, real vLLM servers."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, cast

import pytest

from cached_env import InstallError
from support.vllm import API_KEY, SERVER_FIXTURES, LiveServer, at_least, is_required
from tiny_model.dialogues import load
from vllm_releases import DEFAULT, RELEASES
from vllm_server import Options, ServerError, environment, playground, running

if TYPE_CHECKING:
    from _pytest.capture import CaptureManager

StartServer = Callable[[str, Options], AbstractContextManager[LiveServer]]

AMBIENT = (
    ("VLLM_", "OPENAI_"),
    ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"),
)
"""Variables that change what a client does: all that begin like the first, and those named like the second."""

_unavailable = pytest.StashKey[str]()
"""Why there is no real server, in one line; unset as long as there may be one."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which vLLM the real servers are."""
    parser.addoption(
        "--vllm",
        default=DEFAULT.version,
        choices=list(RELEASES),
        help="the version of the real servers (default: %(default)s)",
    )


def _version(config: pytest.Config) -> str:
    """Of vLLM, as the real servers are in this run."""
    return str(config.getoption("--vllm"))


@pytest.fixture(params=["asyncio", "trio"], scope="module")
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The event loops that every asynchronous test runs on."""
    return str(request.param)


@pytest.fixture(autouse=True)
def no_ambient_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away the settings of whoever runs the tests; a test sets its own with `monkeypatch`."""
    prefixes, names = AMBIENT
    for name in list(os.environ):
        if name.startswith(prefixes) or name.upper() in names:
            monkeypatch.delenv(name)


# ------------------------------------------------------------------------------------------------
# Real servers: each is started when the first test asks for it, and ends with the session
# ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def vllm_server(start_server: StartServer, pytestconfig: pytest.Config) -> Iterator[LiveServer]:
    """A real vLLM with the tiny model, as `make server` starts it."""
    with start_server("chat", replace(playground(_version(pytestconfig)), preferred_port=None)) as server:
        yield server


@pytest.fixture(scope="session")
def keyed_server(start_server: StartServer) -> Iterator[LiveServer]:
    """The same model on a server that asks for `support.vllm.API_KEY`."""
    with start_server("keyed", Options(api_key=API_KEY)) as server:
        yield server


@pytest.fixture(scope="session")
def admin_server(start_server: StartServer, pytestconfig: pytest.Config) -> Iterator[LiveServer]:
    """The same model on a server that asks for the key and has every route of administration, LoRA's among them.

    Tests that put it to sleep, pause it or load something leave it as they found it.
    """
    lora = "LoRA" not in RELEASES[_version(pytestconfig)].lacks
    options = replace(playground(_version(pytestconfig)), preferred_port=None, api_key=API_KEY, lora=lora)
    with start_server("admin", options) as server:
        yield server


@pytest.fixture(scope="session")
def pooling_server(start_server: StartServer) -> Iterator[LiveServer]:
    """The same model on a server that gives embeddings, scores and classes instead of text."""
    with start_server("pooling", Options(pooling=True)) as server:
        yield server


@pytest.fixture(scope="session")
def start_server(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> StartServer:
    """Starts a server for the time of a `with` block, for the fixtures above."""

    @contextmanager
    def start(kind: str, options: Options) -> Generator[LiveServer, None, None]:
        log = tmp_path_factory.mktemp(f"vllm-{kind}") / "server.log"
        # Several sessions may run side by side, so the name has the process in it.
        version = _version(pytestconfig)
        own = replace(options, version=version, name=f"tests-{os.getpid()}-{kind}", log=log)
        with ExitStack() as stack:
            if (reason := pytestconfig.stash.get(_unavailable, None)) and environment(
                version
            ).installed_python() is None:
                _give_up(reason)  # an installation is tried once, not once for each kind of server
            try:
                server = stack.enter_context(running(own, say=partial(_say, pytestconfig)))
            except (InstallError, ServerError) as error:
                pytestconfig.stash[_unavailable] = str(error).splitlines()[0]
                _give_up(str(error))
            yield LiveServer(server.url, server.model, log, load(), version, options.api_key)

    return start


def _give_up(reason: str) -> NoReturn:
    if is_required():
        pytest.fail(f"no real vLLM server: {reason}", pytrace=False)
    pytest.skip(f"no real vLLM server: {reason.splitlines()[0]}")


def _say(config: pytest.Config, line: str) -> None:
    """Show a line of progress through pytest's capture: an installation takes minutes."""
    capture = cast("CaptureManager | None", config.pluginmanager.getplugin("capturemanager"))
    with capture.global_and_fixture_disabled() if capture is not None else nullcontext():
        sys.stderr.write(f"\n[vllm] {line}")
        sys.stderr.flush()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what needs a real server, and skip what needs a newer one."""
    folder = Path(__file__).parent / "server"
    version = _version(config)
    for item in items:
        for marker in item.iter_markers("since"):
            since, what = marker.args
            if not at_least(DEFAULT.version, since):
                raise pytest.UsageError(f"{item.nodeid}: vLLM {since} is newer than the tests' own server")
            if not at_least(version, since):
                item.add_marker(pytest.mark.skip(reason=f"since vLLM {since}: {what}"))
        for marker in item.iter_markers("needs"):
            [what] = marker.args
            if what in RELEASES[version].lacks:
                item.add_marker(pytest.mark.skip(reason=f"not with vLLM {version} on a CPU: {what}"))
        if folder in item.path.parents or SERVER_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("server")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say in one line that the real server was missing, and for an older one what was skipped, by reason."""
    if (reason := config.stash.get(_unavailable, None)) is not None:
        what = "failed" if is_required() else "were skipped"
        terminalreporter.write_line(f"No real vLLM server, its tests {what}: {reason}", red=True)
    version = _version(config)
    if version != DEFAULT.version:
        reasons = Counter(_skip_reason(report) for report in terminalreporter.stats.get("skipped", []))
        terminalreporter.section(f"skipped on vLLM {version}")
        for reason, count in sorted(reasons.items()):
            terminalreporter.write_line(f"{count:4} {reason}")


def _skip_reason(report: pytest.TestReport) -> str:
    """Why a test was skipped: a skip's report holds path, line and reason."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")
