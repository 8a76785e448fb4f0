from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from vllmchat import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    ContextWindowExceededError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServiceUnavailableError,
    UnprocessableEntityError,
)
from vllmchat.http.api_errors import error_despite_status, error_from_event, error_from_reply, no_stream
from vllmchat.http.call import ResponseHead

RECORDED = Path(__file__).parents[2] / "recorded"


def error_for(status: int, body: object, headers: dict[str, str] | None = None) -> APIStatusError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return error_from_reply(ResponseHead(status, headers or {}, "id-1"), raw, route="/v1/x")


def error(message: str, **fields: object) -> dict[str, object]:
    return {"error": {"message": message, "type": "BadRequestError", "param": None, "code": 400, **fields}}


# ------------------------------------------------------------------------------------------------
# Classes
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequestError),
        (401, AuthenticationError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (405, APIStatusError),
        (408, APIStatusError),
        (409, ConflictError),
        (418, APIStatusError),
        (422, UnprocessableEntityError),
        (429, RateLimitError),
        (500, InternalServerError),
        (501, InternalServerError),
        (502, InternalServerError),
        (503, ServiceUnavailableError),
        (504, InternalServerError),
        (599, InternalServerError),
    ],
)
@pytest.mark.parametrize("body", [error("m", code=None), {"error": "m"}, b"m", b""])
def test_the_class_depends_on_the_status(status: int, kind: type[APIStatusError], body: object) -> None:
    made = error_for(status, body, {"x-served-by": "a"})
    assert type(made) is kind
    assert made.status_code == made.response.status_code == status
    assert made.response.headers == {"x-served-by": "a"}
    assert made.request_id == "id-1"
    assert made.partial is None


# ------------------------------------------------------------------------------------------------
# Bodies
# ------------------------------------------------------------------------------------------------

SHAPES: list[tuple[object, str, str | None, str | None, int | str | None]] = [
    (error("m", param="p"), "m", "BadRequestError", "p", 400),
    (
        {"object": "error", "message": "m", "type": "BadRequestError", "param": None, "code": 400},
        "m",
        "BadRequestError",
        None,
        400,
    ),
    ({"error": "m"}, "m", None, None, None),
    ({"detail": "m"}, "m", None, None, None),
    ({"message": "m", "detail": "other"}, "m", None, None, None),
    ({"message": "", "detail": "m"}, "m", None, None, None),
    (error("m", code="context"), "m", "BadRequestError", None, "context"),
    (error("m", code=True, type=5, param=["p"]), "m", None, None, None),
    ({"error": {"detail": "m"}}, "m", None, None, None),
    (
        {
            "detail": [
                {"loc": ["body", "messages", 0], "msg": "Field required", "type": "missing"},
                {"loc": ["body"], "msg": "no"},
                3,
            ]
        },
        "body.messages.0: Field required; body: no",
        None,
        None,
        None,
    ),
    ({"detail": [{"a": 1}]}, '[{"a": 1}]', None, None, None),
    ({"detail": {"reason": "ü"}}, '{"reason": "ü"}', None, None, None),
    ("only text", "only text", None, None, None),
]


@pytest.mark.parametrize(("body", "message", "kind", "param", "code"), SHAPES)
def test_shapes(
    body: object, message: str, kind: str | None, param: str | None, code: int | str | None
) -> None:
    made = error_for(400, body)
    assert str(made) == f"400: {message}"
    assert (made.type, made.param, made.code) == (kind, param, code)
    assert made.body == body


