"""Every route of the running servers has a method, or a reason why not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from support.routes import ASKED
from vllm_releases import DEFAULT

if TYPE_CHECKING:
    from support.vllm import LiveServer

COVERED = {asked.route for asked in ASKED}
"""What the methods send, as `tests/unit/test_routes.py` finds."""

ELSEWHERE: dict[str, str] = {
    "POST /classify": "a model that classifies",
    "POST /v1/audio/transcriptions": "a model that transcribes",
    "POST /v1/audio/translations": "a model that transcribes",
    "POST /v1/decisions": "vLLM 0.33, which has no CPU build",
}
"""What a server must be or have loaded for routes that none of those here has."""

_WEIGHTS = (
    "for training loops: it moves weights between processes, with a process group that HTTP does not carry"
)
_SAME = "the same under another name"
_RENDER = (
    "for a frontend that is a server itself: it makes another server's request or reply, and needs no client"
)

WITHOUT: dict[str, str] = {
    "DELETE /adapters/{adapter_name}": f"{_SAME}: SageMaker's for /v1/unload_lora_adapter",
    "GET /get_world_size": _WEIGHTS,
    "GET /kv_event_sources": "for routers that follow the KV cache's events over ZMQ",
    "GET /ping": f"{_SAME}: SageMaker's for /health",
    "GET /server_info": "a dump of the server's configuration for bug reports, without a fixed form",
    "GET /v1/responses/{response_id}": "only with the store, which vLLM calls experimental and which is never emptied",
    "GET /weight_info": _WEIGHTS,
    "POST /adapters": f"{_SAME}: SageMaker's for /v1/load_lora_adapter",
    "POST /collective_rpc": "calls any method of the workers by its name: nothing that could be typed",
    "POST /finish_weight_update": _WEIGHTS,
    "POST /generative_scoring": "scores by the probability of tokens; `chat` with logprob_token_ids tells the same",
    "POST /inference/v1/abort_requests": f"{_SAME}: for /abort_requests, without its answer",
    "POST /init_weight_transfer_engine": _WEIGHTS,
    "POST /invocations": f"{_SAME}: SageMaker's for the route that the body fits",
    "POST /is_scaling_elastic_ep": "for the controller of an elastic deployment",
    "POST /ping": f"{_SAME}: SageMaker's for /health",
    "POST /release_kv_cache_memory": _WEIGHTS,
    "POST /reset_encoder_cache": "answers nothing, and no model with an encoder is at hand to test it",
    "POST /reset_mm_cache": "answers nothing, and no model with media is at hand to test it",
    "POST /scale_elastic_ep": "for the controller of an elastic deployment",
    "POST /shutdown_weight_transfer_engine": _WEIGHTS,
    "POST /start_draft_weight_update": _WEIGHTS,
    "POST /start_weight_update": _WEIGHTS,
    "POST /update_weight_version": _WEIGHTS,
    "POST /update_weights": _WEIGHTS,
    "POST /rerank": f"{_SAME}: for /v1/rerank",
    "POST /score": f"{_SAME}: for /v1/score",
    "POST /v1/chat/completions/derender": _RENDER,
    "POST /v1/completions/derender": _RENDER,
    "POST /v1/messages": "Anthropic's protocol: its own client speaks it",
    "POST /v1/messages/count_tokens": "Anthropic's protocol: its own client speaks it",
    "POST /v1/messages/render": "Anthropic's protocol: its own client speaks it",
    "POST /v1/responses/render": _RENDER,
    "POST /v1/responses/{response_id}/cancel": "only with the store, which vLLM calls experimental",
    "POST /v1/systemone": "TypeSafe's form of /v1/decisions, untyped and still changing; `decide` asks the same",
    "POST /v2/embed": "Cohere's protocol: its own client speaks it; `embed` gives the same vectors",
    "POST /v2/rerank": f"{_SAME}: for /v1/rerank",
    "POST /weight_checker": _WEIGHTS,
}
"""Why a route has none."""


def routes_of(server: LiveServer) -> set[str]:
    answer = httpx.get(f"{server.url}/openapi.json")
    paths: dict[str, dict[str, object]] = answer.json()["paths"]
    return {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


@pytest.mark.parametrize("fixture", ["vllm_server", "admin_server", "pooling_server"])
def test_every_route_is_accounted_for(fixture: str, request: pytest.FixtureRequest) -> None:
    server: LiveServer = request.getfixturevalue(fixture)
    routes = routes_of(server)
    assert len(routes) > 15
    unknown = routes - COVERED - set(WITHOUT)
    assert not unknown, f"neither covered nor explained: {', '.join(sorted(unknown))}"


@pytest.mark.since(DEFAULT.version, "the routes of the newest server")
def test_every_route_of_the_tables_exists(admin_server: LiveServer, pooling_server: LiveServer) -> None:
    routes = routes_of(admin_server) | routes_of(pooling_server)
    gone = (COVERED | set(WITHOUT)) - routes
    assert gone == set(ELSEWHERE)


def test_no_route_is_in_two_tables() -> None:
    assert not COVERED & WITHOUT.keys()
