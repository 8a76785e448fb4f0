from __future__ import annotations

import errno
import socket
import ssl
import time
from typing import Any

import httpcore
import httpx
import httpx2
import pytest

from vllmchat import APIConnectionError, APITimeoutError, Timeout
from vllmchat.http import clock as clock_module
from vllmchat.http.clock import Clock
from vllmchat.http.transport import network_errors
from vllmchat.http.transport_errors import Kind, TransportFailure, classify

URL = "http://localhost:8000/v1/chat/completions"


def clock(*, reused: bool = False, response_started: bool = False, timeout: Timeout | None = None) -> Clock:
    made = Clock(timeout or Timeout())
    made.start_attempt()
    made.reused, made.response_started = reused, response_started
    return made


def sorted_out(
    error: Exception, *, answering: bool = False, reused: bool = False, response_started: bool = False
) -> TransportFailure:
    failure = classify(error, clock(reused=reused, response_started=response_started), answering=answering)
    assert failure is not None
    assert failure.cause is error
    return failure


def caused(error: Exception, *causes: BaseException) -> Exception:
    last: BaseException = error
    for cause in causes:
        last.__cause__ = cause
        last = cause
    return error


REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")


@pytest.mark.parametrize("package", [httpcore, httpx, httpx2], ids=lambda package: package.__name__)
@pytest.mark.parametrize(
    ("name", "kind", "retriable"),
    [
        ("ConnectError", "unreachable", True),
        ("ConnectTimeout", "connect_timeout", True),
        ("PoolTimeout", "connect_timeout", True),
        ("ProxyError", "unreachable", True),
        ("ReadError", "broken", False),
        ("WriteError", "broken", False),
        ("RemoteProtocolError", "broken", False),
        ("ReadTimeout", "timeout", False),
        ("WriteTimeout", "timeout", False),
        ("LocalProtocolError", "unusable", False),
        ("UnsupportedProtocol", "unusable", False),
    ],
)
def test_each_error_of_a_transport(package: object, name: str, kind: Kind, retriable: bool) -> None:
    failure = sorted_out(getattr(package, name)("why"))
    assert failure.kind == kind
    assert failure.retriable == retriable


def test_other_exceptions_are_not_a_transports() -> None:
    for error in (ValueError("x"), RuntimeError("client is closed"), httpx.InvalidURL("x")):
        assert classify(error, clock(), answering=False) is None


def test_a_corrupt_compression_breaks_the_response() -> None:
    assert sorted_out(httpx.DecodingError("x"), answering=True).kind == "broken"
    assert sorted_out(httpx.TooManyRedirects("x")).kind == "unusable"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (caused(httpcore.ConnectError("x"), REFUSED), "refused"),
        (caused(httpcore.ConnectError("x"), OSError("y"), REFUSED), "refused"),
        (caused(httpcore.ConnectError("x"), ExceptionGroup("all", [OSError("y"), REFUSED])), "refused"),
        (httpcore.ConnectError("[Errno 111] Connection refused"), "refused"),
        (httpcore.ConnectError("[Errno 111] Connect call failed ('127.0.0.1', 1)"), "refused"),
        (httpcore.ConnectError("All connection attempts failed"), "refused"),
        (caused(httpcore.ConnectError("x"), ssl.SSLError("y")), "tls"),
        (httpcore.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED]"), "tls"),
        (caused(httpcore.ConnectError("x"), socket.gaierror(socket.EAI_NONAME, "unknown")), "unusable"),
        (caused(httpcore.ConnectError("x"), socket.gaierror(socket.EAI_AGAIN, "later")), "unreachable"),
        (caused(httpcore.ConnectError("x"), OSError(errno.EHOSTUNREACH, "no route")), "unreachable"),
    ],
)
def test_why_connecting_failed(error: Exception, kind: Kind) -> None:
    failure = sorted_out(error)
    assert failure.kind == kind
    assert failure.retriable == (kind in ("refused", "unreachable"))


def test_errors_of_our_own_connections_have_the_same_names() -> None:
    own = [each for each in vars(network_errors).values() if isinstance(each, type)]
    assert len(own) > 10
    for error in own:
        theirs = getattr(httpcore, error.__name__)
        assert [cls.__name__ for cls in error.__mro__] == [cls.__name__ for cls in theirs.__mro__]


def test_circular_causes() -> None:
    first, second = httpcore.ConnectError("x"), OSError("y")
    first.__cause__, second.__cause__ = second, first
    assert sorted_out(first).kind == "unreachable"


@pytest.mark.parametrize("name", ["ReadError", "WriteError", "RemoteProtocolError"])
def test_a_reused_connection_that_ends_before_any_byte_is_stale(name: str) -> None:
    error: Exception = getattr(httpcore, name)("x")
    assert sorted_out(error, reused=True).kind == "stale"
    assert sorted_out(error, reused=True).retriable
    for otherwise in ({"reused": False}, {"response_started": True}, {"answering": True}):
        failure = sorted_out(error, **{"reused": True, **otherwise})
        assert failure.kind == "broken"
        assert not failure.retriable