@pytest.mark.parametrize(
    "body",
    [b"", b" \r\n", {"error": {"message": ""}}, {"error": ""}, {"error": None}, {}, [1], None, 5, b'""'],
)
def test_bodies_without_a_reason(body: object) -> None:
    assert str(error_for(500, body)) == "500: the server gave no reason; its log may have one"
    assert str(error_for(400, body)) == "400: the server gave no reason"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"Internal Server Error", "Internal Server Error"),
        (
            b"<html><head><title>500 Bad\n Luck</title></head><body><h1>no</h1></body></html>",
            "Bad Luck",
        ),
        (b"<title> </title><style>p {}</style><p>Ask&nbsp;&lt;ops&gt;</p><script>x<y</script>", "Ask <ops>"),
        (b"upstream <b>timed</b> out", "upstream timed out"),
        (b"caf\xe9", "caf\ufffd"),
        (b"{broken", "{broken"),
        (b"[" * 100_000, "[" * 299 + "…"),
        (b"1" * 5000, "1" * 299 + "…"),
    ],
)
def test_bodies_that_are_not_json(body: bytes, text: str) -> None:
    made = error_for(500, body)
    assert str(made) == f"500: {text}"
    assert made.body == body.decode("utf-8", "replace")


def test_json_that_is_not_utf8() -> None:
    assert error_for(400, '{"error": "\xe9"}'.encode("latin-1")).body == '{"error": "\ufffd"}'
    assert error_for(400, '{"error": "é"}'.encode("utf-16")).body == {"error": "é"}


@pytest.mark.parametrize("start", ["<", "<script", "<title", "<style>", "<title>", "max_tokens ", "&"])
def test_only_the_start_of_long_pages_is_read(start: str) -> None:
    # Parsing such a page completely would take minutes.
    made = error_for(500, (start * 150_000).encode())
    assert len(str(made)) <= 310
    assert error_for(400, error(start * 150_000)).message.endswith("…")


def test_a_long_reason_is_shortened_only_in_the_message() -> None:
    made = error_for(400, error("x" * 10_000))
    assert len(str(made)) < 4100
    assert made.body == error("x" * 10_000)


# ------------------------------------------------------------------------------------------------
# Responses of a real server
# ------------------------------------------------------------------------------------------------

ANSWERS: dict[str, tuple[type[APIStatusError], str | None, str]] = {
    "error_auth_missing": (AuthenticationError, None, "401: Unauthorized - check api_key="),
    "error_auth_wrong": (AuthenticationError, None, "401: Unauthorized - check api_key="),
    "error_bad_regex": (BadRequestError, None, "400: Grammar error: at 1(8): invalid regex"),
    "error_context": (ContextWindowExceededError, "input_tokens", "400: This model's maximum context length is 2048"),
    "error_embeddings_unsupported": (NotFoundError, None, "404: Not Found - this server does not have the"),
    "error_empty_messages": (BadRequestError, None, "400: Cannot apply chat template to an empty"),
    "error_image_unsupported": (BadRequestError, None, "400: tiny-qwen3 is not a multimodal model"),
    "error_json_body": (BadRequestError, "body.1", "400: 1 validation error:"),
    "error_max_tokens": (ContextWindowExceededError, "max_tokens", "400: max_tokens=100000 cannot be greater than"),
    "error_method": (APIStatusError, None, "405: Method Not Allowed - this route does not accept such requests."),
    "error_model": (NotFoundError, "model", "404: The model `nope` does not exist. Valid aliases: tiny-qwen3."),
    "error_not_found": (NotFoundError, None, "404: Not Found - this server does not have the route /v1/x."),
    "error_structured_two": (BadRequestError, None, "400: You can only use one kind of constraints"),
    "error_temperature": (BadRequestError, "temperature", "400: temperature must be non-negative, got -1.0."),
    "error_type": (BadRequestError, "body.temperature", "400: 1 validation error:"),
}  # fmt: skip


def test_every_recorded_error_is_here() -> None:
    found = {path.stem for path in (RECORDED / "vllm-0.32.0").glob("error_*.json")}
    assert found == {*ANSWERS, "error_bad_grammar_stream"}


@pytest.mark.parametrize("name", ANSWERS)
def test_recorded_errors(name: str) -> None:
    recorded: dict[str, Any] = json.loads((RECORDED / f"vllm-0.32.0/{name}.json").read_text("utf-8"))
    response = recorded["response"]
    made = error_for(response["status"], response["body"].encode(), response["headers"])
    kind, param, start = ANSWERS[name]
    assert type(made) is kind
    assert made.param == param
    assert str(made).startswith(start)
    assert made.body == json.loads(response["body"])


