from __future__ import annotations

from typing import cast

import pytest

from vllmchat.http.url import BaseURL


@pytest.mark.parametrize(
    ("text", "full", "origin"),
    [
        ("http://localhost:8000/v1", "http://localhost:8000/v1", "http://localhost:8000"),
        ("http://localhost:8000", "http://localhost:8000/v1", "http://localhost:8000"),
        ("http://localhost:8000/v1///", "http://localhost:8000/v1", "http://localhost:8000"),
        (" http://localhost:8000/\n", "http://localhost:8000/v1", "http://localhost:8000"),
        ("https://Example.COM", "https://example.com/v1", "https://example.com"),
        ("https://example.com:443/a/b", "https://example.com/a/b/v1", "https://example.com"),
        ("HTTP://h:80/team/v1/", "http://h/team/v1", "http://h"),
        ("https://h:80", "https://h:80/v1", "https://h:80"),
        ("http://h:/v1", "http://h/v1", "http://h"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1", "http://[::1]:8000"),
        ("http://[::1]", "http://[::1]/v1", "http://[::1]"),
        (
            "http://bücher.example/äb%20",
            "http://xn--bcher-kva.example/%C3%A4b%20/v1",
            "http://xn--bcher-kva.example",
        ),
    ],
)
def test_urls_that_work(text: str, full: str, origin: str) -> None:
    base = BaseURL.parse(text, add_v1=True)
    assert str(base) == full
    assert base.origin == origin
    assert base.prefix.isascii()


def test_only_vllm_always_has_v1() -> None:
    assert str(BaseURL.parse("http://h/api/openai/", add_v1=False)) == "http://h/api/openai"
    assert str(BaseURL.parse("http://h", add_v1=False)) == "http://h"


def test_the_parts() -> None:
    base = BaseURL.parse("https://[fe80::1]:8443/a/v1", add_v1=True)
    assert base == ("https", "fe80::1", 8443, "/a/v1")
    assert base.root == "/a"
    assert BaseURL.parse("http://h/v1", add_v1=True).root == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("localhost:8000/v1", "base_url='localhost:8000/v1' has no scheme: write 'http://localhost:8000/v1'"),
        ("//h/v1", "base_url='//h/v1' has no scheme: write 'http://h/v1'"),
        ("example.com", "has no scheme: write 'http://example.com'"),
        ("", "has no scheme: write 'http://HOST:PORT'"),
        (" ", "has no scheme: write 'http://HOST:PORT'"),
        ("http//h:8000", "has no scheme: write 'http://h:8000'"),
        ("https:/h:8000", "has no scheme: write 'https://h:8000'"),
        ("HTTP:h", "has no scheme: write 'http://h'"),
        ("http/h", "has no scheme: write 'http://h'"),
        ("http-gateway:80", "has no scheme: write 'http://http-gateway:80'"),
        ("http://h/v1/chat", "includes a route: remove '/chat'"),
        ("http://h/v1/embeddings", "includes a route: remove '/embeddings'"),
        ("http://h/v1/responses/", "includes a route: remove '/responses'"),
        ("ftp://h", "must start with http:// or https://, not ftp://.$"),
        ("unix:///tmp/s", "not unix://. For a unix socket, pass http_client=httpx.Client"),
        ("http:///v1", "has no host"),
        ("http://h/v1?key=1", "must not contain a query or a fragment.*headers="),
        ("http://h/v1#x", "must not contain a query or a fragment"),
        ("http://h/a b", "contains white space or control characters"),
        ("http://h/\x7f", "contains white space or control characters"),
        ("http://h/\tv1", "contains white space or control characters"),
        ("http://h:99999", "is not a URL: Port out of range"),
        ("http://h:x/v1", "is not a URL: Port could not be cast"),
        ("http://[::1", "is not a URL: Invalid IPv6 URL"),
        ("http://h/v1/chat/completions", "includes a route: remove '/chat/completions'"),
        ("http://h/v1/completions/", "includes a route: remove '/completions'"),
        ("http://h/v1/models", "includes a route: remove '/models'"),
        ("http://a..b/v1", "has no valid host"),
        (f"http://{'ü' * 70}/v1", "has no valid host"),
    ],
)
def test_urls_that_do_not_work(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BaseURL.parse(text, add_v1=True)


@pytest.mark.parametrize(
    "text",
    [
        "http://user:secret@h/v1",
        "http://:secret@h/v1",
        "http://secret@h/v1",
        "http://user:secret@/v1",
        "ftp://user:secret@h/v1",
        "user:secret@h:80",
        "http://user:secret@[::1",
        "http://user:12@secret@h:x/v1",
        "http://h/a b?secret",
        "http://h:99999?secret",
        "http://user:se:secret@h:1:2",
        "http://\u2100secret@h",
    ],
)
def test_secrets_are_not_shown(text: str) -> None:
    with pytest.raises(ValueError, match="base_url") as caught:
        BaseURL.parse(text, add_v1=True)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_it_must_be_a_string() -> None:
    with pytest.raises(TypeError, match="base_url must be a str, not bytes"):
        BaseURL.parse(cast("str", b"http://h"), add_v1=True)


def test_quotes_around_a_url_are_not_part_of_it() -> None:
    assert str(BaseURL.parse("'http://h:8000'", add_v1=True)) == "http://h:8000/v1"
    assert str(BaseURL.parse(' "http://h" ', add_v1=True)) == "http://h/v1"


def test_a_prefix_may_be_called_like_a_part_of_a_route() -> None:
    assert str(BaseURL.parse("http://h/chat", add_v1=True)) == "http://h/chat/v1"
