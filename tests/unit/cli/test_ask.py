"""`vllmchat ask`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from support.terminal import rest, terminal
from vllmchat.testing import FakeServer, error, reply, slow, stall, tool_call

if TYPE_CHECKING:
    from pathlib import Path

    from support.command import CommandLine


def test_the_reply_goes_to_stdout_and_ends_with_a_line_break(
    vllmchat: CommandLine, server: FakeServer
) -> None:
    assert vllmchat("ask", "Hello", "there") == (0, "You said: Hello there\n", "")
    assert server.calls[0].stream


def test_a_pipe_is_added_to_the_question(vllmchat: CommandLine, server: FakeServer) -> None:
    assert vllmchat("ask", "Summarize:", stdin="a text\n").out == "You said: Summarize:\n\na text\n"
    assert vllmchat("ask", "-", stdin="only this\n").out == "You said: only this\n"


@pytest.mark.parametrize("stdin", [None, "  \n"])
def test_without_a_question_it_says_how_to_ask(
    vllmchat: CommandLine, server: FakeServer, stdin: str | None
) -> None:
    code, out, err = vllmchat("ask", stdin=stdin)
    assert (code, out) == (2, "")
    assert 'Write: vllmchat ask "..."' in err
    assert server.requests == []


def test_parameters_are_sent_by_their_names(vllmchat: CommandLine, server: FakeServer) -> None:
    done = vllmchat(
        *(
            "ask",
            "Hi",
            "--system",
            "Be terse.",
            "--temperature",
            "0.2",
            "--top-k",
            "20",
            "--max-tokens",
            "50",
        ),
        *("--stop", "a,b", "--stop", "c", "--stop-token-ids", "1,2", "--stop-token-ids", "3"),
        *("--ignore-eos", "--no-skip-special-tokens", "--no-enable-thinking"),
        *("--logit-bias", '{"5": -1.5}', "--reasoning-effort", "low"),
    )
    assert done.code == 0, done.err
    sent = server.calls[0].params
    expected = {
        "temperature": 0.2,
        "top_k": 20,
        "max_tokens": 50,
        "stop": ["a,b", "c"],
        "stop_token_ids": [1, 2, 3],
        "ignore_eos": True,
        "skip_special_tokens": False,
        "chat_template_kwargs": {"enable_thinking": False},
        "logit_bias": {"5": -1.5},
        "reasoning_effort": "low",
    }
    assert {name: sent[name] for name in expected} == expected
    assert server.calls[0].messages[0] == {"role": "system", "content": "Be terse."}


def test_json_is_read_from_a_file(vllmchat: CommandLine, server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "body.json").write_text('{"new_field": [1]}', encoding="utf-8")
    assert vllmchat("ask", "Hi", "--extra-body", f"@{tmp_path / 'body.json'}").code == 0
    assert server.calls[0].params["new_field"] == [1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--temperature", "5"), "--temperature 5.0: must be between 0 and 2."),
        (("--temperature", "hot"), "--temperature: 'hot' is not a number."),
        (("--top-k", "2.5"), "--top-k: '2.5' is not an integer."),
        (("--seed", "nan"), "--seed: 'nan' is not an integer."),
        (("--stop-token-ids", "1;2"), "such as 1,2"),
        (("--logit-bias", '{"1":'), "--logit-bias: it is not JSON: Expecting value at character 6."),
        (("--extra-body", "@/no/such/file"), "--extra-body: /no/such/file: No such file or directory"),
        (("--tool-choice", "auto"), "--tool-choice 'auto': "),
        (("--regex", "a", "--schema", "{}"), "--schema and --regex are both constraints"),
        (("--schema", "/no/such.json"), "--schema /no/such.json: No such file or directory"),
        (("--schema", "{"), "--schema: it is not JSON"),
        (("--url", "localhost:99"), "--url 'localhost:99' has no scheme: write 'http://localhost:99'"),
        (("--api-key-file", "/no/such"), "--api-key-file /no/such: No such file or directory"),
        (("--api-key", "x"), "No such option"),
        (("--temperatur", "1"), "--temperature"),
        (
            ("--provider", "openai", "--top-k", "3"),
            "not of OpenAI's API. Use --provider vllm, or write --extra-body '{\"top_k\": 3}'.",
        ),
    ],
)
def test_what_is_wrong_is_said_with_the_option(
    vllmchat: CommandLine, server: FakeServer, arguments: tuple[str, ...], sentence: str
) -> None:
    code, out, err = vllmchat("ask", "Hi", *arguments)
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.endswith("See: vllmchat ask --help\n")
    assert server.calls == []


def test_all_problems_are_said_at_once(vllmchat: CommandLine, server: FakeServer) -> None:
    err = vllmchat("ask", "Hi", "--temperature", "5", "--min-p", "2").err
    assert "--temperature 5.0: must be" in err
    assert "--min-p 2.0: must be" in err


def test_several_models_are_an_error_that_names_the_option(
    vllmchat: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeServer("Hi") as server:
        cards = [{"id": "a", "root": "a"}, {"id": "b", "root": "b"}]
        server.on("/v1/models", {"object": "list", "data": cards})
        monkeypatch.setenv("VLLM_BASE_URL", server.base_url)
        code, _, err = vllmchat("ask", "Hi")
        assert code == 2
        assert "the server serves a, b: set --model to one of them" in err
        assert vllmchat("ask", "Hi", "-m", "b").code == 0


def test_constraints_have_short_options(vllmchat: CommandLine, server: FakeServer, tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    (tmp_path / "schema.json").write_text(json.dumps(schema), encoding="utf-8")
    for given in (str(tmp_path / "schema.json"), json.dumps(schema)):
        assert vllmchat("ask", "Hi", "--schema", given).code == 0
        sent = server.calls[-1].params["response_format"]
        assert sent == {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}
    assert vllmchat("ask", "Hi", "--regex", "[ab]").code == 0
    assert server.calls[-1].params["structured_outputs"] == {"regex": "[ab]"}


def test_the_whole_reply_as_json(vllmchat: CommandLine, server: FakeServer) -> None:
    code, out, err = vllmchat("ask", "Hi", "--json", "--n", "2")
    assert (code, err) == (0, "")
    assert [choice["message"]["content"] for choice in json.loads(out)["choices"]] == ["You said: Hi"] * 2


def test_several_replies_are_printed_one_after_the_other(vllmchat: CommandLine, server: FakeServer) -> None:
    code, out, err = vllmchat("ask", "Hi", "--n", "2")
    assert (code, out) == (0, "You said: Hi\nYou said: Hi\n")
    assert err == "[0]\n[1]\n"


def test_images_are_sent(vllmchat: CommandLine, server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(8))
    assert vllmchat("ask", "What is this?", "--image", str(tmp_path / "a.png")).code == 0
    assert '"url": "data:image/png;base64,' in json.dumps(server.calls[0].messages[0])
    code, _, err = vllmchat("ask", "What is this?", "--image", str(tmp_path / "none.png"))
    assert code == 2
    assert "none.png: no such file\n" in err


THINKING = reply("\n\nParis.", reasoning="France, so Paris.")


def test_reasoning_is_left_out_of_a_pipe(vllmchat: CommandLine, server: FakeServer) -> None:
    with FakeServer(THINKING) as thinking:
        assert vllmchat("ask", "Capital?", "--url", thinking.base_url) == (0, "Paris.\n", "")
        shown = vllmchat("ask", "Capital?", "--url", thinking.base_url, "--reasoning")
        assert shown == (0, "Paris.\n", "France, so Paris.\n\n")


@pytest.mark.parametrize("stream", ["--stream", "--no-stream"])
def test_a_reply_cut_off_in_its_reasoning_says_so(vllmchat: CommandLine, stream: str) -> None:
    with FakeServer(reply("", reasoning="France, so", finish_reason="length")) as server:
        code, out, err = vllmchat("ask", "Capital?", "--url", server.base_url, stream)
    assert (code, out) == (0, "")
    assert "while the model was reasoning" in err
    assert "--no-enable-thinking" in err


def test_reasoning_is_dimmed_on_a_terminal(vllmchat: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    vllmchat.terminal = True
    with FakeServer(THINKING) as thinking:
        code, out, err = vllmchat("ask", "Capital?", "--url", thinking.base_url)
        assert (code, out) == (0, "Paris.\n")
        assert "\x1b[2mFrance" in err
        monkeypatch.setenv("NO_COLOR", "1")
        assert vllmchat("ask", "Capital?", "--url", thinking.base_url).err == "France, so Paris.\n\n"
        assert vllmchat("ask", "Capital?", "--url", thinking.base_url, "--no-reasoning").err == ""


EVIL = "\x1b]0;pwned\x07[bold]x[/bold]\x9b31m\r\n"


def test_a_reply_cannot_drive_the_terminal(vllmchat: CommandLine) -> None:
    with FakeServer(EVIL) as server:
        assert vllmchat("ask", "Hi", "--url", server.base_url).out == EVIL, "a pipe gets what the model wrote"
        vllmchat.terminal = True
        out = vllmchat("ask", "Hi", "--url", server.base_url).out
        assert out == "␛]0;pwned␇[bold]x[/bold]\ufffd31m\n"


def test_an_error_of_the_server_cannot_drive_the_terminal(vllmchat: CommandLine) -> None:
    with FakeServer(error(400, "bad \x1b[31m thing")) as server:
        code, out, err = vllmchat("ask", "Hi", "--url", server.base_url)
        assert (code, out) == (1, "")
        assert "bad ␛[31m thing" in err
        assert "\x1b" not in err


def test_a_server_that_is_down_is_one_sentence(vllmchat: CommandLine) -> None:
    code, out, err = vllmchat("ask", "Hi", "--url", "http://127.0.0.1:9")
    assert (code, out) == (1, "")
    assert err.startswith("vllmchat: error: no connection to http://127.0.0.1:9/v1")
    assert len(err.splitlines()) == 1


def test_a_timeout_names_the_option(vllmchat: CommandLine) -> None:
    with FakeServer(stall("Hello")) as server:
        code, _, err = vllmchat("ask", "Hi", "--url", server.base_url, "--timeout", "0.2")
        assert code == 1
        assert "did not finish within 0.2 s" in err


def test_a_key_is_sent_and_never_printed(
    vllmchat: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As Windows writes it.
    (tmp_path / "key").write_bytes(b"\xef\xbb\xbfsk-secret\r\n")
    with FakeServer("Hi", api_key="sk-secret") as server:
        asked = ("ask", "Hi", "--url", server.base_url)
        command = [sys.executable, "-m", "vllmchat", *asked, "--api-key-file", str(tmp_path / "key"), "-vv"]
        logged = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (logged.returncode, logged.stdout) == (0, "Hi\n")
        assert "POST" in logged.stderr
        assert "sk-" not in logged.stderr
        monkeypatch.setenv("VLLM_API_KEY", "sk-other")
        done = vllmchat(*asked)
        assert done.code == 1
        assert "401" in done.err
        assert "sk-" not in done.err


def test_a_tool_call_is_printed(vllmchat: CommandLine) -> None:
    tools = '[{"type": "function", "function": {"name": "get_weather", "parameters": {}}}]'
    with FakeServer(tool_call("get_weather", {"city": "Paris"})) as server:
        for more in ((), ("--no-stream",)):
            done = vllmchat("ask", "Weather?", "--url", server.base_url, "--tools", tools, *more)
            assert done == (0, 'get_weather({"city":"Paris"})\n', "")


def test_a_reply_that_was_cut_off_is_noted(vllmchat: CommandLine) -> None:
    with FakeServer(reply("Once upon", finish_reason="length")) as server:
        code, out, err = vllmchat("ask", "Hi", "--url", server.base_url, "--max-tokens", "2")
        assert (code, out) == (0, "Once upon\n")
        assert "--max-tokens" in err


@pytest.mark.skipif(sys.platform == "win32", reason="terminals of another kind")
@pytest.mark.parametrize("after", [0, 2])
def test_ctrl_c_ends_it_without_noise(tmp_path: Path, after: int) -> None:
    with (
        FakeServer(stall("One two three", after=after)) as server,
        terminal("ask", "Count", "--url", server.base_url, home=tmp_path) as child,
    ):
        if after:
            child.expect_exact("One")
        else:
            server_has_the_request(server)
        child.sendintr()
        text = rest(child)
        assert child.exitstatus == 130
        assert text.strip() in ("", "^C")
        server.wait_abandoned()


def server_has_the_request(server: FakeServer) -> None:
    while not server.calls:
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of another kind")
def test_a_reader_that_leaves_early_stops_the_server(server: FakeServer) -> None:
    with FakeServer(slow("word " * 1_000, between=0.01)) as endless:
        pipe = '"$0" -m vllmchat ask Hi --url "$1" | head -c 4; exit "${PIPESTATUS[0]}"'
        done = subprocess.run(
            ["bash", "-c", pipe, sys.executable, endless.base_url], capture_output=True, check=False
        )
        endless.wait_abandoned()
    assert (done.returncode, done.stdout, done.stderr) == (141, b"word", b"")
