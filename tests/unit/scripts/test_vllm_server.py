"""The script that starts real servers, tried with a small program in vLLM's place."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import locks
import vllm_releases
import vllm_server
from cached_env import Builder, InstallError
from vllm_releases import RELEASES
from vllm_server import Options, Server, ServerError, load, running, servers, start, stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.slow

FAKE_SERVER = """\
import http.server, signal, subprocess, sys

mode, port = sys.argv[1], int(sys.argv[2])
print("hello from the fake server", flush=True)
if mode == "dies":
    sys.exit("no such model")
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
# Another process of the group, as vLLM's engine is one; the pipe to it lets a test see when it has ended.
subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if mode == "never ready" else 200)
        self.end_headers()

http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def quiet(_line: str) -> None:
    """Takes lines of progress and shows none."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("VLLMCHAT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The small program in vLLM's place; `served_model_name` says how it behaves."""
    program = tmp_path / "fake.py"
    program.write_text(FAKE_SERVER, encoding="utf-8")

    def command(python: Path, options: Options, port: int) -> list[str]:
        return [str(python), str(program), options.served_model_name, str(port)]

    def install(version: str, *, say: object) -> Path:
        return Path(sys.executable)

    monkeypatch.setattr(vllm_server, "install", install)
    monkeypatch.setattr(vllm_server, "server_command", command)
    yield
    for server in servers():
        stop(server)


def group_lives(group: int) -> bool:
    """Whether a process group has a member that is not a zombie."""
    listing = subprocess.run(["ps", "-A", "-o", "pgid=,stat="], capture_output=True, text=True, check=True)
    rows = [line.split() for line in listing.stdout.splitlines()]
    return any(row[0] == str(group) and not row[1].startswith("Z") for row in rows)


