"""Sorting and checking the keys of a backend block."""

from __future__ import annotations

import re
from typing import Any

import pytest

from vllmchat.adapters.massgen import settings
from vllmchat.chat.check import VLLM_CHAT_NAMES
from vllmchat.errors import InvalidRequestError
from vllmchat.http.timeout import Timeout

OWN = frozenset(
    {
        *settings.OWN_NAMES,
        *settings.NOT_FOR_VLLM,
        "agent_id",
        "custom_tools",
        "cwd",
        "llm_circuit_breaker_enabled",
        "mcp_servers",
        "session_id",
        "upload_files",
    }
)
"""MassGen's own options, abridged."""

BLOCK: dict[str, Any] = {
    "type": "vllm",
    "model": "Qwen/Qwen3-4B",
    "base_url": "http://localhost:8000/v1",
    "cwd": "workspace",
    "_config_path": "three.yaml",
    "top_k": 50,
    "enable_thinking": True,
}


def lines(block: dict[str, Any]) -> list[str]:
    """The report for a block."""
    return settings.report(settings.check(block, own=OWN), "agents[1].backend")


def test_the_block_of_the_guide_is_right() -> None:
    block = {**BLOCK, "repetition_penalty": 1.2}
    assert lines(block) == []
    assert settings.parameters(block, {}, own=OWN) == {
        "top_k": 50,
        "repetition_penalty": 1.2,
        "enable_thinking": True,
    }


def test_a_call_takes_precedence_over_the_block() -> None:
    assert settings.parameters(BLOCK, {"top_k": 5, "seed": 1}, own=OWN) == {
        "top_k": 5,
        "enable_thinking": True,
        "seed": 1,
    }


def test_none_is_not_set() -> None:
    assert settings.parameters({"top_k": None, "seed": 1}, {"seed": None}, own=OWN) == {"seed": 1}


def test_what_massgen_passes_with_a_call_is_not_a_parameter() -> None:
    call: dict[str, Any] = {
        "agent_id": "qwen",
        "session_id": "s1",
        "tools": [{}],
        "a_new_option": 1,
        "_compression_retry": True,
    }
    assert settings.parameters({}, call, own=OWN) == {}


def test_the_block_may_have_parameters_whose_names_massgen_uses_too() -> None:
    assert settings.parameters({"session_id": "s1"}, {"session_id": "massgen's"}, own=OWN) == {
        "session_id": "s1"
    }


def test_every_parameter_of_vllm_is_taken_from_the_block() -> None:
    block = dict.fromkeys(VLLM_CHAT_NAMES, "x")
    assert settings.parameters(block, {}, own=OWN) == block


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("repitition_penalty", 1.2, "repetition_penalty"),
        ("topk", 50, "top_k"),
        ("enable_thinkin", True, "enable_thinking"),
        ("max_token", 100, "max_tokens"),
        ("mcp_server", [], "mcp_servers"),
        ("custom_tool", [], "custom_tools"),
        ("base_ulr", "http://x", "base_url"),
        ("llm_circuit_breaker_enable", True, "llm_circuit_breaker_enabled"),
    ],
)
def test_a_misspelled_key_is_reported_with_its_place_and_the_right_name(
    name: str, value: object, meant: str
) -> None:
    (line,) = lines({**BLOCK, name: value})
    assert line.startswith(f"agents[1].backend.{name}")
    assert f"Did you mean `{meant}`?" in line


def test_all_that_is_wrong_is_reported_in_the_order_of_the_block() -> None:
    found = lines({"mcp_server": [], "upload_files": [{"file_path": "a.pdf"}], "temperature": 3, "topk": 50})
    assert [line.split()[0].rstrip(":") for line in found] == [
        f"agents[1].backend.{name}"
        for name in ("mcp_server", "upload_files[0].file_path", "temperature", "topk")
    ]


def test_a_wrong_value_is_reported_before_the_first_request() -> None:
    (line,) = lines({**BLOCK, "temperature": 3})
    assert line == "agents[1].backend.temperature: 3 must be between 0 and 2."


def test_a_contradiction_is_reported_before_the_first_request() -> None:
    (line,) = lines({**BLOCK, "min_tokens": 10, "max_tokens": 5})
    assert line == "agents[1].backend.min_tokens: 10 must be at most max_tokens: 5."


def test_suggestions_use_yaml_syntax() -> None:
    (line,) = lines({**BLOCK, "max_new_tokens": 5})
    assert "`max_tokens: 5`" in line
    (line,) = lines({**BLOCK, "guided_regex": "[0-9]+"})
    assert "structured_outputs: {" in line