def test_a_connection_that_ends_late_was_not_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    reused = clock(reused=True)
    monkeypatch.setattr(clock_module, "monotonic", lambda: time.monotonic() + 1.1)
    failure = classify(httpcore.ReadError("x"), reused, answering=False)
    assert failure is not None
    assert failure.kind == "broken"


# ------------------------------------------------------------------------------------------------
# Timeouts
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "timeout", "idle", "limit"),
    [
        ("ConnectTimeout", Timeout(connect=2), False, ("connect", 2)),
        ("ReadTimeout", Timeout(first_token=2), False, ("first_token", 2)),
        ("WriteTimeout", Timeout(first_token=2), False, ("first_token", 2)),
        ("ReadTimeout", Timeout(idle=2), True, ("idle", 2)),
        ("ReadTimeout", Timeout(total=1e-9), True, ("total", 1e-9)),
        ("ConnectTimeout", Timeout(total=1e-9), False, ("total", 1e-9)),
        ("PoolTimeout", Timeout(total=1e-9), False, ("total", 1e-9)),
        # Not ours: a timeout of a caller's client, or of the kernel.
        ("PoolTimeout", Timeout(), False, None),
        ("PoolTimeout", Timeout(connect=None, first_token=None, idle=None, total=None), False, None),
        ("ReadTimeout", Timeout(connect=None, first_token=None, idle=None, total=None), False, None),
        ("ReadTimeout", Timeout(connect=None, first_token=None, idle=None, total=None), True, None),
        ("ConnectTimeout", Timeout(connect=None, first_token=None, idle=None, total=None), False, None),
    ],
)
def test_which_timeout_expired(
    name: str, timeout: Timeout, idle: bool, limit: tuple[str, float] | None
) -> None:
    on = clock(timeout=timeout)
    if idle:
        on.begin_idle()
    failure = classify(getattr(httpcore, name)("x"), on, answering=idle)
    assert failure is not None
    assert failure.limit == limit
    error = failure.error(URL, "id")
    if limit is None:
        assert type(error) is APIConnectionError
        assert " 0 s" not in str(error)
    else:
        assert isinstance(error, APITimeoutError)
        assert (error.limit, error.seconds) == limit
    if limit is not None and limit[0] == "total":
        assert not failure.retriable


@pytest.mark.parametrize(
    ("name", "kind"),
    [("ConnectTimeout", "connect_timeout"), ("ReadTimeout", "broken"), ("WriteTimeout", "broken")],
)
def test_a_timeout_of_the_kernel_is_not_one_of_ours(name: str, kind: Kind) -> None:
    error: Exception = getattr(httpcore, name)("x")
    failure = sorted_out(caused(error, TimeoutError(errno.ETIMEDOUT, "Connection timed out")))
    assert (failure.kind, failure.limit) == (kind, None)
    assert type(failure.error(URL, "id")) is APIConnectionError


# ------------------------------------------------------------------------------------------------
# Messages
# ------------------------------------------------------------------------------------------------


def message_of(kind: Kind, url: str = URL, why: str = "why.") -> str:
    error = TransportFailure(kind, OSError(why)).error(url, "id-1")
    assert type(error) is APIConnectionError
    assert (error.url, error.request_id) == (url, "id-1")
    return str(error)


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("http://localhost:8000/v1/x", " --port 8000"),
        ("http://127.0.0.1:9/v1/x", " --port 9"),
        ("http://[::1]:8000/v1/x", " --port 8000"),
        ("http://[::1]/v1/x", ""),
        ("http://localhost/v1/x", ""),
    ],
)
def test_a_refused_port_on_this_machine(url: str, port: str) -> None:
    assert message_of("refused", url) == (
        f"no connection to {url}: why. Is the server running? Start it with: vllm serve MODEL{port}"
    )


def test_a_refused_port_elsewhere() -> None:
    message = message_of("refused", "http://gpu-1:8000/v1/x")
    assert message.startswith(
        "no connection to http://gpu-1:8000/v1/x: why. Is the server running, and is the port"
    )
    assert "--host 0.0.0.0" in message


def test_the_other_reasons() -> None:
    assert message_of("unreachable").endswith(
        "why. Check the host, the port, and any firewalls or tunnels in between"
    )
    assert message_of("connect_timeout") == f"no connection to {URL}: why."
    assert message_of("timeout") == f"no response from {URL}: why."
    assert message_of("unusable") == f"cannot send a request to {URL}: why. Check base_url"
    assert message_of("stale").startswith(f"{URL} closed the connection before it responded: why. The server")
    assert message_of("broken").startswith(f"the connection to {URL} broke: why. The server")


