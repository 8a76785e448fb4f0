"""An error that the server reports, as a status or inside a stream, to the right exception."""

from __future__ import annotations

import json
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
    ServiceUnavailableError,
    UnprocessableEntityError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vllmchat.http.call import Head

MAX_ERROR_BYTES = 1024 * 1024
"""What is read of an error's body."""

_BY_STATUS: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
    503: ServiceUnavailableError,
}

# Every way in which servers from 0.8 on say that a request does not fit. Some name the parameter, some do not.
# `min_tokens` and unrelated limits must not match.
_CONTEXT = re.compile(
    r"maximum context length|longer than the maximum model length|exceeds model's maximum|exceeds the max_model_len"
    r"|cannot be greater than max_model_len|(?:max_tokens|max_completion_tokens)\W.*is too large"
    r"|max_tokens must be at least 1, got (?:0|-\d+)",
    re.IGNORECASE,
)
_CONTEXT_PARAMS = frozenset({"input_tokens", "input_text"})
_CONTEXT_CODES = frozenset({"context_length_exceeded"})


def error_from_reply(head: Head, raw: bytes) -> APIStatusError:
    """The exception for an answer with an error status."""
    body = _decoded(raw)
    status = head.status
    return _make(status, body, head, whole=True)


def error_from_event(head: Head, event: Mapping[str, object]) -> APIStatusError:
    """The exception for an `{"error": ...}` event inside a stream that had begun with 200."""
    return _make(_code_of(event) or 500, event, head, whole=False)


def _make(status: int, body: object, head: Head, *, whole: bool) -> APIStatusError:
    message, kind, param, code = _parts(body)
    cls = _BY_STATUS.get(status)
    if cls is None:
        cls = InternalServerError if status >= 500 else APIStatusError
    if cls is BadRequestError and _is_context(message, param, code):
        cls = ContextWindowExceededError
    return cls(
        _sentence(status, message, body, head, whole=whole),
        status_code=status,
        code=code,
        type=kind,
        param=param,
        body=body,
        request_id=head.request_id,
        response=ErrorResponse(head.status, dict(head.headers)),
    )


def _decoded(raw: bytes) -> object:
    if not raw.strip():
        return None
    try:
        return cast("object", json.loads(raw))
    except (ValueError, RecursionError):
        return raw.decode("utf-8", "replace")


def _parts(body: object) -> tuple[str | None, str | None, str | None, int | str | None]:
    """Message, type, param and code of any of the shapes that servers answer with."""
    if not isinstance(body, dict):
        return None, None, None, None
    fields = cast("dict[str, object]", body)
    inner = fields.get("error")
    if isinstance(inner, str):
        return inner or None, None, None, None
    if isinstance(inner, dict):
        fields = cast("dict[str, object]", inner)
    message = fields.get("message")
    if message is None:
        message = fields.get("detail")
    if message is not None and not isinstance(message, str):
        message = json.dumps(message, ensure_ascii=False)
    kind, param, code = fields.get("type"), fields.get("param"), fields.get("code")
    return (
        message or None,
        kind if isinstance(kind, str) else None,
        param if isinstance(param, str) else None,
        code if isinstance(code, int | str) and not isinstance(code, bool) else None,
    )


def _code_of(body: Mapping[str, object]) -> int | None:
    code = _parts(body)[3]
    if isinstance(code, str) and code.isdigit():
        code = int(code)
    return code if isinstance(code, int) and 400 <= code <= 599 else None


def _is_context(message: str | None, param: str | None, code: object) -> bool:
    if code in _CONTEXT_CODES or param in _CONTEXT_PARAMS:
        return True
    return message is not None and _CONTEXT.search(message) is not None


def _sentence(status: int, message: str | None, body: object, head: Head, *, whole: bool) -> str:
    where = "" if whole else " (inside the stream)"
    text = message
    if text is None and isinstance(body, str):
        text = _text_of_html(body)
    if not text:
        text = "the server gave no reason" if status >= 500 else "no reason was given"
        if status >= 500:
            text += "; its log may"
    return f"{status}{where}: {text}{_advice(status, body, head)}"


def _advice(status: int, body: object, head: Head) -> str:
    if 300 <= status < 400:
        target = head.headers.get("location", "")
        to = f" to {target.split('?', 1)[0]}" if target else ""
        return f" - it redirects{to}. Redirects are not followed: they would carry the key away. Correct base_url."
    if status == 401:
        return " - check api_key= or the environment variable it comes from."
    if status == 404 and isinstance(body, dict) and "detail" in body:
        return (
            " - this server has no such route. Check base_url, and that the loaded model supports the call."
        )
    if status == 405:
        return " - this route does not take such requests. Check base_url."
    return ""


_TAGS = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)


def _text_of_html(text: str) -> str:
    """What a person would read of a proxy's error page, at most 300 characters."""
    title = re.search(r"<title[^>]*>(.*?)</title>", text[:20_000], re.DOTALL | re.IGNORECASE)
    shown = title.group(1) if title and title.group(1).strip() else _TAGS.sub(" ", text[:20_000])
    shown = " ".join(shown.split())
    return shown if len(shown) <= 300 else shown[:299] + "…"
