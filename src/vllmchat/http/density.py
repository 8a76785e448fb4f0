"""What a JSON document may cost in memory: a small multiple of its bytes."""

from __future__ import annotations

import re

from vllmchat.errors import ResponseError

DENSE_FROM = 64 * 1024
"""Bytes from which a document is checked: smaller ones cannot cost much."""

_BYTES_PER_OBJECT = 32
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')


def check_density(data: bytes) -> None:
    """Checks that a large JSON document does not consist of tiny objects: each costs up to 400 times its bytes.

    Raises:
        ResponseError: It does.
    """
    most = len(data) // _BYTES_PER_OBJECT
    if len(data) < DENSE_FROM or data.count(b"{") <= most:
        return
    # Braces in texts do not count.
    if (objects := _STRING.sub(b"", data).count(b"{")) > most:
        raise ResponseError(
            f"the response has {objects:,} objects in {len(data):,} bytes: no server sends that"
        )