def sampled() -> list[tuple[int, str]]:
    """What the server's own handlers make of each of its exceptions: status and body."""
    text = (RECORDED / "vllm-0.32.0-samples.txt").read_text("utf-8")
    section = text.split("## 3. error bodies by exception\n")[1].split("\n## ")[0]
    found: list[tuple[int, str]] = []
    for line in section.splitlines():
        before, brace, after = line.partition("{")
        status = before.split()
        if brace and status and status[-1].isdigit():
            found.append((int(status[-1]), brace + after))
    return found


def test_sampled_errors() -> None:
    samples = sampled()
    assert len(samples) >= 15
    for status, body in samples:
        made = error_for(status, body.encode())
        inner = json.loads(body).get("error")
        assert made.status_code == status
        assert not isinstance(made, ContextWindowExceededError)
        if isinstance(inner, dict):
            assert made.code == status
            assert str(made).startswith(f"{status}: {inner['message'] or 'the server gave no reason'}")  # pyright: ignore[reportUnknownArgumentType] # JSON


# ------------------------------------------------------------------------------------------------
# Context overflows
# ------------------------------------------------------------------------------------------------

TOO_LONG = [
    "This model's maximum context length is 2048 tokens. However, your prompt contains at least 2049 input tokens",
    "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4000 in the messages,",
    "The decoder prompt (length 5000) is longer than the maximum model length of 2048. Make sure that",
    "max_tokens=100000 cannot be greater than max_model_len=2048. Please request fewer output tokens.",
    "The prompt (3000 tokens) exceeds the max_model_len",
    "The input exceeds model's maximum context",
    "The prompt exceeds the model's maximum length",
    "max_tokens must be at least 1, got 0.",
    "max_tokens must be at least 1, got -17.",
    "max_completion_tokens must be at least 1, got 0.",
    "'max_tokens' or 'max_completion_tokens' is too large: 9000. This model's maximum",
    "max_tokens is too large: 9000.",
    "The input (5000 tokens) is longer than the model's context length (2048 tokens).",
]

FITS = [
    "max_tokens must be at least 1, got 1.5",
    "min_tokens must be less than or equal to max_tokens=5, got 10.",
    "min_tokens must be at least 0, got -1",
    "the image is too large",
    "top_logprobs is too large: 30",
    "stop cannot contain an empty string.",
    "the maximum number of tools is 5",
]


@pytest.mark.parametrize("message", TOO_LONG)
def test_every_wording_of_a_context_overflow(message: str) -> None:
    old: dict[str, object] = {"object": "error", "message": message, "type": "BadRequestError", "code": 400}
    for body in (error(message), old, {"detail": message}):
        made = error_for(400, body)
        assert type(made) is ContextWindowExceededError
    assert type(error_from_event(ResponseHead(200, {}, "id"), error(message))) is ContextWindowExceededError
    # Only a rejected request can have been too long.
    assert type(error_for(500, error(message))) is InternalServerError


@pytest.mark.parametrize("message", FITS)
def test_what_only_sounds_like_a_context_overflow(message: str) -> None:
    assert type(error_for(400, error(message))) is BadRequestError


@pytest.mark.parametrize(
    "fields",
    [
        {"param": "input_tokens"},
        {"param": "input_text"},
        {"param": "max_tokens"},
        {"param": "max_completion_tokens"},
        {"code": "context_length_exceeded"},
        {"type": "exceed_context_size_error"},
    ],
)
def test_the_parameter_or_the_code_reports_a_context_overflow(fields: dict[str, object]) -> None:
    assert type(error_for(400, error("no", **fields))) is ContextWindowExceededError


@pytest.mark.parametrize(
    "fields",
    [
        {"param": "min_tokens"},
        {"param": "body.max_tokens"},
        # Other servers blame it for unrelated problems.
        {"param": "max_tokens", "code": "unsupported_parameter"},
        {"param": "max_tokens", "code": None},
    ],
)
def test_the_parameter_reports_something_else(fields: dict[str, object]) -> None:
    assert type(error_for(400, error("no", **fields))) is BadRequestError