@pytest.mark.parametrize("name", settings.NOT_FOR_VLLM)
def test_options_for_other_servers_are_reported(name: str) -> None:
    (line,) = lines({**BLOCK, name: True})
    assert line.startswith(f"agents[1].backend.{name}: true is not an option of a vLLM backend.")
    assert lines({**BLOCK, name: False}) == []


def test_documents_cannot_be_uploaded() -> None:
    files = [{"image_path": "cat.png"}, {"file_path": "report.pdf"}]
    (line,) = lines({**BLOCK, "upload_files": files})
    assert line.startswith("agents[1].backend.upload_files[1].file_path")
    assert "context_paths" in line
    assert lines({**BLOCK, "upload_files": files[:1]}) == []


@pytest.mark.parametrize(
    "choice", ["auto", "required", "none", {"type": "function", "function": {"name": "vote"}}]
)
def test_tool_choice_may_be_given_without_tools(choice: object) -> None:
    assert lines({**BLOCK, "tool_choice": choice}) == []


def test_a_wrong_tool_choice_is_reported() -> None:
    (line,) = lines({**BLOCK, "tool_choice": "vote"})
    assert line.startswith("agents[1].backend.tool_choice")


def test_timeouts_may_be_a_mapping() -> None:
    assert lines({**BLOCK, "timeout": {"first_token": 60, "idle": None}}) == []
    assert settings.with_timeout({"timeout": {"first_token": 60, "idle": None}, "top_k": 1}) == {
        "timeout": Timeout(first_token=60, idle=None),
        "top_k": 1,
    }
    assert settings.with_timeout({"timeout": 30}) == {"timeout": 30}


@pytest.mark.parametrize(
    ("limits", "part"), [({"read": 5}, "connect, first_token, idle, total"), ({"total": -1}, "positive")]
)
def test_wrong_timeouts_are_reported(limits: dict[str, Any], part: str) -> None:
    (line,) = lines({**BLOCK, "timeout": limits})
    assert line.startswith("agents[1].backend.timeout")
    assert part in line
    with pytest.raises(InvalidRequestError):
        settings.with_timeout({"timeout": limits})


def test_a_key_is_never_shown() -> None:
    assert "hunter2" not in "".join(lines({**BLOCK, "api_keyy": "hunter2"}))


def test_stream_may_be_true() -> None:
    assert lines({**BLOCK, "stream": True}) == []
    assert settings.parameters({**BLOCK, "stream": True}, {"stream": True}, own=OWN) == settings.parameters(
        BLOCK, {}, own=OWN
    )
    (line,) = lines({**BLOCK, "stream": False})
    assert line == (
        "agents[1].backend.stream: false is not possible: MassGen reads every reply as a stream. Leave it out."
    )


def test_a_system_message_belongs_to_the_agent() -> None:
    (line,) = lines({**BLOCK, "system_message": "You are a pirate."})
    assert line == (
        "agents[1].backend.system_message in backend config is not supported. "
        "Use 'system_message' at the agent level (outside backend block) instead."
    )


@pytest.mark.parametrize("entry", [{"image_url": "https://x/cat.png"}, {}])
def test_an_upload_that_names_no_file_is_reported(entry: dict[str, Any]) -> None:
    (line,) = lines({**BLOCK, "upload_files": [{"image_path": "a.png"}, entry]})
    assert line.startswith("agents[1].backend.upload_files[1] has ")
    assert "`image_path`" in line


WRONG: list[dict[str, Any]] = [
    {"messages": [1]},
    {"prompt": "x"},
    {"max_retries": 3},
    {"retries": 3},
    {"http_client": 1},
    {"timeout": "x"},
    {"timeout": {"idle": -3}},
    {"timeout": {"idl": 3}},
    {"response_format": 1},
    {"tools": 1},
    {"tool_choice": "vote"},
    {"thinking": True},
    {"guided_json": {"a": True}},
    {"top_logprobs": 5},
    {"add_generation_prompt": True, "continue_final_message": True},
    {"stop": None, "min_tokens": 10, "max_tokens": 5},
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: "+".join(wrong))
def test_no_report_speaks_of_python(wrong: dict[str, Any]) -> None:
    found = lines({**BLOCK, **wrong})
    assert found
    for line in found:
        assert not re.search(r"\b(True|False|None|Timeout|VLLMProvider|a?chat\(|a?stream\(|\w+=\S)", line), (
            line
        )
