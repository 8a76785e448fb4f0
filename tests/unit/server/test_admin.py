"""The methods for running a server: requests, responses of old and new servers, and what is rejected."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest

from vllmchat import InvalidRequestError, NotFoundError, ResponseError, ServiceUnavailableError, VLLMProvider
from vllmchat.errors import APIStatusError

if TYPE_CHECKING:
    from support.runners import Runner
    from support.scripted import ScriptedServer

Call = tuple[str, tuple[Any, ...], dict[str, Any]]
"""A method, its positional arguments, its keywords."""

SENT: list[tuple[Call, str, str, dict[str, list[str]], Any]] = [
    (("sleep", (), {}), "POST", "/sleep", {"level": ["1"]}, None),
    (("sleep", (2,), {"mode": "wait"}), "POST", "/sleep", {"level": ["2"], "mode": ["wait"]}, None),
    (("wake_up", (), {}), "POST", "/wake_up", {}, None),
    (("wake_up", ("weights",), {}), "POST", "/wake_up", {"tags": ["weights"]}, None),
    (
        ("wake_up", (("weights", "kv_cache"),), {}),
        "POST",
        "/wake_up",
        {"tags": ["weights", "kv_cache"]},
        None,
    ),
    (("reset_prefix_cache", (), {}), "POST", "/reset_prefix_cache", {}, None),
    (
        ("reset_prefix_cache", (), {"reset_running_requests": True, "reset_external": False}),
        "POST",
        "/reset_prefix_cache",
        {"reset_running_requests": ["true"], "reset_external": ["false"]},
        None,
    ),
    (("pause", (), {}), "POST", "/pause", {}, None),
    (
        ("pause", (), {"mode": "keep", "clear_cache": False}),
        "POST",
        "/pause",
        {"mode": ["keep"], "clear_cache": ["false"]},
        None,
    ),
    # Servers before 0.18 know only the second name.
    (
        ("pause", (), {"mode": "wait"}),
        "POST",
        "/pause",
        {"mode": ["wait"], "wait_for_inflight_requests": ["true"]},
        None,
    ),
    (("resume", (), {}), "POST", "/resume", {}, None),
    (("abort", ("chatcmpl-1",), {}), "POST", "/abort_requests", {}, {"request_ids": ["chatcmpl-1"]}),
    (("abort", (("a", "b"),), {}), "POST", "/abort_requests", {}, {"request_ids": ["a", "b"]}),
    (("abort_all", (), {}), "POST", "/abort_requests", {}, {"request_ids": []}),
    (
        ("load_lora", ("mine", "/adapters/mine"), {}),
        "POST",
        "/v1/load_lora_adapter",
        {},
        {"lora_name": "mine", "lora_path": "/adapters/mine"},
    ),
    (
        ("load_lora", ("mine", "/a b"), {"load_inplace": True, "is_3d_lora_weight": False}),
        "POST",
        "/v1/load_lora_adapter",
        {},
        {"lora_name": "mine", "lora_path": "/a b", "load_inplace": True, "is_3d_lora_weight": False},
    ),
    (("unload_lora", ("mine",), {}), "POST", "/v1/unload_lora_adapter", {}, {"lora_name": "mine"}),
]


def ask(runner: Runner, scripted: ScriptedServer, call: Call) -> Any:
    method, args, params = call
    llm = VLLMProvider("m", base_url=scripted.base_url, max_retries=0)
    try:
        return runner.do(llm, method, *args, **params)
    finally:
        runner.close(llm)


@pytest.mark.parametrize(("call", "method", "path", "query", "body"), SENT)
def test_what_is_sent(
    call: Call,
    method: str,
    path: str,
    query: dict[str, list[str]],
    body: Any,
    scripted: ScriptedServer,
    runner: Runner,
) -> None:
    scripted.reply()
    assert ask(runner, scripted, call) is None
    [request] = scripted.requests
    assert (request.method, request.path, parse_qs(request.query)) == (method, path, query)
    assert (json.loads(request.body) if request.body else None) == body
    assert request.headers.get("content-type") == ("application/json" if body else None)


def test_below_a_path_of_a_gateway(scripted: ScriptedServer, runner: Runner) -> None:
    for base_url in (scripted.url("/team-a/v1"), scripted.url("/team-a")):
        llm = VLLMProvider("m", base_url=base_url)
        for method, arguments in (("resume", ()), ("unload_lora", ("x",))):
            scripted.reply()
            runner.do(llm, method, *arguments)
        runner.close(llm)
    assert [request.path for request in scripted.requests] == [
        "/team-a/resume",
        "/team-a/v1/unload_lora_adapter",
    ] * 2


ANSWERS: list[tuple[Call, object, object]] = [
    (("sleep", (), {}), {"status": "sleeping", "level": 1}, None),
    (("wake_up", (), {}), {"status": "awake", "tags": None}, True),
    (("wake_up", ("weights",), {}), {"status": "sleeping", "tags": ["weights"]}, False),
    (("is_sleeping", (), {}), {"is_sleeping": True}, True),
    (("is_sleeping", (), {}), {"is_sleeping": False}, False),
    (("is_paused", (), {}), {"is_paused": True}, True),
    (("reset_prefix_cache", (), {}), {"success": True}, True),
    (("reset_prefix_cache", (), {}), {"success": False}, False),
    (("pause", (), {}), {"status": "paused"}, None),
    (("resume", (), {}), {"status": "resumed"}, None),
    (("abort", ("a",), {}), {"status": "aborted", "aborted": 1}, 1),
    (("abort_all", (), {}), {"status": "aborted", "aborted": 0}, 0),
    (("load_lora", ("a", "/a"), {}), "Success: LoRA adapter 'a' added successfully.", None),
    (("unload_lora", ("a",), {}), "Success: LoRA adapter 'a' removed successfully.", None),
]


@pytest.mark.parametrize(("call", "answer", "result"), ANSWERS)
def test_results(
    call: Call, answer: object, result: object, scripted: ScriptedServer, runner: Runner
) -> None:
    scripted.reply(answer)
    assert ask(runner, scripted, call) is result


@pytest.mark.parametrize(
    "call", [each for each, _, _ in ANSWERS if each[0] not in ("is_sleeping", "is_paused")]
)
def test_an_empty_response_is_an_old_servers(call: Call, scripted: ScriptedServer, runner: Runner) -> None:
    scripted.reply()
    assert ask(runner, scripted, call) is None


@pytest.mark.parametrize("call", [each for each, _, _ in ANSWERS])
@pytest.mark.parametrize("answer", ["<html>Welcome to the proxy!</html>", "[]", '"yes"', '{"aborted": "x"}'])
def test_another_response_is_not_an_acknowledgement(
    call: Call, answer: str, scripted: ScriptedServer
) -> None:
    scripted.reply(answer)
    with pytest.raises(ResponseError):
        getattr(VLLMProvider("m", base_url=scripted.base_url), call[0])(*call[1], **call[2])


def test_an_error_with_a_good_status_is_an_error(scripted: ScriptedServer) -> None:
    scripted.reply({"error": "Failed to pause generation: x"})
    with pytest.raises(APIStatusError, match="Failed to pause generation: x"):
        VLLMProvider("m", base_url=scripted.base_url).pause()


@pytest.mark.parametrize("call", [each for each, _, _ in ANSWERS])
def test_without_the_route_the_error_says_what_the_server_needs(call: Call, scripted: ScriptedServer) -> None:
    scripted.reply({"detail": "Not Found"}, 404)
    variable = "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1" if "lora" in call[0] else "VLLM_SERVER_DEV_MODE=1"
    with pytest.raises(NotFoundError, match=variable):
        getattr(VLLMProvider("m", base_url=scripted.base_url), call[0])(*call[1], **call[2])


@pytest.mark.parametrize(
    ("method", "args", "version"),
    [
        ("pause", (), "0.12"),
        ("resume", (), "0.12"),
        ("is_paused", (), "0.12"),
        ("abort", ("chatcmpl-1",), "0.26"),
        ("abort_all", (), "0.26"),
    ],
)
def test_the_error_names_the_version_of_routes_that_came_later(
    method: str, args: tuple[str, ...], version: str, scripted: ScriptedServer
) -> None:
    scripted.reply({"detail": "Not Found"}, 404)
    with pytest.raises(NotFoundError, match=f"needs? vLLM {re.escape(version)} or newer"):
        getattr(VLLMProvider("m", base_url=scripted.base_url), method)(*args)


def test_a_missing_adapter_is_not_a_missing_route(scripted: ScriptedServer) -> None:
    message = "The lora adapter 'a' cannot be found."
    scripted.reply({"error": {"message": message, "type": "NotFoundError", "code": 404}}, 404)
    with pytest.raises(NotFoundError) as caught:
        VLLMProvider("m", base_url=scripted.base_url).unload_lora("a")
    assert caught.value.message == f"404: {message}"


def test_the_providers_max_retries_applies(scripted: ScriptedServer) -> None:
    scripted.busy(2, retry_after="0")
    with pytest.raises(ServiceUnavailableError):
        VLLMProvider("m", base_url=scripted.base_url, max_retries=1).sleep()
    assert len(scripted.requests) == 2


WRONG: list[tuple[Call, str]] = [
    (("sleep", (3,), {}), "level=3: must be between 0 and 2."),
    (("sleep", (-1,), {}), "level=-1: must be between 0 and 2."),
    (("sleep", (True,), {}), "level=True: must be an integer, not a bool."),
    (
        ("sleep", (), {"mode": "kepp"}),
        'mode=\'kepp\': must be "abort", "wait" or "keep". Did you mean "keep"?',
    ),
    (("wake_up", ([],), {}), "tags=[]: must not be empty. Leave it out instead."),
    (
        ("wake_up", ([1],), {}),
        'tags[0]=1: must be "weights", "kv_cache" or "scheduling", not an int.',
    ),
    (
        ("wake_up", ("wieghts",), {}),
        'tags[0]=\'wieghts\': must be "weights", "kv_cache" or "scheduling". Did you mean "weights"?',
    ),
    (("pause", (), {"clear_cache": "yes"}), "clear_cache='yes': must be True or False, not a str."),
    (
        ("reset_prefix_cache", (), {"reset_external": 1}),
        "reset_external=1: must be True or False, not an int.",
    ),
    (
        ("abort", ([],), {}),
        "request_ids=[]: must have at least one ID. To abort all requests, call abort_all().",
    ),
    (
        ("abort", ("",), {}),
        "request_ids='': must have at least one ID. To abort all requests, call abort_all().",
    ),
    (
        ("abort", (None,), {}),
        "request_ids=None: must have at least one ID. To abort all requests, call abort_all().",
    ),
    (("abort", ([" "],), {}), "request_ids[0]=' ': must not be blank."),
    (("abort", (5,), {}), "request_ids=5: must be a list of strings, not an int."),
    (("load_lora", ("", "/a"), {}), "name='': must not be blank."),
    (("load_lora", ("a", None), {}), "path=None: must be a string."),
    (("unload_lora", (None,), {}), "name=None: must be a string."),
    (("resume", (), {"timeout": 0}), "timeout=0: must be greater than 0."),
    (("is_paused", (), {"timeout": -1}), "timeout=-1: must be greater than 0."),
    (("abort_all", (), {"timeout": 0}), "timeout=0: must be greater than 0."),
]


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_what_is_wrong_is_not_sent(
    call: Call, message: str, scripted: ScriptedServer, runner: Runner
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        ask(runner, scripted, call)
    assert caught.value.message == message
    assert scripted.requests == []


def test_all_problems_are_reported_at_once() -> None:
    llm: Any = VLLMProvider("m")
    with pytest.raises(InvalidRequestError) as caught:
        llm.load_lora(1, " ", load_inplace="no", timeout=0)
    assert [problem.parameter for problem in caught.value.problems] == [
        "name",
        "path",
        "load_inplace",
        "timeout",
    ]
