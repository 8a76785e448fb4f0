"""Running a server: sleep and wake, pause and resume, abort, the prefix cache, LoRA adapters."""

# No `from __future__ import annotations`: pydantic would have to evaluate every annotation again.

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Final, Literal, TypeAlias, TypeVar, cast
from urllib.parse import urlencode

from pydantic_core import to_json

from vllmchat.checking.call_params import TimeoutParams, checked_timeout
from vllmchat.checking.rules import Bounds, Length, NotBlank
from vllmchat.checking.validator import Validator
from vllmchat.client.request import ServerRequest
from vllmchat.errors import InvalidRequestError, Problem
from vllmchat.http.call import Response
from vllmchat.http.timeout import Timeout
from vllmchat.wire.decode import WireModel, decode, unexpected_body

T = TypeVar("T")

PauseMode: TypeAlias = Literal["abort", "wait", "keep"]
"""What happens to running requests: they are aborted (finish reason `abort`), waited for, or suspended."""

WakeTag: TypeAlias = Literal["weights", "kv_cache", "scheduling"]
"""A part of a sleeping engine. Servers accept any other word, log it, and wake nothing."""

DEV_MODE: Final = (
    "Admin routes exist only if the server was started with VLLM_SERVER_DEV_MODE=1. They need no API key."
)
PAUSING: Final = f"{DEV_MODE} Pausing and resuming also need vLLM 0.12 or newer."
ABORTING: Final = f"{DEV_MODE} Aborting also needs vLLM 0.26 or newer."
LORA: Final = (
    "Loading adapters requires a server started with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1."
)


# The types of the parameters. The methods explain them.


class _Sleep(TimeoutParams, total=False):
    level: Annotated[int, Bounds(ge=0, le=2)]
    mode: PauseMode


class _WakeUp(TimeoutParams, total=False):
    tags: Annotated[Sequence[WakeTag], Length(1)]


class _ResetPrefixCache(TimeoutParams, total=False):
    reset_running_requests: bool
    reset_external: bool


class _Pause(TimeoutParams, total=False):
    mode: PauseMode
    clear_cache: bool


class _Abort(TimeoutParams, total=False):
    request_ids: Annotated[Sequence[Annotated[str, NotBlank()]], Length(1)]


class _LoadLoRA(TimeoutParams, total=False):
    name: Annotated[str, NotBlank()]
    path: Annotated[str, NotBlank()]
    load_inplace: bool
    is_3d_lora_weight: bool


class _UnloadLoRA(TimeoutParams, total=False):
    name: Annotated[str, NotBlank()]


_SLEEP: Final = Validator("VLLMProvider.sleep", _Sleep)
_WAKE_UP: Final = Validator("VLLMProvider.wake_up", _WakeUp)
_RESET_PREFIX_CACHE: Final = Validator("VLLMProvider.reset_prefix_cache", _ResetPrefixCache)
_PAUSE: Final = Validator("VLLMProvider.pause", _Pause)
_ABORT: Final = Validator("VLLMProvider.abort", _Abort)
_LOAD_LORA: Final = Validator("VLLMProvider.load_lora", _LoadLoRA)
_UNLOAD_LORA: Final = Validator("VLLMProvider.unload_lora", _UnloadLoRA)

Wait: TypeAlias = float | Timeout | None


def sleep_request(level: int, mode: PauseMode | None, timeout: Wait) -> ServerRequest[None]:
    """The request that puts the engine to sleep.

    Raises:
        InvalidRequestError: A parameter is wrong.
    """
    checked = _SLEEP.check({"level": level, "mode": mode, "timeout": timeout})
    return _post("/sleep", _read_done, checked.timeout, query=checked.fields)


def wake_up_request(tags: WakeTag | Sequence[WakeTag] | None, timeout: Wait) -> ServerRequest[bool | None]:
    """The request that wakes the engine up.

    Raises:
        InvalidRequestError: A parameter is wrong.
    """
    checked = _WAKE_UP.check({"tags": _listed(tags), "timeout": timeout})
    return _post("/wake_up", _read_awake, checked.timeout, query=checked.fields)


def is_sleeping_request(timeout: Wait) -> ServerRequest[bool]:
    """The request that checks whether the engine sleeps."""
    return ServerRequest("/is_sleeping", _read_sleeping, checked_timeout(timeout), route_hint=DEV_MODE)


def reset_prefix_cache_request(
    reset_running_requests: bool | None, reset_external: bool | None, timeout: Wait
) -> ServerRequest[bool | None]:
    """The request that clears the prefix cache.

    Raises:
        InvalidRequestError: A parameter is wrong.
    """
    options = {"reset_running_requests": reset_running_requests, "reset_external": reset_external}
    checked = _RESET_PREFIX_CACHE.check({**options, "timeout": timeout})
    return _post("/reset_prefix_cache", _read_success, checked.timeout, query=checked.fields)


def pause_request(mode: PauseMode | None, clear_cache: bool | None, timeout: Wait) -> ServerRequest[None]:
    """The request that pauses generation.

    Raises:
        InvalidRequestError: A parameter is wrong.
    """
    checked = _PAUSE.check({"mode": mode, "clear_cache": clear_cache, "timeout": timeout})
    query = checked.fields
    if query.get("mode") == "wait":
        # The name before vLLM 0.16. Later servers accept either, or ignore this one.
        query["wait_for_inflight_requests"] = True
    return _post("/pause", _read_done, checked.timeout, query=query, route_hint=PAUSING)