# ------------------------------------------------------------------------------------------------
# Advice
# ------------------------------------------------------------------------------------------------


def test_a_redirect_names_its_target() -> None:
    made = error_for(308, b"", {"location": "https://h/v1/chat/completions?token=1"})
    assert type(made) is APIStatusError
    assert str(made) == (
        "308: the server gave no reason - it redirects to https://h/v1/chat/completions. Redirects are not followed, "
        "since they would leak the key. Correct base_url."
    )
    assert "it redirects. " in str(error_for(302, b""))


@pytest.mark.parametrize(
    ("status", "body", "advice"),
    [
        (
            404,
            {"detail": "Not Found"},
            "404: Not Found - this server does not have the route /v1/x. Start it with X.",
        ),
        # A gateway's own message. vLLM, if it returns that, says itself how to enable the route.
        (403, {"error": "the key may not use this model"}, "403: the key may not use this model"),
        (501, {"error": "no"}, "501: no - Start it with X."),
        (
            413,
            {"error": {"message": "Request body is too large", "code": 413}},
            "413: Request body is too large - the request is larger than the server or a proxy accepts.",
        ),
        (404, {"error": "no such model"}, "404: no such model"),
        (404, {"error": "Model not found"}, "404: Model not found"),
        # Gateways and servers other than vLLM, which say so in their own words.
        (
            404,
            None,
            "404: the server gave no reason - this server does not have the route /v1/x. Start it with X.",
        ),
        (
            404,
            "<html><head><title>404 Not Found</title></head><body>nginx</body></html>",
            "404: Not Found - this server does not have the route /v1/x. Start it with X.",
        ),
        (
            404,
            {"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}},
            "404: File Not Found - this server does not have the route /v1/x. Start it with X.",
        ),
        (
            404,
            {
                "error": {
                    "message": "Invalid URL (POST /v1/x)",
                    "type": "invalid_request_error",
                    "param": None,
                }
            },
            "404: Invalid URL (POST /v1/x) - this server does not have the route /v1/x. Start it with X.",
        ),
        (500, {"error": "no"}, "500: no"),
    ],
)
def test_what_a_route_needs(status: int, body: object, advice: str) -> None:
    raw = body.encode() if isinstance(body, str) else b"" if body is None else json.dumps(body).encode()
    head = ResponseHead(status, {}, "id-1")
    found = str(error_from_reply(head, raw, route="/v1/x", route_hint="Start it with X."))
    assert found.partition(" Send less")[0] == advice


def test_a_base_url_without_v1() -> None:
    head = ResponseHead(404, {}, "id-1")
    base = "http://127.0.0.1:8000/v1"
    for raw in (b'{"detail":"Not Found"}', b"404 page not found", b""):
        made = error_from_reply(head, raw, route="/chat/completions", missing_v1=base, route_hint="Start it.")
        assert str(made).endswith(
            " - this server does not have the route /chat/completions. base_url usually ends with /v1: write "
            "base_url='http://127.0.0.1:8000/v1'."
        )
    unknown = b'{"error": {"message": "The model `x` does not exist."}}'
    assert "base_url" not in str(error_from_reply(head, unknown, route="/x", missing_v1=base))


def test_advice_for_what_was_asked_the_wrong_way() -> None:
    basic = {"www-authenticate": 'Basic realm="x"'}
    assert "write headers={'Authorization': 'Basic ...'}" in str(error_for(401, b"", basic))
    assert "check api_key=" in str(error_for(401, b"", {"www-authenticate": "Bearer"}))
    page = b"<title>400 The plain HTTP request was sent to HTTPS port</title>"
    assert str(error_for(400, page)) == (
        "400: The plain HTTP request was sent to HTTPS port - write https:// in base_url."
    )


def test_an_error_inside_the_detail() -> None:
    inner = {"message": "", "type": "invalid_request_error", "param": None, "code": "invalid_api_key"}
    made = error_for(401, {"detail": {"error": inner}})
    assert str(made) == (
        "401: the server gave no reason - check api_key= or the environment variable it comes from."
    )
    assert (made.code, made.type) == ("invalid_api_key", "invalid_request_error")


def test_a_missing_model_is_not_a_missing_route() -> None:
    assert "route" not in str(error_for(404, error("The model `x` does not exist.", code=404)))


def test_an_earlier_response_that_is_missing_names_the_store() -> None:
    made = error_for(404, error("Response with id 'resp_x' not found.", param="response_id", code=404))
    assert str(made) == (
        "404: Response with id 'resp_x' not found. - vLLM keeps responses only when VLLM_ENABLE_RESPONSES_API_STORE=1 "
        "was set when it was started."
    )


# ------------------------------------------------------------------------------------------------
# Good statuses
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"{}", b'{"error": null}', b'{"error": ""}', b'{"object": "list", "data": []}'],
)
def test_good_responses_report_no_error(body: bytes) -> None:
    assert error_despite_status(ResponseHead(200, {}, "id"), body) is None


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        ({"error": "slow down"}, InternalServerError, 500),
        ({"error": {"message": "slow down", "code": 429}}, RateLimitError, 429),
        ({"object": "error", "message": "slow down", "code": 503}, ServiceUnavailableError, 503),
    ],
)
def test_errors_under_a_good_status(body: dict[str, object], kind: type[APIStatusError], status: int) -> None:
    made = error_despite_status(ResponseHead(200, {"a": "b"}, "id-1"), json.dumps(body).encode())
    assert made is not None
    assert type(made) is kind
    assert made.status_code == status
    assert made.response.status_code == 200
    assert made.request_id == "id-1"
    assert str(made) == f"{status} (in a response with status 200): slow down"


