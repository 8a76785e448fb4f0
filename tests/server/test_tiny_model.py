"""The real server with the tiny model answers what `dialogues.json` says: what all other tests of it rest on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from support.vllm import LiveServer
    from tiny_model.dialogues import Dialogue


def ask(server: LiveServer, dialogue: Dialogue, system: str | None, *, thinking: bool) -> dict[str, Any]:
    body: dict[str, Any] = {
        "messages": dialogue.with_system(system),
        "temperature": 0,
        "chat_template_kwargs": {"enable_thinking": thinking},
    }
    if dialogue.tools:
        body["tools"] = list(dialogue.tools)
    answer = httpx.post(f"{server.base_url}/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    message: dict[str, Any] = answer.json()["choices"][0]["message"]
    return message


@pytest.mark.parametrize("thinking", [True, False])
def test_every_known_answer_comes_back(vllm_server: LiveServer, thinking: bool) -> None:
    script = vllm_server.dialogues
    cases: list[tuple[Dialogue, str | None]] = [
        (dialogue, system) for dialogue in script.dialogues for system in script.system_prompts
    ]
    with ThreadPoolExecutor(16) as pool:
        got = list(pool.map(partial(ask, vllm_server, thinking=thinking), *zip(*cases, strict=True)))
    for (dialogue, system), message in zip(cases, got, strict=True):
        where = (dialogue.name, system)
        assert message["content"] == dialogue.content(thinking=thinking), where
        assert message["reasoning"] == dialogue.thoughts(thinking=thinking), where
        calls: list[dict[str, Any]] = [call["function"] for call in message.get("tool_calls", [])]
        assert calls == [
            {"name": call.name, "arguments": call.arguments_json} for call in dialogue.tool_calls
        ], where
