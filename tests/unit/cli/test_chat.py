"""`vllmchat chat`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from vllmchat.testing import FakeServer, error, reply, stall

if sys.platform == "win32":
    pytest.skip("terminals of another kind", allow_module_level=True)

from support.terminal import rest, terminal

if TYPE_CHECKING:
    from pathlib import Path

    from support.command import CommandLine
    from vllmchat.testing import Call

PROMPT = "> "


def test_each_line_of_a_pipe_is_a_message(vllmchat: CommandLine, server: FakeServer) -> None:
    done = vllmchat("chat", "--system", "Be terse.", stdin="Hello\n\nAnd now?\n")
    assert done == (0, "You said: Hello\nYou said: And now?\n", "")
    assert [dict(message) for message in server.calls[1].messages] == [
        {"role": "system", "content": "Be terse."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "You said: Hello"},
        {"role": "user", "content": "And now?"},
    ]


def test_an_error_ends_a_pipe(vllmchat: CommandLine) -> None:
    with FakeServer([error(400, "too hard"), "unused"]) as server:
        code, out, err = vllmchat("chat", "--url", server.base_url, stdin="one\ntwo\n")
    assert (code, out) == (1, "")
    assert "too hard" in err
    assert len(server.calls) == 1


def test_a_conversation(server: FakeServer, tmp_path: Path) -> None:
    with terminal("chat", "--temperature", "0", home=tmp_path) as child:
        child.expect_exact(f"vllmchat: talking to fake-model at {server.base_url}.")
        child.expect(PROMPT)
        child.sendline("Hello")
        child.expect_exact("You said: Hello\r\n")
        child.sendline('"""two')
        child.sendline('lines"""')
        child.expect_exact("You said: two\r\nlines\r\n")
        child.sendline("/system Be terse.")
        child.sendline("/nonsense")
        child.expect_exact("/nonsense is not a command. /help lists them.")
        child.sendline("/etc/hosts is what?")
        child.expect_exact("You said: /etc/hosts is what?")
        child.sendline(f"/save {tmp_path / 'talk.json'}")
        child.expect_exact("saved to")
        child.sendline("/reset")
        child.expect_exact("the conversation is forgotten")
        child.sendline("Again")
        child.expect_exact("You said: Again\r\n")
        child.expect(PROMPT)
        child.sendeof()
        assert "Traceback" not in rest(child)
        assert child.exitstatus == 0
    assert [call.params["temperature"] for call in server.calls] == [0] * 4
    assert [len(call.messages) for call in server.calls] == [1, 3, 6, 2]
    saved: list[dict[str, Any]] = json.loads((tmp_path / "talk.json").read_text(encoding="utf-8"))
    assert [each["role"] for each in saved] == ["system", *["user", "assistant"] * 3]
    assert saved[0]["content"] == "Be terse."
    history = tmp_path / "vllmchat" / "history"
    assert "Hello\n" in history.read_text(encoding="utf-8")
    assert history.stat().st_mode & 0o077 == 0


def stopping(call: Call) -> Any:
    return stall("One two three", after=2) if call.text == "Count" else f"{len(call.messages)} messages"


def test_ctrl_c_stops_the_reply_and_keeps_the_conversation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeServer(stopping) as server:
        monkeypatch.setenv("VLLM_BASE_URL", server.base_url)
        with terminal("chat", home=tmp_path) as child:
            child.expect(PROMPT)
            child.sendline("Count")
            child.expect_exact("One")
            child.sendintr()
            child.expect_exact("vllmchat: stopped.")
            server.wait_abandoned()
            child.expect(PROMPT)
            child.sendline("And?")
            child.expect_exact("3 messages\r\n")
            child.expect(PROMPT)
            child.sendintr()
            child.expect_exact("Ctrl-D leaves.")
            child.expect(PROMPT)
            child.sendeof()
            rest(child)
            assert child.exitstatus == 0
        assert server.calls[1].messages[1] == {"role": "assistant", "content": "One"}


def test_an_error_leaves_the_conversation_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeServer([error(400, "out of \x1b[5m luck"), reply("Fine.", reasoning="Hm \x1b[2J.")]) as server:
        monkeypatch.setenv("VLLM_BASE_URL", server.base_url)
        with terminal("chat", home=tmp_path) as child:
            child.expect(PROMPT)
            child.sendline("Hello")
            child.expect_exact("out of ␛[5m luck")
            child.expect(PROMPT)
            child.sendline("Hello again")
            child.expect_exact("\x1b[2mHm")
            child.expect_exact("Fine.")
            child.expect(PROMPT)
            child.sendline("/exit")
            rest(child)
            assert child.exitstatus == 0
        assert len(server.calls[1].messages) == 1


def test_without_a_server_it_says_so_before_anything_is_typed(tmp_path: Path) -> None:
    with terminal("chat", "--url", "http://127.0.0.1:9", home=tmp_path, columns=300) as child:
        text = rest(child)
    assert child.exitstatus == 1
    assert text.startswith("vllmchat: error: no connection to http://127.0.0.1:9/v1/models")
    assert len(text.splitlines()) == 1
