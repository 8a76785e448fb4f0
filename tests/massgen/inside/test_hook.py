"""MassGen uses our backend for `type: vllm`, everywhere and only after `install`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from massgen.backend.chat_completions import ChatCompletionsBackend
from massgen.backend.inference import InferenceBackend
from massgen.cli import create_backend
from massgen.cli.backends import ConfigurationError, create_agents_from_config
from massgen.config_validator import ConfigValidator

from support.fake_vllm import FakeVLLM, refusal
from vllmchat.adapters.massgen import VLLMBackend, install, uninstall
from vllmchat.adapters.massgen.patch import installed_for

if TYPE_CHECKING:
    from collections.abc import Iterator


class Mine(VLLMBackend):
    """A user's own backend."""


@pytest.fixture(autouse=True)
def not_installed() -> Iterator[None]:
    uninstall()
    yield
    uninstall()


def made(kind: str = "vllm", **block: Any) -> type[object]:
    """The class of the backend that MassGen makes for a type."""
    backend: object = create_backend(kind, model="m", **block)
    return type(backend)


def test_before_it_is_massgens_own() -> None:
    assert made() is InferenceBackend


def test_install_changes_vllm_and_nothing_else() -> None:
    install()
    assert made() is VLLMBackend
    assert made("vLLM") is VLLMBackend
    assert made("sglang") is InferenceBackend
    assert create_backend("sglang", model="m").get_provider_name() == "SGLang"
    assert made("chatcompletion", base_url="http://localhost:1/v1") is ChatCompletionsBackend


def test_install_twice_and_uninstall_twice() -> None:
    install()
    install()
    assert made() is VLLMBackend
    uninstall()
    assert made() is InferenceBackend
    uninstall()
    assert made() is InferenceBackend


def test_uninstall_leaves_nothing_behind() -> None:
    import massgen.agent_config
    import massgen.cli.backends
    import massgen.config_validator
    import massgen.memory._context_monitor

    def watched() -> list[object]:
        return [
            vars(massgen.cli.backends)["InferenceBackend"],
            vars(massgen.config_validator.ConfigValidator)["_validate_backend"],
            vars(massgen.agent_config.AgentConfig)["create_vllm_config"],
            vars(massgen.memory._context_monitor)["TokenCostCalculator"],
        ]

    before = watched()
    install()
    assert all(now is not then for now, then in zip(watched(), before, strict=True))
    uninstall()
    assert all(now is then for now, then in zip(watched(), before, strict=True))


def test_a_subclass_can_be_installed() -> None:
    install(Mine)
    assert made() is Mine
    install()
    assert made() is VLLMBackend


def test_for_the_duration_of_a_block() -> None:
    with installed_for(Mine):
        assert made() is Mine
    assert made() is InferenceBackend
    install()
    with installed_for(Mine):
        assert made() is Mine
    assert made() is VLLMBackend


def test_agents_of_a_configuration_get_it() -> None:
    install()
    entries = [
        {"id": "ours", "backend": {"type": "vllm", "model": "m", "top_k": 5}},
        {"id": "theirs", "backend": {"type": "sglang", "model": "m"}},
    ]
    agents = create_agents_from_config({"agents": entries})
    assert type(agents["ours"].backend) is VLLMBackend
    assert type(agents["theirs"].backend) is InferenceBackend


def test_a_misspelled_key_is_rejected_with_its_place() -> None:
    install()
    block: dict[str, Any] = {"type": "vllm", "model": "m", "topk": 5, "mcp_server": []}
    with pytest.raises(ConfigurationError) as caught:
        create_agents_from_config({"agents": [{"id": "qwen", "backend": block}]})
    text = str(caught.value)
    assert "agents['qwen'].backend.topk: 5 is not a parameter of vLLM. Did you mean `top_k`?" in text
    assert "agents['qwen'].backend.mcp_server" in text
    assert "Did you mean `mcp_servers`?" in text


def test_massgens_validation_of_a_file_knows_the_parameters() -> None:
    blocks: list[dict[str, Any]] = [
        {"type": "vllm", "model": "m", "top_k": 5, "enable_thinking": True, "cwd": "here"},
        {
            "type": "vllm",
            "model": "m",
            "repitition_penalty": 1.2,
            "temperature": 3,
            "enable_web_search": True,
        },
        {"type": "sglang", "model": "m", "topk": 5},
    ]
    config = {"agents": [{"id": f"a{number}", "backend": block} for number, block in enumerate(blocks)]}
    assert [error.location for error in ConfigValidator().validate_config(config).errors] == [
        "agents[1].backend"
    ]
    install()
    found = {error.location: str(error) for error in ConfigValidator().validate_config(config).errors}
    assert set(found) == {
        "agents[1].backend",
        "agents[1].backend.repitition_penalty",
        "agents[1].backend.temperature",
    }
    assert "Did you mean `repetition_penalty`?" in found["agents[1].backend.repitition_penalty"]


def test_massgens_own_examples_pass() -> None:
    from massgen.cli.config_loading import load_config_file

    import massgen

    install()
    assert massgen.__file__ is not None
    examples = 0
    for file in Path(massgen.__file__).parent.joinpath("configs").rglob("*.yaml"):
        if "vllm" not in file.read_text(encoding="utf-8"):
            continue
        config, _ = load_config_file(str(file))
        if any(agent["backend"].get("type") == "vllm" for agent in config.get("agents", ())):
            examples += 1
            result = ConfigValidator().validate_config(config)
            assert not result.errors, (file, result.errors)
    assert examples >= 2


@pytest.mark.anyio
async def test_a_failed_massgen_run_selects_no_agent(
    fake_vllm: FakeVLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # MassGen raises nothing: its answer is the log of the run.
    import massgen

    monkeypatch.chdir(tmp_path)
    install()
    fake_vllm.always(refusal(401, "Unauthorized"))
    block = {"type": "vllm", "model": "m", "base_url": fake_vllm.base_url}
    config = {"agents": [{"id": name, "backend": block} for name in ("ada", "bob")]}
    result = await massgen.run(query="What is six times seven?", config_dict=config)
    assert "rejected the API key" in result["final_answer"]
    assert result["selected_agent"] is None
    assert len(fake_vllm.chats) == 2
