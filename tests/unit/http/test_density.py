"""What a JSON document may cost in memory."""

from __future__ import annotations

import pytest

from vllmchat.errors import ResponseError
from vllmchat.http.density import check_density


@pytest.mark.parametrize(
    ("head", "unit", "tail"),
    [
        (b'{"choices":[', b"{}", b"]}"),
        (b'{"choices":[', b'{"index":0}', b"]}"),
        (b'{"choices":[{"delta":{"tool_calls":[', b'{"index":0}', b"]}}]}"),
        (b'{"choices":[{"logprobs":{"content":[', b"{}", b"]}}]}"),
    ],
)
def test_tiny_objects_are_bounded(head: bytes, unit: bytes, tail: bytes) -> None:
    with pytest.raises(ResponseError):
        check_density(head + b",".join([unit] * 200_000) + tail)


def test_braces_in_texts_are_no_objects() -> None:
    check_density(b'{"choices":[{"message":{"content":"' + b"{}" * 200_000 + b'"}}]}')


def test_what_servers_send_is_accepted() -> None:
    top = b",".join([b'{"token":"a","logprob":-0.1,"bytes":[97]}'] * 20)
    token = b'{"token":"a","logprob":-0.1,"bytes":[97],"top_logprobs":[' + top + b"]}"
    check_density(b'{"choices":[{"logprobs":{"content":[' + b",".join([token] * 4_000) + b"]}}]}")
