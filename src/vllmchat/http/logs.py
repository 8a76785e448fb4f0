"""The log: standard loggers below `vllmchat`.

Nothing is shown unless a program sets up logging, or `VLLMCHAT_LOG` is set.

| logger | level | what |
|---|---|---|
| `vllmchat.requests` | INFO | each call, at its end |
| `vllmchat.retries` | WARNING | each failed attempt that another one follows |
| `vllmchat.connections` | DEBUG | connections: opened, reused, closed |
| `vllmchat.bodies` | DEBUG | what is sent and received, only with `VLLMCHAT_LOG_BODIES=1` |
"""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from typing import TYPE_CHECKING, Final, TextIO

from vllmchat.http.observe import ObservedCall, token_counts
from vllmchat.http.secrets import is_secret_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vllmchat.http.flow import Send

LEVEL_VARIABLE: Final = "VLLMCHAT_LOG"
BODIES_VARIABLE: Final = "VLLMCHAT_LOG_BODIES"

DEBUG: Final = logging.DEBUG

REQUESTS: Final = logging.getLogger("vllmchat.requests")
RETRIES: Final = logging.getLogger("vllmchat.retries")
CONNECTIONS: Final = logging.getLogger("vllmchat.connections")
BODIES: Final = logging.getLogger("vllmchat.bodies")

_ROOT: Final = logging.getLogger("vllmchat")
_ROOT.addHandler(logging.NullHandler())

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_LONGEST_BODY: Final = 2_000
_LONGEST_REASON: Final = 500


def is_on() -> bool:
    """Whether calls are logged. Asked once for each call."""
    return REQUESTS.isEnabledFor(logging.INFO) or CONNECTIONS.isEnabledFor(logging.DEBUG)


def set_up() -> None:
    """Does what `VLLMCHAT_LOG` asks for."""
    text = os.environ.get(LEVEL_VARIABLE, "")
    level = _LEVELS.get(text.strip().lower())
    if level is None:
        warnings.warn(
            f"{LEVEL_VARIABLE}={text!r} is not a level, so nothing is logged. Write debug, info or warning",
            stacklevel=4,  # where the provider is made
        )
        return
    _ROOT.setLevel(level)
    if not any(isinstance(each, _StderrHandler) for each in _ROOT.handlers):
        _ROOT.addHandler(_StderrHandler())


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to stderr, unless the program has handlers of its own, which get the same records."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    @property
    def stream(self) -> TextIO:  # type: ignore[override] # programs replace it
        """Whatever stderr is now."""
        return sys.stderr

    def format(self, record: logging.LogRecord) -> str:
        """The line. What a server sends must not drive the terminal."""
        return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", super().format(record))

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write a record."""
        return not logging.getLogger().handlers and bool(super().filter(record))


class Log:
    """Logs calls."""

    def sending(self, call: ObservedCall) -> Mapping[str, str] | None:
        """Logs what is sent."""
        send = call.request
        if send is not None and send.body and _logs_bodies():
            body = _SECRET_FIELD.sub(_hidden, send.body[: 4 * _LONGEST_BODY])
            BODIES.debug("%s sends %s", _route(send), _shortened(send, body, len(send.body)))
        return None

    def connected(self, call: ObservedCall, *, reused: bool) -> None:
        """Logs the connection."""
        send = call.request
        if send is None or not CONNECTIONS.isEnabledFor(logging.DEBUG):
            return
        if reused:
            CONNECTIONS.debug("reused a connection to %s", server_of(send))
        elif call.record.connect is not None:
            CONNECTIONS.debug("opened a connection to %s in %.3f s", server_of(send), call.record.connect)

    def retrying(self, call: ObservedCall, error: Exception, seconds: float) -> None:
        """Logs why an attempt failed, and when the next one begins."""
        send = call.request
        if send is not None:
            attempts = call.record.attempts
            RETRIES.warning(
                "%s attempt %d failed: %s; the next one begins in %.2f s (request id %s, %s)",
                _route(send), attempts, _reason(error), seconds, send.request_id, server_of(send),
                extra={**_facts(call), "attempt": attempts, "wait": seconds},
            )  # fmt: skip

    def ended(self, call: ObservedCall) -> None:
        """Logs the call."""
        send, record = call.request, call.record
        if send is None or not REQUESTS.isEnabledFor(logging.INFO):
            return
        timings = record.timings()
        parts = [f"{_route(send)} {record.status or 'no response'} in {timings.total or 0.0:.3f} s"]
        if timings.first_token is not None:
            parts.append(f"first token after {timings.first_token:.3f} s")
        prompt, generated = token_counts(call.reply)
        if prompt is not None or generated is not None:
            parts.append(f"{prompt or 0} + {generated or 0} tokens")
        if record.attempts > 1:
            parts.append(f"{record.attempts} attempts")
        parts.append(f"request id {record.request_id or send.request_id}")
        parts.append(server_of(send))
        if call.error is not None:
            parts.append(f"failed: {_reason(call.error)}")
        elif not call.complete:
            parts.append("closed before its end")
        REQUESTS.info("%s", ", ".join(parts), extra=_facts(call))
        if call.reply is not None and _logs_bodies():
            dump = getattr(call.reply, "model_dump_json", None)
            text: str = repr(call.reply) if dump is None else dump(exclude_unset=True)
            body = text.encode()
            BODIES.debug("%s received %s", _route(send), _shortened(send, body, len(body)))


LOG: Final = Log()


def closed(server: str, reason: str) -> None:
    """Logs that a connection was closed."""
    CONNECTIONS.debug("closed a connection to %s: %s", server, reason)


def server_of(send: Send) -> str:
    """The host and port of a server."""
    host = send.base.host
    return f"[{host}]:{send.base.port}" if ":" in host else f"{host}:{send.base.port}"


def _logs_bodies() -> bool:
    return BODIES.isEnabledFor(logging.DEBUG) and os.environ.get(BODIES_VARIABLE, "") in ("1", "true", "yes")


def _route(send: Send) -> str:
    return f"{send.method} {send.target.partition('?')[0]}"


def _facts(call: ObservedCall) -> dict[str, object]:
    """What a line says, as attributes of its `LogRecord`."""
    send, record = call.request, call.record
    assert send is not None
    prompt, generated = token_counts(call.reply)
    return {
        "method": send.method,
        "path": send.target.partition("?")[0],
        "server": server_of(send),
        "status": record.status,
        "seconds": record.timings().total,
        "request_id": record.request_id or send.request_id,
        "prompt_tokens": prompt,
        "completion_tokens": generated,
    }


def _reason(error: BaseException) -> str:
    text = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
    return text if len(text) <= _LONGEST_REASON else f"{text[: _LONGEST_REASON - 1]}…"


def _shortened(send: Send, body: bytes, size: int) -> str:
    masked = send.mask.data(body[: 4 * _LONGEST_BODY], cut=size > 4 * _LONGEST_BODY)
    text = masked.decode("utf-8", "replace")[:_LONGEST_BODY]
    return f"{text}… ({size:,} bytes)" if size > _LONGEST_BODY else text


_SECRET_FIELD: Final = re.compile(rb'"([^"\\]{1,80})"\s*:\s*"(?:[^"\\]|\\.)*\\?(?:"|$)', re.DOTALL)
"""A field of a JSON body whose value is text, which may be cut."""


def _hidden(field: re.Match[bytes]) -> bytes:
    """A field of a request, such as a cache salt, without its value if that is secret."""
    name = field[1]
    return b'"%b":"***"' % name if is_secret_name(name.decode("latin-1")) else field[0]