def resume_request(timeout: Wait) -> ServerRequest[None]:
    """The request that resumes generation."""
    return _post("/resume", _read_done, checked_timeout(timeout), route_hint=PAUSING)


def is_paused_request(timeout: Wait) -> ServerRequest[bool]:
    """The request that checks whether generation is paused."""
    return ServerRequest("/is_paused", _read_paused, checked_timeout(timeout), route_hint=PAUSING)


def abort_request(request_ids: str | Sequence[str], timeout: Wait) -> ServerRequest[int | None]:
    """The request that aborts other requests.

    Raises:
        InvalidRequestError: A parameter is wrong, or there are no IDs.
    """
    if not request_ids:
        # The server would abort all requests.
        rule = "must have at least one ID."
        raise InvalidRequestError(
            [Problem("request_ids", repr(request_ids), rule, "To abort all requests, call abort_all().")]
        )
    checked = _ABORT.check({"request_ids": _listed(request_ids), "timeout": timeout})
    named = cast("Sequence[str]", checked.fields["request_ids"])
    return _post(
        "/abort_requests", _read_aborted, checked.timeout, body={"request_ids": [*named]}, route_hint=ABORTING
    )


def abort_all_request(timeout: Wait) -> ServerRequest[int | None]:
    """The request that aborts all other requests."""
    timeout = checked_timeout(timeout)
    return _post("/abort_requests", _read_aborted, timeout, body={"request_ids": []}, route_hint=ABORTING)


def load_lora_request(
    name: str, path: str, load_inplace: bool | None, is_3d_lora_weight: bool | None, timeout: Wait
) -> ServerRequest[None]:
    """The request that loads an adapter.

    Raises:
        InvalidRequestError: A parameter is wrong.
    """
    options = {"load_inplace": load_inplace, "is_3d_lora_weight": is_3d_lora_weight, "timeout": timeout}
    checked = _LOAD_LORA.check({"name": _required("name", name), "path": _required("path", path), **options})
    body = checked.fields
    return _lora(
        "/load_lora_adapter",
        {"lora_name": body.pop("name"), "lora_path": body.pop("path"), **body},
        checked.timeout,
    )


def unload_lora_request(name: str, timeout: Wait) -> ServerRequest[None]:
    """The request that unloads an adapter.

    Raises:
        InvalidRequestError: A parameter is wrong.
    """
    checked = _UNLOAD_LORA.check({"name": _required("name", name), "timeout": timeout})
    return _lora("/unload_lora_adapter", {"lora_name": checked.fields["name"]}, checked.timeout)


def _post(
    path: str,
    read: Callable[[Response], T],
    timeout: Wait,
    *,
    query: Mapping[str, object] | None = None,
    body: Mapping[str, object] | None = None,
    route_hint: str = DEV_MODE,
) -> ServerRequest[T]:
    if query:
        words = {name: _word(value) for name, value in query.items()}
        path = f"{path}?{urlencode(words, doseq=True)}"
    raw = to_json(body) if body is not None else None
    return ServerRequest(path, read, timeout, method="POST", body=raw, route_hint=route_hint)


def _lora(path: str, body: Mapping[str, object], timeout: Wait) -> ServerRequest[None]:
    raw = to_json(body)
    return ServerRequest(
        path, _read_done, timeout, method="POST", body=raw, outside_v1=False, route_hint=LORA
    )


def _word(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


def _listed(value: str | Sequence[str] | None) -> Sequence[str] | None:
    return [value] if isinstance(value, str) else value


def _required(name: str, value: str) -> str:
    """Returns a value that must not be None; for other parameters, None means "not set"."""
    if cast("object", value) is None:
        raise InvalidRequestError([Problem(name, "None", "must be a string.")])
    return value


# Responses. Old servers return an empty body.


class _Done(WireModel):
    status: str | None = None
    success: bool | None = None
    aborted: int | None = None
    error: object = None


class _Sleeping(WireModel):
    is_sleeping: bool


class _Paused(WireModel):
    is_paused: bool


def _acknowledged(reply: Response) -> _Done:
    body = reply.body
    if not body.strip() or body.startswith(b"Success"):
        return _Done()
    done = decode(_Done, body, "an acknowledgement")
    if done.error:
        raise unexpected_body("an acknowledgement", body, "it reports an error")
    return done


def _read_done(reply: Response) -> None:
    _acknowledged(reply)


def _read_awake(reply: Response) -> bool | None:
    status = _acknowledged(reply).status
    return None if status is None else status == "awake"


def _read_success(reply: Response) -> bool | None:
    return _acknowledged(reply).success


def _read_aborted(reply: Response) -> int | None:
    return _acknowledged(reply).aborted


def _read_sleeping(reply: Response) -> bool:
    return decode(_Sleeping, reply.body, "a sleep status").is_sleeping


def _read_paused(reply: Response) -> bool:
    return decode(_Paused, reply.body, "a pause status").is_paused
