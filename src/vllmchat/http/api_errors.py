"""Maps an error that the server reports, as a status or inside a stream, to the right exception."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

from vllmchat.errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    ContextWindowExceededError,
    ErrorResponse,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ResponseError,
    ServiceUnavailableError,
    UnprocessableEntityError,
)
from vllmchat.http.excerpt import beginning, excerpt, start_of
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    import json
    from collections.abc import Mapping

    from vllmchat.http.call import ResponseHead
else:
    json = LazyModule("json")

MAX_ERROR_BYTES = 1024 * 1024
"""How much of an error's body is read."""

MAX_MESSAGE = 4_000
"""How many characters of the server's reason go into a message; `body` has the rest."""

_DEEPEST = 100
"""How deeply the body of an error may be nested."""

_BY_STATUS: dict[int | None, type[APIStatusError]] = {
    cls.status: cls
    for cls in (
        BadRequestError,
        AuthenticationError,
        PermissionDeniedError,
        NotFoundError,
        ConflictError,
        UnprocessableEntityError,
        RateLimitError,
        ServiceUnavailableError,
    )
}

# Every way in which vLLM from 0.8 on, and the servers most like it, report that a request does not fit. Some name the
# parameter, some do not. `min_tokens` and unrelated limits must not match.
_CONTEXT = re.compile(
    r"maximum context length|longer than the (?:maximum model length|model's context length)"
    r"|exceeds (?:the )?model's maximum|exceeds the max_model_len|cannot be greater than max_model_len"
    r"|(?:max_tokens|max_completion_tokens)\W.*is too large"
    r"|(?:max_tokens|max_completion_tokens) must be at least 1, got (?:0|-\d+)",
    re.IGNORECASE,
)
_CONTEXT_PARAMS = frozenset({"input_tokens", "input_text"})
_CONTEXT_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error"})


def error_from_reply(
    head: ResponseHead,
    raw: bytes,
    *,
    route: str,
    missing_v1: str | None = None,
    route_hint: str | None = None,
) -> APIStatusError:
    """The exception for a response with an error status.

    Args:
        head: The head of the response.
        raw: Its body.
        route: The path of the request.
        missing_v1: The base URL with `/v1`, for a request below one without it.
        route_hint: What a server needs in order to have the route, for one that lacks it.
    """
    body = _decoded(raw)
    if _lacks_route(head.status, body) and missing_v1 is not None:
        route_hint = f"base_url usually ends with /v1: write base_url={missing_v1!r}."
    return _make(head.status, body, head, "", route_hint, route)


def error_from_event(head: ResponseHead, event: Mapping[str, object]) -> APIStatusError:
    """The exception for an `{"error": ...}` event inside a stream that began with status 200."""
    return _make(_status_of(event), event, head, " (inside the stream)")


def error_in_stream(head: ResponseHead, raw: bytes) -> APIStatusError | None:
    """The exception for text inside a stream that reports an error; None for other text."""
    fields = _reported(raw)
    return None if fields is None else error_from_event(head, fields)


def error_despite_status(head: ResponseHead, raw: bytes) -> APIStatusError | None:
    """The exception for a whole response that has a good status but reports an error; None for others."""
    fields = _reported(raw)
    if fields is None:
        return None
    return _make(_status_of(fields), fields, head, f" (in a response with status {head.status})")


def _reported(raw: bytes) -> dict[str, object] | None:
    body = _decoded(raw)
    if not isinstance(body, dict):
        return None
    fields = cast("dict[str, object]", body)
    return fields if reports_error(fields) else None


def reports_error(fields: Mapping[str, object]) -> bool:
    """Whether a JSON object that is not a proper answer reports an error.

    It does in a non-empty `error`, the flat `{"object": "error", "message": ...}`, FastAPI's `detail`, or a message
    with a code or status.
    """
    if fields.get("error") or fields.get("object") == "error":
        return True
    if "choices" in fields:
        return False
    message = fields.get("message")
    return bool(fields.get("detail")) or (
        isinstance(message, str) and any(name in fields for name in _STATUS_KEYS)
    )


_STATUS_KEYS = ("code", "status_code", "status")