def test_tls_on_a_plain_server_and_a_private_ca() -> None:
    message = message_of("tls", "https://h/v1/x")
    assert "vLLM speaks plain http://" in message
    assert message.endswith("For a private CA, set SSL_CERT_FILE or pass its file as verify=")
    assert "plain" not in message_of("tls", "http://h/v1/x")


def test_a_cause_without_text_is_named_by_its_class() -> None:
    assert message_of("broken", why="").startswith(f"the connection to {URL} broke: OSError. ")
    assert "two lines" in message_of("broken", why="two\n  lines")


@pytest.mark.parametrize(
    ("limit", "start"),
    [
        ("connect", f"no connection to {URL} within 1.5 s (Timeout.connect). "),
        ("first_token", f"no response from {URL} within 1.5 s (Timeout.first_token). "),
        ("idle", f"{URL} stopped sending for 1.5 s (Timeout.idle). "),
        ("total", f"the call to {URL} did not finish within 1.5 s (Timeout.total)"),
    ],
)
def test_each_timeout_names_itself_and_its_value(limit: str, start: str) -> None:
    failure = TransportFailure("timeout", OSError(), (limit, 1.5))  # type: ignore[arg-type] # one of the four
    error = failure.error(URL, "id-1")
    assert isinstance(error, APITimeoutError)
    assert str(error).startswith(start)
    assert (error.limit, error.seconds, error.url, error.request_id) == (limit, 1.5, URL, "id-1")


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("x", request=httpx.Request("GET", "http://h", headers={"api-key": "secret"})),
        httpx2.ConnectError("x", request=httpx2.Request("GET", "http://h", headers={"api-key": "secret"})),
    ],
)
def test_the_request_that_contains_the_key_is_dropped(
    error: httpx.ConnectError | httpx2.ConnectError,
) -> None:
    sorted_out(error)
    with pytest.raises(RuntimeError):
        _ = error.request


@pytest.mark.parametrize("package", [httpcore, httpx, httpx2], ids=lambda package: package.__name__)
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("407 Proxy Authentication Required", "proxy"),
        ("403 Forbidden", "proxy"),
        ("503 Service Unavailable", "unreachable"),
        ("4 hosts", "unreachable"),
    ],
)
def test_what_a_proxy_refuses_is_not_retried(package: Any, answer: str, kind: Kind) -> None:
    failure = sorted_out(package.ProxyError(answer))
    assert failure.kind == kind
    assert failure.retriable == (kind != "proxy")
    told = str(failure.error("https://h/v1/chat/completions", "r"))
    assert answer in told
    assert ("NO_PROXY" in told) == (kind == "proxy")


# ------------------------------------------------------------------------------------------------
# Whose fault it is
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_too_many_open_files(number: int) -> None:
    cause = OSError(number, "Too many open files")
    for error in (
        caused(httpcore.ConnectError("x"), cause),
        caused(
            httpcore.ConnectError("x"), caused(OSError("all attempts failed"), ExceptionGroup("", [cause]))
        ),
    ):
        failure = sorted_out(error)
        assert failure.retriable
        message = str(failure.error(URL, "id"))
        assert (
            "Too many open files: raise the limit of this process (ulimit -n), or set max_connections="
            in message
        )
        assert "firewall" not in message


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpcore.ConnectError("x"), "unreachable"),
        (httpcore.ReadError("reset"), "unreachable"),
        (httpcore.RemoteProtocolError("no HTTP"), "unreachable"),
        (httpcore.ProxyError("403 Forbidden"), "proxy"),
        (httpcore.ProxyError("503 Service Unavailable"), "unreachable"),
    ],
)
def test_a_proxy_that_fails_is_named(error: Exception, kind: Kind) -> None:
    asked = clock()
    asked.proxy = "the proxy http://p:1 (from HTTP_PROXY)"
    failure = classify(error, asked, answering=False)
    assert failure is not None
    assert failure.kind == kind
    message = str(failure.error(URL, "id"))
    assert "the proxy http://p:1 (from HTTP_PROXY)" in message
    assert "vllm serve" not in message
    late = classify(httpcore.ConnectTimeout("x"), asked, answering=False)
    assert late is not None
    assert "the proxy http://p:1" in str(late.error(URL, "id"))


def test_a_certificate_that_is_not_trusted_was_sent_over_tls() -> None:
    assert "Does the server speak TLS?" not in message_of("tls", URL, "[SSL: CERTIFICATE_VERIFY_FAILED] x")
    assert "verify=" in message_of("tls", URL, "[SSL: CERTIFICATE_VERIFY_FAILED] x")


def test_what_is_no_http_was_not_closed() -> None:
    message = str(sorted_out(httpcore.RemoteProtocolError("the response is not HTTP/1.1")).error(URL, "id"))
    assert "Is this an HTTP server? Check base_url" in message
    assert "closed the connection" not in message
