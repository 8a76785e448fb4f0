"""Environments that are installed once per machine."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

import cached_env
from cached_env import Builder, CachedEnvironment, InstallError

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("VLLMCHAT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Recipe:
    """An environment that is built by making its interpreter, and counts how often."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.built = 0
        self.fails = False
        self.environment = CachedEnvironment(
            title="Thing 1", name="thing-1", cost="no time", build=self.build
        )

        def make(_builder: Builder, _what: str, *command: str | Path) -> None:
            python = Path(command[-1]) / "bin" / "python"
            python.parent.mkdir(parents=True)
            python.touch()

        monkeypatch.setattr(Builder, "must", make)

    def build(self, builder: Builder) -> None:
        assert builder.python.exists()
        (builder.folder / f"try-{self.built}").touch()
        self.built += 1
        if self.fails:
            raise KeyboardInterrupt


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    return Recipe(monkeypatch)


def test_it_is_installed_once(recipe: Recipe) -> None:
    said: list[str] = []
    assert recipe.environment.installed_python() is None
    python = recipe.environment.install(say=said.append)
    assert python == recipe.environment.installed_python()
    assert recipe.environment.install(say=said.append) == python
    assert recipe.built == 1
    assert "Thing 1" in said[0]
    assert len(said) == 2


def test_an_interrupted_installation_is_done_again_from_nothing(recipe: Recipe) -> None:
    recipe.fails = True
    with pytest.raises(KeyboardInterrupt):
        recipe.environment.install(say=lambda _: None)
    assert recipe.environment.installed_python() is None
    recipe.fails = False
    recipe.environment.install(say=lambda _: None)
    assert recipe.built == 2
    assert not (recipe.environment.folder / "try-0").exists()


def test_one_of_another_python_serves_as_well(recipe: Recipe, cache: Path) -> None:
    other = cache / "thing-1-py3.99"
    (other / "bin").mkdir(parents=True)
    (other / "bin" / "python").touch()
    assert recipe.environment.installed_python() is None, "it is not complete"
    (other / "installed").touch()
    assert recipe.environment.install() == other / "bin" / "python"
    assert recipe.built == 0


def test_who_comes_second_waits(recipe: Recipe) -> None:
    said: list[str] = []
    waits = threading.Event()

    def say(line: str) -> None:
        said.append(line)
        waits.set()

    def install() -> None:
        recipe.environment.install(say=say)

    folder = recipe.environment.folder
    second = threading.Thread(target=install)
    with cached_env.lock(folder.with_name(f"{folder.name}.lock"), say, "never said"):
        second.start()
        assert waits.wait(10)
        assert recipe.built == 0
    second.join(10)
    assert said[0] == "another process is installing Thing 1; waiting for it ..."
    assert recipe.built == 1


def test_a_command_that_fails_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w", encoding="utf-8") as log:
        builder = Builder("Thing 1", tmp_path / "env", lambda _: None, log)
        assert builder.attempt(sys.executable, "-c", "print('fine')")
        with pytest.raises(
            InstallError, match=r"(?s)^Thing 1 could not be installed: making tea failed\..*no water$"
        ):
            builder.must("making tea", sys.executable, "-c", "import sys; sys.exit('no water')")
    assert "fine" in (tmp_path / "log").read_text(encoding="utf-8")


def test_the_builder_is_not_led_astray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    with (tmp_path / "log").open("w", encoding="utf-8") as log:
        builder = Builder("Thing 1", tmp_path / "env", lambda _: None, log)
        assert builder.attempt(sys.executable, "-c", "import os, sys; sys.exit('PYTHONPATH' in os.environ)")


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"VLLMCHAT_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, Path("/a")),
        ({"VLLMCHAT_CACHE": "", "XDG_CACHE_HOME": "/b"}, Path("/b/vllmchat")),
        ({}, Path.home() / ".cache" / "vllmchat"),
    ],
)
def test_where_the_cache_is(environ: dict[str, str], folder: Path) -> None:
    assert cached_env.cache_dir(environ) == folder


def test_the_end_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert cached_env.log_end(log) == f"There is no log ({log})."
    log.touch()
    assert cached_env.log_end(log) == f"Its log is empty ({log})."
    log.write_bytes(b"".join(b"line %d \xff\n" % number for number in range(100)))
    assert cached_env.log_end(log, lines=2) == f"The end of its log ({log}):\nline 98 \ufffd\nline 99 \ufffd"
