"""What type checkers say of the public names is what the files next to this one expect, to the line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from vllmchat import (
    AsyncChatStream,
    AsyncProvider,
    ChatStream,
    OpenAIProvider,
    Provider,
    SyncProvider,
    VLLMProvider,
)
from vllmchat.types import AsyncChunks, SyncChunks

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
IGNORE = re.compile(r"\s*# type: ignore\[[^]]*\]")


def mypy(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mypy", "--no-error-summary", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_expected_errors_are_those_that_there_are(tmp_path: Path) -> None:
    files = sorted(path for path in HERE.glob("*.py") if path != Path(__file__))
    assert files
    # As they are, nothing is said: neither of an error that has no ignore, nor of an ignore that has no error.
    checked = mypy(*files)
    assert checked.stdout + checked.stderr == ""
    # Without its ignores, each of the lines is an error.
    bare: list[Path] = []
    expected: set[tuple[str, int]] = set()
    for path in files:
        text = path.read_text("utf-8")
        bare.append(tmp_path / path.name)
        bare[-1].write_text(IGNORE.sub("", text), "utf-8")
        lines = enumerate(text.splitlines(), 1)
        expected |= {(path.name, number) for number, line in lines if IGNORE.search(line)}
    found = {
        (Path(name).name, int(number))
        for name, number in re.findall(r"^([^:\n]+):(\d+): error:", mypy(*bare).stdout, re.MULTILINE)
    }
    assert expected
    assert found == expected


@pytest.mark.parametrize("provider", [VLLMProvider("m"), OpenAIProvider("m")])
def test_our_providers_are_providers_at_run_time(provider: object) -> None:
    assert isinstance(provider, Provider)
    assert isinstance(provider, SyncProvider)
    assert isinstance(provider, AsyncProvider)


class Parrot:
    """Knows nothing of this library."""

    name = "parrot"

    def chat(self) -> None: ...

    def stream(self) -> None: ...

    def close(self) -> None: ...


class AsyncParrot:
    name = "parrot"

    async def achat(self) -> None: ...

    def astream(self) -> None: ...

    async def aclose(self) -> None: ...


class TwoParrots(Parrot, AsyncParrot):
    pass


@pytest.mark.parametrize(
    ("made", "kinds"),
    [
        (Parrot(), {SyncProvider}),
        (AsyncParrot(), {AsyncProvider}),
        (TwoParrots(), {SyncProvider, AsyncProvider, Provider}),
        (object(), set[type]()),
    ],
)
def test_any_class_with_the_methods_is_one_at_run_time(made: object, kinds: set[type]) -> None:
    for kind in (SyncProvider, AsyncProvider, Provider):
        assert isinstance(made, kind) is (kind in kinds)


def test_our_streams_are_what_providers_give() -> None:
    llm = VLLMProvider("m")
    stream, astream = llm.stream("Hello"), llm.astream("Hello")
    assert isinstance(stream, ChatStream)
    assert isinstance(stream, SyncChunks)
    assert not isinstance(stream, AsyncChunks)
    assert isinstance(astream, AsyncChatStream)
    assert isinstance(astream, AsyncChunks)
    assert not isinstance(astream, SyncChunks)