class TestCommandLine:
    def test_it_serves_the_tiny_model_with_reasoning_and_tools(self) -> None:
        command = vllm_server.server_command(Path("/venv/bin/python"), Options(), 8123)
        assert command[:3] == ["/venv/bin/python", "-m", "vllm.entrypoints.openai.api_server"]
        pairs = dict(pairwise(command))
        assert pairs["--port"] == "8123"
        assert pairs["--host"] == "127.0.0.1"
        assert pairs["--model"] == str(vllm_server.TINY_MODEL)
        assert pairs["--served-model-name"] == "tiny-qwen3"
        assert pairs["--reasoning-parser"] == "qwen3"
        assert pairs["--tool-call-parser"] == "hermes"
        assert "--enable-scale-out" not in command

    def test_a_pooling_server_has_no_parsers(self) -> None:
        command = vllm_server.server_command(Path("python"), Options(pooling=True, scale_out=True), 1)
        assert command[-5:] == ["--runner", "pooling", "--convert", "embed", "--enable-scale-out"]
        assert "--reasoning-parser" not in command

    def test_what_the_user_adds_comes_last(self) -> None:
        command = vllm_server.server_command(Path("python"), Options(extra_args=("--max-model-len", "99")), 1)
        assert command[-2:] == ["--max-model-len", "99"]

    def test_the_key_is_in_the_environment_only(self) -> None:
        options = Options(api_key="very-secret", dev_mode=True)
        assert "very-secret" not in " ".join(vllm_server.server_command(Path("python"), options, 1))
        env = vllm_server.server_environment(options, {})
        assert env["VLLM_API_KEY"] == "very-secret"
        assert env["VLLM_SERVER_DEV_MODE"] == "1"

    def test_adapters_need_an_argument_and_a_variable(self) -> None:
        options = Options(lora=True)
        assert "--enable-lora" in vllm_server.server_command(Path("python"), options, 1)
        assert vllm_server.server_environment(options, {})["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
        assert "--enable-lora" not in vllm_server.server_command(Path("python"), Options(), 1)

    def test_settings_of_clients_do_not_reach_the_server(self) -> None:
        ambient = {"PATH": "/bin", "VLLM_API_KEY": "client", "PYTHONPATH": "src", "VIRTUAL_ENV": ".venv"}
        env = vllm_server.server_environment(Options(), ambient)
        assert env["PATH"] == "/bin"
        assert not {"VLLM_API_KEY", "PYTHONPATH", "VIRTUAL_ENV", "VLLM_SERVER_DEV_MODE"} & set(env)
        assert env["HF_HUB_OFFLINE"] == "1"

    def test_arguments_become_options(self, tmp_path: Path) -> None:
        argv = [
            "start",
            "--name",
            "a",
            "--model",
            str(tmp_path),
            "--port",
            "9",
            "--api-key",
            "k",
            "--pooling",
        ]
        arguments = vllm_server.parse([*argv, "--", "--seed", "3"])
        assert vllm_server.options_from(arguments) == Options(
            name="a", model=tmp_path, port=9, api_key="k", pooling=True, extra_args=("--seed", "3")
        )
        assert vllm_server.options_from(vllm_server.parse(["run", "--version", "0.19.1"])).version == "0.19.1"

    def test_the_defaults_of_both_are_the_same(self) -> None:
        assert vllm_server.options_from(vllm_server.parse(["run"])) == Options()

    def test_the_playground_is_what_the_examples_need(self) -> None:
        options = vllm_server.options_from(vllm_server.parse(["start", "--playground"]))
        assert options == vllm_server.playground()
        command = vllm_server.server_command(Path("python"), options, 1)
        names = command.index("--served-model-name")
        assert command[names + 1 : names + 3] == ["tiny-qwen3", "Qwen/Qwen3-4B"]
        assert "--enable-scale-out" in command
        assert vllm_server.server_environment(options, {})["VLLM_SERVER_DEV_MODE"] == "1"
        rules = (vllm_server.TINY_MODEL.parents[2] / "Makefile").read_text(encoding="utf-8")
        assert "vllm_server.py start --playground)" in rules

    def test_more_options_can_be_added_to_the_playground(self) -> None:
        argv = ["start", "--playground", "--alias", "other", "--lora"]
        options = vllm_server.options_from(vllm_server.parse(argv))
        assert options == replace(vllm_server.playground(), aliases=("Qwen/Qwen3-4B", "other"), lora=True)

    def test_stop_takes_nothing_for_vllm(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            vllm_server.parse(["stop", "--", "--seed", "3"])
        assert "takes no arguments for vLLM" in capsys.readouterr().err


class TestState:
    server = Server(name="a", pid=1, born="2", port=3, model="m", log=Path("/l"), options="d")

    def test_it_comes_back_as_it_was_saved(self) -> None:
        self.server.save()
        assert load("a") == self.server
        assert servers() == [self.server]
        assert self.server.base_url == "http://127.0.0.1:3/v1"

    def test_no_state_is_no_server(self) -> None:
        assert load("a") is None
        assert servers() == []

    @pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"name": "a", "log": "x"}'])
    def test_a_state_that_cannot_be_read_is_no_server(self, text: str) -> None:
        self.server.save()
        vllm_server.state_file("a").write_text(text, encoding="utf-8")
        assert load("a") is None

    @pytest.mark.parametrize("name", ["", "../a", "a/b", ".hidden", "a b"])
    def test_a_name_stays_in_its_folder(self, name: str) -> None:
        with pytest.raises(ServerError, match="is not a name for a server"):
            vllm_server.state_file(name)

    def test_the_digest_tells_servers_apart_by_what_they_serve(self) -> None:
        same = Options(name="b", port=1, log=Path("/l"))
        assert same.digest() == Options().digest()
        others = [
            Options(api_key="k"),
            Options(dev_mode=True),
            Options(lora=True),
            Options(pooling=True),
            Options(extra_args=("x",)),
            Options(version="0.19.1"),
        ]
        assert len({options.digest() for options in [Options(), *others]}) == 7
        assert "very-secret" not in Options(api_key="very-secret").digest()


class TestReleases:
    def test_a_release_is_listed_under_its_version(self) -> None:
        assert vllm_releases.DEFAULT in RELEASES.values()
        for version, listed in RELEASES.items():
            assert listed.version == version
            assert listed.package.startswith(version)

    def test_they_are_listed_from_the_oldest_to_the_newest(self) -> None:
        assert list(RELEASES) == sorted(
            RELEASES, key=lambda version: [int(part) for part in version.split(".")]
        )

    def test_each_has_an_environment_of_its_own(self) -> None:
        assert len({vllm_server.environment(version).folder for version in RELEASES}) == len(RELEASES)

    def test_a_version_that_is_not_listed(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(
            ServerError, match=r"vLLM 0\.1\.0 is not in scripts/vllm_releases\.py; it lists .*0\.32"
        ):
            vllm_server.environment("0.1.0")
        with pytest.raises(SystemExit):
            vllm_server.parse(["start", "--version", "0.1.0"])
        assert "invalid choice: '0.1.0'" in capsys.readouterr().err

    def test_the_switch_of_the_token_routes_is_given_to_those_that_know_it(self) -> None:
        for version, known in (("0.19.1", False), ("0.30.0", True)):
            options = Options(version=version, scale_out=True)
            assert ("--enable-scale-out" in vllm_server.server_command(Path("python"), options, 1)) is known

    def test_the_size_of_the_cache_is_an_argument_or_a_variable(self) -> None:
        for version, argument in (("0.19.1", False), ("0.32.0", True)):
            options = Options(version=version)
            command = vllm_server.server_command(Path("python"), options, 1)
            assert ("--kv-cache-memory-bytes" in command) is argument
            # What the caller has set for a server of their own does not reach this one.
            env = vllm_server.server_environment(options, {"VLLM_CPU_KVCACHE_SPACE": "40"})
            assert env.get("VLLM_CPU_KVCACHE_SPACE") == (None if argument else "1")


class TestOldForm:
    def test_only_old_releases_get_it_and_only_of_the_tiny_model(self, tmp_path: Path) -> None:
        assert vllm_server.as_served(Options()).model == vllm_server.TINY_MODEL
        assert vllm_server.as_served(Options(version="0.14.1", model=tmp_path)).model == tmp_path
        assert vllm_server.as_served(Options(version="0.14.1")).model != vllm_server.TINY_MODEL

    def test_it_is_the_same_model_in_other_words(self, cache: Path) -> None:
        folder = vllm_server.old_form(vllm_server.TINY_MODEL)
        assert folder.parent == cache / "models"
        names = {path.name for path in vllm_server.TINY_MODEL.iterdir()}
        assert {path.name for path in folder.iterdir()} == names
        new, old = (
            json.loads((each / "config.json").read_text(encoding="utf-8"))
            for each in (vllm_server.TINY_MODEL, folder)
        )
        assert (old["torch_dtype"], old["rope_theta"], old["rope_scaling"]) == (new["dtype"], 10000.0, None)
        assert not {"dtype", "rope_parameters"} & old.keys()
        tokenizer = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
        assert tokenizer["chat_template"] == (folder / "chat_template.jinja").read_text(encoding="utf-8")
        assert "backend" not in tokenizer

    def test_it_is_made_once_for_each_content(self, tmp_path: Path) -> None:
        model = tmp_path / "model"
        shutil.copytree(vllm_server.TINY_MODEL, model)
        folder = vllm_server.old_form(model)
        made = folder.stat().st_mtime_ns
        assert vllm_server.old_form(vllm_server.TINY_MODEL) == folder
        assert folder.stat().st_mtime_ns == made
        (model / "generation_config.json").write_text("{}", encoding="utf-8")
        assert vllm_server.old_form(model) != folder
        assert not list(folder.parent.glob("*.tmp"))


class TestInstall:
    CONSTRAINED = ("install", "--constraint", str(locks.FOLDER / "vllm-0.19.1.constraints.txt"))

    def test_it_installs_the_lock_and_then_torch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        commands = self.commands(monkeypatch, fails=lambda words: False)
        lock_file = locks.FOLDER / "vllm-0.19.1.txt"
        assert commands == [
            ["install", "--no-deps", "-r", str(lock_file)],
            [*self.CONSTRAINED, "torch==2.10.0+cpu"],
        ]
        assert "\nvllm-cpu==0.19.1\n" in lock_file.read_text(encoding="utf-8")

    def test_torch_comes_from_its_own_index_and_at_last_from_pypi(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        commands = self.commands(monkeypatch, fails=lambda words: "torch==2.10.0+cpu" in words)
        assert commands[1:] == [
            [*self.CONSTRAINED, "torch==2.10.0+cpu"],
            [*self.CONSTRAINED, "torch==2.10.0+cpu", "--extra-index-url", vllm_server.TORCH_CPU_INDEX],
            [*self.CONSTRAINED, "torch==2.10.0"],
        ]

    def test_another_system_is_told_that_it_cannot_be_installed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "platform", "darwin")
        with pytest.raises(InstallError, match="for Linux only, and this is darwin"):
            self.commands(monkeypatch, fails=lambda words: False)

    @staticmethod
    def commands(monkeypatch: pytest.MonkeyPatch, fails: Callable[[list[str]], bool]) -> list[list[str]]:
        """What pip is asked for, by an installation in which some of it fails."""
        asked: list[list[str]] = []

        def attempt(self: Builder, *command: str | Path) -> bool:
            words = [str(word) for word in command]
            if "venv" in words:
                self.folder.mkdir()
            if "pip" in words:
                asked.append(words[words.index("--no-input") + 1 :])
            return not fails(words)

        monkeypatch.setattr(Builder, "attempt", attempt)
        vllm_server.install("0.19.1", say=quiet)
        return asked


@pytest.mark.usefixtures("fake")
class TestStart:
    def test_it_is_ready_and_is_found_again(self) -> None:
        said: list[str] = []
        server = start(Options(), say=said.append)
        assert server.is_ready()
        assert start(Options(), say=said.append) == server
        assert said[-2].startswith("already running")
        assert "hello from the fake server" in server.log.read_text(encoding="utf-8")

    def test_it_uses_the_port_it_is_given(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port: int = taken.getsockname()[1]
            with pytest.raises(ServerError, match=f"port {port} cannot be used"):
                start(Options(port=port), say=quiet)
        assert start(Options(port=port), say=quiet).port == port

    def test_another_server_of_that_name_is_not_mistaken_for_it(self) -> None:
        start(Options(), say=quiet)
        with pytest.raises(ServerError, match="runs with other options"):
            start(Options(dev_mode=True), say=quiet)
        with pytest.raises(ServerError, match="runs already"), running(Options(), say=quiet):
            pass

    def test_a_server_that_dies_says_why(self) -> None:
        with pytest.raises(ServerError, match=r"(?s)ended with exit code 1.*hello.*no such model"):
            start(Options(served_model_name="dies"), say=quiet)
        assert servers() == []

    def test_a_server_that_is_never_ready_is_stopped(self) -> None:
        with pytest.raises(ServerError, match=r"(?s)not ready after 0\.5 s.*hello"):
            start(Options(served_model_name="never ready"), say=quiet, timeout=0.5)
        assert servers() == []

    def test_a_dead_one_of_that_name_is_replaced(self) -> None:
        dead = start(Options(), say=quiet)
        os.kill(dead.pid, signal.SIGKILL)
        os.waitpid(dead.pid, 0)
        assert group_lives(dead.pid), "what it left behind"
        again = start(Options(), say=quiet)
        assert again.pid != dead.pid
        assert not group_lives(dead.pid)

    def test_a_preferred_port_is_used_if_it_is_free(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            first = start(Options(name="a", preferred_port=port), say=quiet)
        second = start(Options(name="b", preferred_port=port), say=quiet)
        third = start(Options(name="c", preferred_port=port), say=quiet)
        assert port not in (first.port, third.port)
        assert second.port == port


@pytest.mark.usefixtures("fake")
class TestStop:
    @pytest.mark.parametrize("mode", ["fine", "stubborn"])
    def test_the_whole_group_ends(self, mode: str) -> None:
        server = start(Options(served_model_name=mode), say=quiet)
        assert stop(server, grace=0.2)
        assert not group_lives(server.pid)
        assert load(server.name) is None
        assert not stop(server)

    def test_a_process_that_was_given_the_same_id_is_left_alone(self) -> None:
        with subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True
        ) as other:
            server = Server(name="a", pid=other.pid, born="0", port=3, model="m", log=Path("/l"), options="d")
            server.save()
            assert not server.is_running()
            assert not stop(server)
            assert other.poll() is None
            assert load("a") is None

    def test_all_of_them_from_the_command_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        for name in ("a", "b"):
            start(Options(name=name), say=quiet)
        assert vllm_server.main(["status"]) == 0
        assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [
            ["a:", "ready"],
            ["b:", "ready"],
        ]
        assert vllm_server.main(["stop", "--all"]) == 0
        assert capsys.readouterr().out == "a: stopped\nb: stopped\n"

    def test_an_error_on_the_command_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert vllm_server.main(["start", "--name", "../x"]) == 1
        assert capsys.readouterr().err.startswith("error: '../x' is not a name")


@pytest.mark.usefixtures("fake")
class TestRunning:
    def test_it_lives_as_long_as_the_block(self) -> None:
        with running(Options(), say=quiet) as server:
            assert server.is_ready()
        assert not group_lives(server.pid)
        assert servers() == []

    def test_it_ends_with_an_error_in_the_block(self) -> None:
        pids: list[int] = []
        with contextlib.suppress(ZeroDivisionError), running(Options(), say=quiet) as server:
            pids.append(server.pid)
            raise ZeroDivisionError
        assert not group_lives(pids[0])

    def test_it_ends_with_a_process_that_is_killed(self, tmp_path: Path) -> None:
        code = (
            "import sys, pathlib, vllm_server as v\n"
            "v.install = lambda version, say: pathlib.Path(sys.executable)\n"
            "v.server_command = lambda python, options, port: [str(python), sys.argv[1], 'fine', str(port)]\n"
            "with v.running(v.Options()) as server:\n"
            "    print(server.port, server.pid, flush=True)\n"
            "    input()\n"
        )
        env = os.environ | {"PYTHONPATH": str(Path(vllm_server.__file__).parent)}
        with subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "fake.py")],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as owner:
            assert owner.stdout is not None
            port, pid = map(int, owner.stdout.readline().split())
            with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
                owner.kill()
                # The server's end is closed when it dies: in order, or by a reset.
                with contextlib.suppress(ConnectionResetError):
                    assert connection.recv(1) == b""
        assert not vllm_server.Server(
            name="x", pid=pid, born="", port=port, model="m", log=tmp_path, options=""
        ).is_ready()