def no_stream(head: ResponseHead, raw: bytes) -> ResponseError:
    """The exception for a whole response where a stream was expected."""
    text = start_of(raw)
    kind = head.headers.get("content-type", "").partition(";")[0]
    what = f"is {kind}; {beginning(text)}" if kind else beginning(text).replace("it ", "", 1)
    return ResponseError(
        f"expected a stream, but the response {what}. Check base_url, and that the server supports streaming",
        status_code=head.status,
        body=text,
        request_id=head.request_id,
    )


def too_large(head: ResponseHead, begin: bytes, limit: int) -> ResponseError:
    """The exception for a response that goes on beyond the limit."""
    return ResponseError(
        f"the response has more than {limit:,} bytes",
        status_code=head.status,
        body=start_of(begin),
        request_id=head.request_id,
    )


def unreadable(error: Exception, head: ResponseHead | None) -> ResponseError:
    """The exception for a response that makes a decoder fail in a way that nobody foresaw."""
    return ResponseError(
        f"the response cannot be read: {type(error).__name__}: {excerpt(str(error))}",
        status_code=head.status if head else None,
        request_id=head.request_id if head else None,
    )


def _make(
    status: int, body: object, head: ResponseHead, where: str, route_hint: str | None = None, route: str = ""
) -> APIStatusError:
    if _is_deep(body):
        # It could not be pickled, nor printed.
        body = "(JSON that is nested too deeply to be kept)"
    message, kind, param, code = _parts(body)
    cls = _BY_STATUS.get(status)
    if cls is None:
        cls = InternalServerError if status >= 500 else APIStatusError
    if cls is BadRequestError and _is_context(message, kind, param, code):
        cls = ContextWindowExceededError
    return cls(
        f"{status}{where}: {_reason(status, message, body)}{_advice(status, param, body, head, route_hint, route)}",
        status_code=status,
        code=code,
        type=kind,
        param=param,
        body=body,
        request_id=head.request_id,
        response=ErrorResponse(head.status, dict(head.headers)),
    )


def _is_deep(body: object) -> bool:
    level = [body]
    for _ in range(_DEEPEST):
        dicts = [cast("dict[str, object]", each).values() for each in level if isinstance(each, dict)]
        lists = [cast("list[object]", each) for each in level if isinstance(each, list)]
        level = [child for children in (*dicts, *lists) for child in children]
        if not level:
            return False
    return True


def _decoded(raw: bytes) -> object:
    if not raw.strip():
        return None
    try:
        return cast("object", json.loads(raw))
    except (ValueError, RecursionError):
        return raw.decode("utf-8", "replace")


def _parts(body: object) -> tuple[str | None, str | None, str | None, int | str | None]:
    """Message, type, param and code, from any of the structures that servers use."""
    if not isinstance(body, dict):
        return None, None, None, None
    fields = cast("dict[str, object]", body)
    detail = fields.get("detail")
    if isinstance(detail, dict) and "error" in detail:
        # FastAPI's way to report what another server would report by itself.
        fields = cast("dict[str, object]", detail)
    inner = fields.get("error")
    if isinstance(inner, str):
        return inner or None, None, None, None
    if isinstance(inner, dict):
        fields = cast("dict[str, object]", inner)
    message = fields.get("message") or fields.get("detail")
    if message is not None and not isinstance(message, str):
        message = _listed(message)
    kind, param, code = fields.get("type"), fields.get("param"), fields.get("code")
    return (
        message or None,
        kind if isinstance(kind, str) else None,
        param if isinstance(param, str) else None,
        code if isinstance(code, int | str) and not isinstance(code, bool) else None,
    )


def _listed(detail: object) -> str:
    """FastAPI's list of what is wrong with a request, as text; other JSON unchanged."""
    lines: list[str] = []
    for each in cast("list[object]", detail) if isinstance(detail, list) else []:
        problem = cast("dict[str, object]", each) if isinstance(each, dict) else {}
        place, text = problem.get("loc"), problem.get("msg")
        if isinstance(place, list) and isinstance(text, str):
            lines.append(f"{'.'.join(map(str, cast('list[object]', place)))}: {text}")
    return "; ".join(lines) or json.dumps(detail, ensure_ascii=False)


def _status_of(body: Mapping[str, object]) -> int:
    """The status that the error would have had before the response began; 500 if unknown."""
    _, kind, _, code = _parts(body)
    if code in _CONTEXT_CODES or kind in _CONTEXT_CODES:
        return 400
    for status in (code, *(body.get(name) for name in _STATUS_KEYS)):
        if isinstance(status, str) and status.isdecimal() and len(status) < 10:
            status = int(status)
        if isinstance(status, int) and 400 <= status <= 599:
            return status
    return 500


