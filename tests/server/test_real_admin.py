"""A real server run by its methods. Each test leaves the server awake and as it was.

On the CPU there is no memory to free, so sleeping is only standing still; the server says the same words.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest

from support.adapters import make_adapter
from support.vllm import API_KEY
from vllmchat import BadRequestError, NotFoundError, VLLMProvider

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.vllm import LiveServer

Adapter = Callable[[str], "Path"]

ABORT = "0.26"
"""The vLLM that aborts requests by their ids."""


@pytest.fixture
def llm(admin_server: LiveServer) -> Iterator[VLLMProvider]:
    provider = VLLMProvider(admin_server.model, base_url=admin_server.base_url, api_key=API_KEY)
    with provider:
        yield provider
        # Whatever a test has failed at, the next one finds the server awake.
        provider.wake_up()
        provider.resume()


@pytest.mark.parametrize("level", [0, 1, 2])
def test_sleep_and_wake_up(level: int, llm: VLLMProvider, admin_server: LiveServer) -> None:
    assert (llm.is_sleeping(), llm.is_paused()) == (False, False)
    llm.sleep(level, mode="wait")
    assert (llm.is_sleeping(), llm.is_paused()) == (True, admin_server.since("0.17"))
    # It is asleep and well, and not less ready than before: a request waits.
    assert llm.health() is True
    assert llm.wake_up() is (True if admin_server.since("0.32") else None)
    assert (llm.is_sleeping(), llm.is_paused()) == (False, False)
    assert llm.chat("Hello", temperature=0).text.strip() == "Hello! How can I help you today?"


@pytest.mark.since("0.17", "waking up the scheduling")
def test_parts_wake_up_one_by_one(llm: VLLMProvider, admin_server: LiveServer) -> None:
    llm.sleep(1)
    assert llm.wake_up("weights") is (False if admin_server.since("0.32") else None)
    assert llm.is_sleeping() is True
    assert llm.wake_up(["kv_cache", "scheduling"]) is (True if admin_server.since("0.32") else None)
    assert llm.is_sleeping() is False


def test_metrics_tell_of_sleep(llm: VLLMProvider) -> None:
    assert llm.metrics().value("vllm:engine_sleep_state", sleep_state="awake") == 1
    llm.sleep(1)
    assert llm.metrics().value("vllm:engine_sleep_state", sleep_state="weights_offloaded") == 1
    llm.wake_up()
    assert llm.metrics().value("vllm:engine_sleep_state", sleep_state="awake") == 1


def test_the_prefix_cache_is_emptied(llm: VLLMProvider, admin_server: LiveServer) -> None:
    reported = True if admin_server.since("0.26") else None
    # Only whole blocks are kept, so the prompt must be a long one.
    text = "Tell me more. " * 100
    llm.chat(text, max_tokens=1)
    hits = llm.metrics().prefix_cache_hits
    llm.chat(text, max_tokens=1)
    assert llm.metrics().prefix_cache_hits != hits
    assert llm.reset_prefix_cache(reset_running_requests=True, reset_external=False) is reported
    hits = llm.metrics().prefix_cache_hits
    llm.chat(text, max_tokens=1)
    assert llm.metrics().prefix_cache_hits == hits
    assert llm.reset_prefix_cache() is reported


@pytest.mark.since("0.16", "a pause that keeps what runs")
@pytest.mark.anyio
async def test_pause_and_resume(admin_server: LiveServer, llm: VLLMProvider) -> None:
    async with VLLMProvider(admin_server.model, base_url=admin_server.base_url, api_key=API_KEY) as alone:
        stream = alone.astream("Hello", max_tokens=1500, min_tokens=1500, ignore_eos=True)
        async with stream:
            first = await anext(aiter(stream))
            await alone.apause(mode="keep", clear_cache=False)
            assert await alone.ais_paused() is True
            with anyio.move_on_after(0.3) as waited:
                await alone.achat("Hello", max_tokens=1)
            assert waited.cancelled_caught
            await alone.aresume()
            assert await alone.ais_paused() is False
            # It goes on where it stood; then it is ended, from outside where the server can do that.
            await anext(aiter(stream))
            if admin_server.since(ABORT):
                assert await alone.aabort(first.id) == 1
                assert (await stream.until_done()).finish_reason == "abort"
        assert (await alone.achat("Hello", max_tokens=1)).finish_reason == "length"


def test_a_pause_ends_what_runs(llm: VLLMProvider, admin_server: LiveServer) -> None:
    with llm.stream("Hello", max_tokens=1500, min_tokens=1500, ignore_eos=True) as stream:
        next(iter(stream))
        llm.pause()
        reason = stream.until_done().finish_reason
    # 0.22 may call it so, without any tool.
    assert reason == "abort" or (reason == "tool_calls" and not admin_server.since("0.25"))
    llm.resume()


@pytest.mark.since(ABORT, "abort")
def test_abort_all(llm: VLLMProvider) -> None:
    assert llm.abort_all() == 0
    with llm.stream("Hello", max_tokens=1500, min_tokens=1500, ignore_eos=True) as stream:
        next(iter(stream))
        assert llm.abort_all() == 1
        assert stream.until_done().finish_reason == "abort"
    # The server counts ids, known or not.
    assert llm.abort(["no-such-request", "nor-this"]) == 2


# LoRA


@pytest.fixture
def adapter(tmp_path: Path) -> Adapter:
    """Makes an adapter."""
    return partial(make_adapter, tmp_path)


@pytest.mark.needs("LoRA")
def test_an_adapter_comes_and_goes(llm: VLLMProvider, admin_server: LiveServer, adapter: Adapter) -> None:
    path = str(adapter("spoiled"))
    llm.load_lora("spoiled", path)
    base, _, card = llm.models().data
    assert (base.id, base.parent) == (admin_server.model, None)
    assert (card.id, card.parent, card.root, card.max_model_len) == ("spoiled", base.id, path, None)
    llm.ready(10, model="spoiled")
    sound = llm.chat("Hello", temperature=0, max_tokens=10, enable_thinking=False)
    spoiled = llm.chat("Hello", model="spoiled", temperature=0, max_tokens=10, enable_thinking=False)
    assert spoiled.model == "spoiled"
    assert spoiled.text != sound.text
    with pytest.raises(BadRequestError, match="has already been loaded"):
        llm.load_lora("spoiled", path)
    if admin_server.since("0.15"):
        llm.load_lora("spoiled", path, load_inplace=True, is_3d_lora_weight=False)
    llm.unload_lora("spoiled")
    assert not any(model.parent for model in llm.models().data)
    with pytest.raises(NotFoundError, match="'spoiled' cannot be found"):
        llm.unload_lora("spoiled")


@pytest.mark.needs("LoRA")
@pytest.mark.anyio
async def test_an_adapter_comes_and_goes_awaited(admin_server: LiveServer, adapter: Adapter) -> None:
    async with VLLMProvider(admin_server.model, base_url=admin_server.base_url, api_key=API_KEY) as llm:
        await llm.aload_lora("mine", str(adapter("mine")))
        assert (await llm.amodels()).data[-1].id == "mine"
        await llm.aunload_lora("mine")


@pytest.mark.needs("LoRA")
def test_an_adapter_that_is_not_there(llm: VLLMProvider) -> None:
    with pytest.raises(NotFoundError, match="No adapter found for /nowhere") as caught:
        llm.load_lora("mine", "/nowhere")
    assert "no such route" not in caught.value.message


# What a server lacks that was started without all this


@pytest.mark.parametrize(
    "method",
    [
        "sleep",
        "wake_up",
        "is_sleeping",
        "reset_prefix_cache",
        # An older one is paused indeed, and every later call would wait.
        pytest.param("pause", marks=pytest.mark.since("0.17", "pause for administration only")),
        "abort_all",
    ],
)
def test_a_server_without_administration_says_what_it_needs(method: str, keyed_server: LiveServer) -> None:
    with (
        VLLMProvider(base_url=keyed_server.base_url, api_key=API_KEY) as llm,
        pytest.raises(NotFoundError, match="VLLM_SERVER_DEV_MODE=1"),
    ):
        getattr(llm, method)()


def test_a_server_without_adapters_says_what_it_needs(keyed_server: LiveServer) -> None:
    with VLLMProvider(base_url=keyed_server.base_url, api_key=API_KEY) as llm:
        with pytest.raises(NotFoundError, match="--enable-lora"):
            llm.load_lora("a", "/a")
        with pytest.raises(NotFoundError, match="--enable-lora"):
            llm.unload_lora("a")
