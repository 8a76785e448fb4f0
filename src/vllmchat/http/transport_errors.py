"""What can go wrong below HTTP, sorted by what it means for a retry and for the caller."""

from __future__ import annotations

import contextlib
import errno
import re
from typing import TYPE_CHECKING, Any, Literal, cast

from vllmchat.errors import APIConnectionError, APITimeoutError
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    import socket

    from vllmchat.http.clock import Clock
    from vllmchat.http.timeout import Limit
else:
    socket = LazyModule("socket")

Kind = Literal[
    "refused", "unreachable", "proxy", "tls", "connect_timeout", "timeout", "stale", "broken", "unusable"
]

# Nothing can have been generated after one of these: no connection came about, or the server had closed it before
# the request arrived.
_RETRIABLE: frozenset[Kind] = frozenset({"refused", "unreachable", "connect_timeout", "stale"})

# httpx, httpx2 and httpcore share the names of their exceptions but no base classes, so exceptions of a caller's client
# are recognized by name.
_CONNECT = frozenset({"ConnectError", "ProxyError"})
_BROKEN = frozenset(
    {"ReadError", "WriteError", "CloseError", "NetworkError", "RemoteProtocolError", "DecodingError"}
)
_TIMEOUTS = frozenset({"ReadTimeout", "WriteTimeout", "TimeoutException"})
_UNUSABLE = frozenset({"UnsupportedProtocol", "LocalProtocolError", "TooManyRedirects"})

_TOO_MANY_FILES = frozenset({errno.EMFILE, errno.ENFILE})

_STALE_SECONDS = 0.3
"""A server that had closed an idle connection shows it within a round trip. One that closes it later has died while
working on the request, which must not be sent again."""


class TransportFailure(Exception):  # noqa: N818 - it never leaves this package
    """An attempt failed below HTTP.

    Attributes:
        kind: What happened.
        cause: The transport's own exception.
        limit: For timeouts, which one expired and its value in seconds.
        proxy: The proxy that failed, and where it comes from; None if the server did.
    """

    def __init__(
        self,
        kind: Kind,
        cause: BaseException,
        limit: tuple[Limit, float] | None = None,
        proxy: str | None = None,
    ) -> None:
        super().__init__(str(cause))
        self.kind: Kind = kind
        self.cause = cause
        self.limit = limit
        self.proxy = proxy

    @property
    def retriable(self) -> bool:
        """Whether another attempt can do no harm."""
        return self.kind in _RETRIABLE and not (self.limit is not None and self.limit[0] == "total")

    def error(self, url: str, request_id: str) -> APIConnectionError:
        """The public error, with what to check."""
        error = self._error(url, request_id)
        error.kind = self.kind
        return error

    def _error(self, url: str, request_id: str) -> APIConnectionError:
        if self.limit is not None:
            limit, seconds = self.limit
            return APITimeoutError(
                _timeout_message(limit, seconds, self.proxy or url),
                limit=limit,
                seconds=seconds,
                url=url,
                request_id=request_id,
            )
        cause = _one_line(self.cause)
        if self.proxy is None:
            what, hint = _WHAT[self.kind].format(url=url), _hint(self.kind, url, self.cause)
        else:
            asked = "ProxyError" in _names(self.cause)
            what = (
                f"{self.proxy} opened no connection to {url}" if asked else f"no connection to {self.proxy}"
            )
            hint = " Check the proxy's address and credentials, or name the server in NO_PROXY"
        return APIConnectionError(f"{what}: {cause}.{hint}", url=url, request_id=request_id)


def classify(error: Exception, clock: Clock, *, answering: bool) -> TransportFailure | None:
    """Classifies a transport's exception; None if it is not one.

    Args:
        error: The exception.
        clock: The clock of the call.
        answering: Whether the head of the response had arrived.
    """
    # httpx's errors hold the request, and with it the key.
    with contextlib.suppress(AttributeError):
        cast("Any", error).request = None
    failure = _sorted(error, clock, answering=answering)
    if failure is not None and clock.proxy is not None:
        # While a proxy is asked for a connection nothing is sent to the server.
        failure.proxy = clock.proxy
        failure.kind = "unreachable" if failure.kind in ("broken", "stale") else failure.kind
    return failure


def _sorted(error: Exception, clock: Clock, *, answering: bool) -> TransportFailure | None:
    names = _names(error)
    if "PoolTimeout" in names:
        # Only `total` limits the wait for a connection of our pool; a caller's client has its own limit.
        passed = clock.passed()
        total = passed is not None and passed[0] == "total"
        return TransportFailure("connect_timeout", error, passed if total else None)
    if "ConnectTimeout" in names:
        passed = None if _kernel_gave_up(error) else clock.passed(connecting=True)
        return TransportFailure("connect_timeout", error, passed)
    if names & _TIMEOUTS:
        if _kernel_gave_up(error):
            return TransportFailure("broken", error)
        return TransportFailure("timeout", error, clock.passed())
    if names & _CONNECT:
        return TransportFailure(_connect_kind(error), error)
    if names & _BROKEN:
        stale = clock.reused and not answering and not clock.response_started
        return TransportFailure(
            "stale" if stale and clock.attempt_seconds() < _STALE_SECONDS else "broken", error
        )
    if names & _UNUSABLE:
        return TransportFailure("unusable", error)
    return None