def _is_context(message: str | None, kind: str | None, param: str | None, code: int | str | None) -> bool:
    if code in _CONTEXT_CODES or kind in _CONTEXT_CODES or param in _CONTEXT_PARAMS:
        return True
    if param in ("max_tokens", "max_completion_tokens") and isinstance(code, int):
        # vLLM blames these if the requested reply does not fit. Its codes are numbers; other servers, whose codes are
        # words, blame them for anything.
        return True
    return message is not None and _CONTEXT.search(message[:MAX_MESSAGE]) is not None


def _reason(status: int, message: str | None, body: object) -> str:
    text = message
    if text is None and isinstance(body, str):
        # Many pages repeat the status.
        text = _text_of_html(body).removeprefix(f"{status} ")
    if text:
        return text if len(text) <= MAX_MESSAGE else f"{text[: MAX_MESSAGE - 1]}…"
    return "the server gave no reason; its log may have one" if status >= 500 else "the server gave no reason"


def _advice(
    status: int, param: str | None, body: object, head: ResponseHead, route_hint: str | None, route: str
) -> str:
    if 300 <= status < 400:
        target = head.headers.get("location", "")
        to = f" to {target.split('?', 1)[0]}" if target else ""
        return f" - it redirects{to}. Redirects are not followed, since they would leak the key. Correct base_url."
    if status == 401 and head.headers.get("www-authenticate", "").lower().startswith("basic"):
        return " - it asks for a user and a password: write headers={'Authorization': 'Basic ...'}."
    if status == 401:
        return " - check api_key= or the environment variable it comes from."
    if status == 407:
        return " - check the proxy's address and credentials (HTTP_PROXY, ALL_PROXY), or name the server in NO_PROXY."
    if status in _GATEWAY:
        return _GATEWAY[status]
    if status == 400 and isinstance(body, str) and "HTTPS port" in body:
        return " - write https:// in base_url."
    if _lacks_route(status, body):
        return f" - this server does not have the route {route}. {route_hint or 'Check base_url.'}"
    if status == 404 and param == "response_id":
        return (
            " - vLLM keeps responses only when VLLM_ENABLE_RESPONSES_API_STORE=1 was set when it was started."
        )
    if route_hint is not None and status == 501:
        # Not with 403: vLLM says there itself how to enable a route, and others mean something else, such as the key.
        return f" - {route_hint}"
    if status == 405:
        return " - this route does not accept such requests. Check base_url."
    if status == 413:
        return (
            " - the request is larger than the server or a proxy accepts. Send less, or raise the limit:"
            " VLLM_HTTP_MAX_REQUEST_BODY_SIZE of vLLM's Rust frontend, client_max_body_size of nginx."
        )
    return ""


_GATEWAY = {
    502: " - a proxy got no response from the server, which may have had the request.",
    504: (
        " - a proxy stopped waiting for the server, which may still be generating: stream the reply, or let the proxy "
        "wait longer."
    ),
}

_NO_ROUTE = re.compile(
    r"(?:(?:file|page|route|path|endpoint|resource) )?not found\W*|(?:invalid|unknown)( request)? url\b.*",
    re.IGNORECASE | re.DOTALL,
)


def _lacks_route(status: int, body: object) -> bool:
    """Whether a 404 is about the route, and not about a model or a response, which come with an error of their own."""
    if status != 404:
        return False
    message, _, param, _ = _parts(body)
    if isinstance(body, dict) and "detail" in body:
        return True
    return param is None and (message is None or _NO_ROUTE.fullmatch(message) is not None)


_TAGS = re.compile(r"<(script|style)\b.*?</\1>|<[^<>]*>", re.DOTALL | re.IGNORECASE)
_TITLE = re.compile(r"<title\b[^<>]*>(.*?)</title>", re.DOTALL | re.IGNORECASE)


def _text_of_html(text: str) -> str:
    """The visible text of a proxy's error page, at most 300 characters."""
    import html  # slow: it has a large table of entities

    text = text[:8_000]
    title = _TITLE.search(text)
    shown = title.group(1) if title and title.group(1).strip() else _TAGS.sub(" ", text)
    shown = " ".join(html.unescape(shown).split())
    return shown if len(shown) <= 300 else f"{shown[:299]}…"
