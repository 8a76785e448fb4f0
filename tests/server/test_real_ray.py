"""Rows of a dataset on a local Ray cluster, with a real server."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any, Literal

import pytest

from support.ray_cluster import MARKS, cluster
from vllmchat import VLLMProvider

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

    from support.vllm import LiveServer

pytestmark = MARKS


@pytest.fixture(scope="module")
def ray() -> Iterator[ModuleType]:
    """A local cluster."""
    with cluster() as ray:
        yield ray


def test_no_row_is_lost_when_an_actor_dies(ray: ModuleType, vllm_server: LiveServer, tmp_path: Path) -> None:
    from vllmchat.adapters.ray import map_rows

    obituary = tmp_path / "pid"

    async def chat(llm: VLLMProvider, row: dict[str, Any]) -> dict[str, object]:
        if row["id"] == 1234 and not obituary.exists():
            obituary.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        reply = await llm.achat("Hello", temperature=0, max_tokens=5, enable_thinking=False)
        return {"reply": reply.text, "pid": os.getpid()}

    llm = VLLMProvider(vllm_server.model, base_url=vllm_server.base_url)
    rows = map_rows(ray.data.range(2000, override_num_blocks=32), llm, chat, actors=4).take_all()
    assert sorted(row["id"] for row in rows) == list(range(2000))
    assert {(row["reply"], row["error"]) for row in rows} == {("Hello! How can", None)}
    pids = {row["id"]: row["pid"] for row in rows}
    assert len(set(pids.values())) >= 4
    assert pids[1234] != int(obituary.read_text())


def test_chats_come_back_as_columns(ray: ModuleType, vllm_server: LiveServer) -> None:
    from vllmchat.adapters.ray import chat_rows

    llm = VLLMProvider(vllm_server.model, base_url=vllm_server.base_url)
    dataset = ray.data.from_items([{"id": n, "text": "Hello" if n % 10 else "x " * 5000} for n in range(100)])
    rows = sorted(
        chat_rows(dataset, llm, temperature=0, max_tokens=50, batch_size=8).take_all(),
        key=lambda row: row["id"],
    )
    assert [row["id"] for row in rows] == list(range(100))
    for row in rows:
        if row["id"] % 10:
            assert (row["reply"], row["error"]) == ("Hello! How can I help you today?", None)
            assert row["prompt_tokens"] > 0 < row["completion_tokens"]
        else:
            assert row["reply"] is None
            assert row["error_type"] == "ContextWindowExceededError"


def test_replies_are_parsed(ray: ModuleType, vllm_server: LiveServer) -> None:
    from vllmchat.adapters.ray import chat_rows

    llm = VLLMProvider(vllm_server.model, base_url=vllm_server.base_url, temperature=0)
    dataset = ray.data.from_items([{"review": f"It is fine {n}"} for n in range(5)])
    rows = chat_rows(
        dataset,
        llm,
        prompt="Is this good? {review}",
        kind=Literal["good", "bad"],
        enable_thinking=False,
        max_tokens=50,
    ).take_all()
    assert len(rows) == 5
    assert {row["value"] for row in rows} <= {"good", "bad"}, rows


def test_a_key_comes_from_the_environment_of_the_actors(ray: ModuleType, keyed_server: LiveServer) -> None:
    from vllmchat.adapters.ray import chat_rows

    assert keyed_server.api_key is not None
    llm = VLLMProvider(keyed_server.model, base_url=keyed_server.base_url, api_key=keyed_server.api_key)
    dataset = ray.data.from_items([{"prompt": "Hello"}])
    with pytest.raises(Exception, match=r"Set \$VLLM_API_KEY in this process"):
        chat_rows(dataset, llm).take_all()
    environment = {"env_vars": {"VLLM_API_KEY": keyed_server.api_key}}
    for rows in (
        chat_rows(dataset, llm, temperature=0, ray_options={"runtime_env": environment}),
        chat_rows(dataset, llm.with_options(pickle_secrets=True), temperature=0),
    ):
        assert [row["reply"] for row in rows.take_all()] == ["Hello! How can I help you today?"]


def test_a_server_that_stays_away_ends_the_job(ray: ModuleType) -> None:
    from vllmchat.adapters.ray import chat_rows

    llm = VLLMProvider("m", base_url="http://127.0.0.1:9/v1")
    dataset = ray.data.from_items([{"prompt": "Hello"}])
    with pytest.raises(Exception, match="JobStoppedError"):
        chat_rows(dataset, llm, wait=0.5).take_all()