def test_a_response_that_is_not_a_stream_is_quoted() -> None:
    made = no_stream(
        ResponseHead(200, {"content-type": "text/html; charset=x"}, "id-1"), b"\xff" + b"y" * 9000
    )
    assert made.body == "\ufffd" + "y" * 1999
    assert (made.status_code, made.request_id) == (200, "id-1")
    assert str(made).startswith("expected a stream, but the response is text/html; it starts with: \ufffdyyy")
    assert len(str(made)) < 400


def test_a_code_that_is_not_a_status() -> None:
    for code in ("4" * 5_000, "404040", "-400", 99, 1e999):
        assert (
            error_from_event(
                ResponseHead(200, {}, "id"), {"error": {"message": "m", "code": code}}
            ).status_code
            == 500
        )


# ------------------------------------------------------------------------------------------------
# What gateways answer
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "headers", "words"),
    [
        (
            502,
            b"<title>502 Bad Gateway</title>",
            {},
            "502: Bad Gateway - a proxy got no response from the server",
        ),
        (504, b"<title>504 Gateway Time-out</title>", {}, "504: Gateway Time-out - a proxy stopped waiting"),
        (407, b"", {}, "check the proxy's address and credentials (HTTP_PROXY, ALL_PROXY)"),
    ],
)
def test_advice_for_gateways(status: int, body: bytes, headers: dict[str, str], words: str) -> None:
    assert words in str(error_for(status, body, headers))


def test_an_error_that_is_wrapped_once_more() -> None:
    inner = {"message": "bad key", "type": "invalid_request_error", "param": None, "code": "invalid_api_key"}
    made = error_for(401, {"detail": {"error": inner}})
    assert (made.code, made.type) == ("invalid_api_key", "invalid_request_error")
    assert str(made).startswith("401: bad key")


@pytest.mark.parametrize("depth", [99, 100, 500, 900])
def test_a_nested_body_pickles(depth: int) -> None:
    made = error_for(400, b'{"error": {"message": ' + b"[" * depth + b"]" * depth + b"}}")
    assert pickle.loads(pickle.dumps(made)).body == made.body
    assert isinstance(made.body, str)
    assert isinstance(error_for(400, b"[" * 50 + b"]" * 50).body, list)
