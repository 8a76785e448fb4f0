"""The command line as a whole: help, exit codes, pipes, what is imported."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from support.examples import ROOT
from vllmchat import ChatParams, VLLMChatParams, __version__
from vllmchat.checking.rules import fields_of
from vllmchat.cli.run import COMMANDS
from vllmchat.cli.wording import in_options
from vllmchat.testing import FakeServer, stall

if TYPE_CHECKING:
    from support.command import CommandLine


def python(code: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )


def test_importing_the_package_imports_neither_click_nor_rich() -> None:
    code = (
        "import sys, vllmchat\n"
        "vllmchat.VLLMProvider, vllmchat.run_job\n"
        "sys.exit(', '.join({'click', 'rich'} & sys.modules.keys()) or 0)"
    )
    done = python(code)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_imports_no_command() -> None:
    code = (
        "import sys\nfrom vllmchat.cli.run import run\nrun(['--help'])\n"
        "late = {'rich', 'pydantic', 'anyio', 'vllmchat.chat.params', 'vllmchat.cli.ask'}\n"
        "sys.exit(', '.join(late & sys.modules.keys()) or 0)"
    )
    done = python(code)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Commands:" in done.stdout


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_it_says_what_to_install(missing: str) -> None:
    code = (
        "import sys\nfrom importlib.machinery import PathFinder\n"
        "find = PathFinder.find_spec\n"
        f"PathFinder.find_spec = lambda name, *rest: None if name == {missing!r} else find(name, *rest)\n"
        "from vllmchat.cli.main import main\nmain()"
    )
    done = python(code)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "vllmchat: the command line is not installed. Install it with: pip install 'vllmchat[cli]'\n"
    )


def test_it_is_a_module_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vllmchat", "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"vllmchat {__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(vllmchat: CommandLine, command: str) -> None:
    code, out, err = vllmchat(command, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: vllmchat {command} [OPTIONS]")
    assert "--url" in out


def test_every_parameter_is_an_option_with_its_text(vllmchat: CommandLine) -> None:
    code, out, _ = vllmchat("ask", "--help-all")
    assert code == 0
    words = " ".join(out.split())
    for name, field in {**fields_of(VLLMChatParams), **fields_of(ChatParams)}.items():
        option = f"--{name.replace('_', '-')}"
        assert re.search(rf"^  (-\w, )?{option}\b", out, re.MULTILINE), option
        if field.since:
            assert f"Since: vLLM {field.since}." in words
    for group_name in ("Sampling", "Reasoning", "Prompt and template", "Output", "Scheduling and transfer"):
        assert f"\n{group_name}:\n" in out
    assert "Range: between 0 and 2. Default: 1.0" in words
    assert "--top-logprobs INTEGER" in out


def test_wrong_usage_is_one_sentence(vllmchat: CommandLine) -> None:
    code, out, err = vllmchat("aks")
    assert (code, out) == (2, "")
    assert "'aks'" in err
    code, out, err = vllmchat("--url", "http://localhost:8000", "ask", "Hi")
    assert (code, out) == (2, "")
    assert "The options of a command stand after it: vllmchat ask --url ..." in err
    code, out, err = vllmchat("map", "only-one.txt")
    assert (code, out) == (2, "")
    assert "OUTPUT" in err


def test_without_a_command_it_prints_its_help(vllmchat: CommandLine) -> None:
    code, out, err = vllmchat()
    assert (code, out) == (2, "")
    assert err.startswith("Usage: vllmchat [OPTIONS] COMMAND")


@pytest.mark.parametrize("seconds", ["0", "-1"])
def test_a_timeout_that_no_request_can_meet_is_rejected(vllmchat: CommandLine, seconds: str) -> None:
    code, _, err = vllmchat("models", "--timeout", seconds)
    assert (code, err) == (
        2,
        f"vllmchat: error: --timeout {seconds}: must be greater than 0.\nSee: vllmchat models --help\n",
    )


def test_a_timeout_is_named_as_the_option(vllmchat: CommandLine) -> None:
    with FakeServer(stall()) as server:
        code, _, err = vllmchat("ask", "Hello", "-m", "m", "--url", server.base_url, "--timeout", "0.2")
    assert code == 1
    assert "within 0.2 s (--timeout)" in err


def test_a_closed_pipe_makes_no_noise(server: FakeServer) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "vllmchat", "models"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate()
    assert (process.returncode, err) == (141, b"")


def test_models_are_a_table_or_json(vllmchat: CommandLine, server: FakeServer) -> None:
    assert vllmchat("models").out == "NAME        CONTEXT  FROM\nfake-model  32,768   fake-model\n"
    assert '"max_model_len": 32768' in vllmchat("models", "--json").out
    server.on("/v1/models", {"object": "list", "data": []})
    code, out, err = vllmchat("models")
    assert (code, out) == (0, "")
    assert err == f"vllmchat: {server.base_url} serves no model.\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("requires logprobs=True", "requires --logprobs"),
        ("set `top_k` and top_k", "set --top-k and top_k"),
        ("write top_k=5, or model=", "write --top-k 5, or --model"),
        ("allow more with timeout=Timeout(idle=...)", "allow more with --timeout"),
        ('extra_body={"top_k": 3}', "--extra-body '{\"top_k\": 3}'"),
        ("stream=True is unknown=here", "stream=True is unknown=here"),
        ("enable_thinking=False", "--no-enable-thinking"),
    ],
)
def test_parameters_become_options(text: str, shown: str) -> None:
    names = {"model": "--model"}
    names |= {name: f"--{name.replace('_', '-')}" for name in fields_of(VLLMChatParams)}
    assert in_options(text, names) == shown


def test_words_are_completed() -> None:
    env = {
        "_VLLMCHAT_COMPLETE": "bash_complete",
        "COMP_WORDS": "vllmchat ask --reasoning-effort m",
        "COMP_CWORD": "3",
    }
    done = python("import sys; sys.argv[0] = 'vllmchat'; from vllmchat.cli.main import main; main()", **env)
    assert done.stdout.split() == ["plain,minimal", "plain,medium", "plain,max"], done.stderr


@pytest.mark.parametrize("words", ["vllmchat map ", "vllmchat ask --schema ", "vllmchat ask --api-key-file "])
def test_files_are_completed(words: str) -> None:
    env = {
        "_VLLMCHAT_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split())),
    }
    done = python("import sys; sys.argv[0] = 'vllmchat'; from vllmchat.cli.main import main; main()", **env)
    assert done.stdout.split() == ["file,"], done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a shell")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["ask Hi", "map - -"])
def test_streams_that_are_closed(server: FakeServer, command: str, closed: str) -> None:
    shell = f'exec "{sys.executable}" -m vllmchat {command} --url {server.base_url} {closed}'
    done = subprocess.run(["sh", "-c", shell], input="Hi\n", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("command", ["--help", "ask --help", "models"])
def test_a_full_disk_is_a_sentence(server: FakeServer, command: str) -> None:
    shell = f'exec "{sys.executable}" -m vllmchat {command} >/dev/full'
    env = {**os.environ, "VLLM_BASE_URL": server.base_url}
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=False, env=env)
    assert (done.returncode, done.stderr) == (1, "vllmchat: error: No space left on device\n")


def test_the_script_is_installed() -> None:
    assert 'vllmchat = "vllmchat.cli.main:main"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_a_warning_is_a_line(
    vllmchat: CommandLine, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLMCHAT_LOG", "loud")
    code, out, err = vllmchat("models")
    assert code == 0
    assert out
    assert err.startswith("vllmchat: warning: VLLMCHAT_LOG='loud' is not a level")
    assert len(err.splitlines()) == 1