def _names(error: BaseException) -> set[str]:
    return {cls.__name__ for cls in type(error).__mro__}


def _kernel_gave_up(error: BaseException) -> bool:
    """Whether TCP itself gave up, and not one of our timeouts: Python reports both as timeouts."""
    return any(isinstance(each, OSError) and each.errno == errno.ETIMEDOUT for each in _causes(error))


def _connect_kind(error: BaseException) -> Kind:
    if "ProxyError" in _names(error) and re.match(r"4\d\d\b", str(error)):
        # The proxy refused; retrying will not help.
        return "proxy"
    for each in _causes(error):
        # By name, so that the ssl module need not be imported without TLS.
        if "SSLError" in _names(each):
            return "tls"
        if isinstance(each, ConnectionRefusedError):
            return "refused"
        if isinstance(each, socket.gaierror) and each.errno != socket.EAI_AGAIN:
            return "unusable"
        if isinstance(each, OSError) and each.errno in _TOO_MANY_FILES:
            return "unreachable"
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text or "SSL" in text:
        return "tls"
    if "refused" in text or "Connect call failed" in text or "All connection attempts failed" in text:
        return "refused"
    return "unreachable"


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    queue: list[BaseException | None] = [error]
    while queue and len(found) < 32:
        each = queue.pop(0)
        if each is None or each in found:
            continue
        found.append(each)
        queue += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            queue += cast("BaseExceptionGroup[BaseException]", each).exceptions
    return found


def _one_line(cause: BaseException) -> str:
    text = " ".join(str(cause).split()).rstrip(".")
    return text or type(cause).__name__


_WHAT: dict[Kind, str] = {
    "refused": "no connection to {url}",
    "unreachable": "no connection to {url}",
    "proxy": "a proxy refused to connect to {url}",
    "tls": "no TLS connection to {url}",
    "connect_timeout": "no connection to {url}",
    "timeout": "no response from {url}",
    "stale": "{url} closed the connection before it responded",
    "broken": "the connection to {url} broke",
    "unusable": "cannot send a request to {url}",
}


def _hint(kind: Kind, url: str, cause: BaseException) -> str:
    if any(isinstance(each, OSError) and each.errno in _TOO_MANY_FILES for each in _causes(cause)):
        return " Too many open files: raise the limit of this process (ulimit -n), or set max_connections="
    host = url.partition("://")[2].partition("/")[0]
    local = host.startswith(("localhost", "127.", "[::1]"))
    if kind == "refused" and local:
        port = host.rpartition(":")[2]
        port = f" --port {port}" if port.isdigit() else ""
        return f" Is the server running? Start it with: vllm serve MODEL{port}"
    if kind == "refused":
        return (
            " Is the server running, and is the port right? A server that listens only on 127.0.0.1 is not reachable "
            "from other machines: start it with --host 0.0.0.0"
        )
    if kind == "tls":
        scheme = url.partition("://")[0]
        plain = " Does the server speak TLS? vLLM speaks plain http:// unless --ssl-certfile is given."
        ca = " For a private CA, set SSL_CERT_FILE or pass its file as verify="
        # A certificate that is not trusted was sent: the server does speak TLS.
        speaks_tls = "CERTIFICATE_VERIFY_FAILED" in str(cause)
        return (plain if scheme == "https" and not speaks_tls else "") + ca
    if kind == "unreachable":
        return " Check the host, the port, and any firewalls or tunnels in between"
    if kind == "proxy":
        return " Check the address and credentials of your client's proxy, or name the host in NO_PROXY"
    if kind == "unusable":
        return " Check base_url"
    if "RemoteProtocolError" in _names(cause) and "closed the connection" not in str(cause):
        return " Is this an HTTP server? Check base_url; a proxy in front of it may change the response"
    if kind in ("broken", "stale"):
        return " The server or a proxy in front of it closed the connection; its log says why"
    return ""


def _timeout_message(limit: Limit, seconds: float, url: str) -> str:
    value = f"{seconds:g} s"
    if limit == "connect":
        return (
            f"no connection to {url} within {value} (Timeout.connect). Check the host, the port, and any firewalls or "
            "tunnels in between"
        )
    if limit == "first_token":
        return (
            f"no response from {url} within {value} (Timeout.first_token). The request may be queued, its prompt long, "
            "or, without streaming, its reply still being generated: stream it, or allow more with "
            "timeout=Timeout(first_token=...)"
        )
    if limit == "idle":
        return (
            f"{url} stopped sending for {value} (Timeout.idle). The server hangs or the connection is dead. Allow "
            "longer pauses with timeout=Timeout(idle=...)"
        )
    return f"the call to {url} did not finish within {value} (Timeout.total)"
