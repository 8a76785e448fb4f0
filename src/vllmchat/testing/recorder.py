"""Records what a real server answers."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import httpx

from vllmchat.http.url import BaseURL
from vllmchat.testing import cassette
from vllmchat.testing.errors import error
from vllmchat.testing.exchange import Ending, Head, steps
from vllmchat.testing.listener import Listener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from os import PathLike
    from typing import Self

    from vllmchat.testing.cassette import Exchange
    from vllmchat.testing.exchange import Request, Step

_HOPS: Final = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "accept-encoding", "expect", "keep-alive"}
)
"""Headers that belong to one connection."""

_CHANGED: Final = frozenset(
    {"connection", "content-length", "transfer-encoding", "content-encoding", "keep-alive"}
)


class Recorder:
    """A local server that passes requests on to a real one, and records the answers. `record` makes one."""

    def __init__(self, path: str | PathLike[str], base_url: str) -> None:
        self._path = path
        self._upstream = BaseURL.parse(base_url, add_v1=True)
        self._exchanges: list[Exchange | None] = []
        self._listener = Listener(self._respond)

    @property
    def base_url(self) -> str:
        """The `base_url` for a provider."""
        return f"{self._listener.url}{urlsplit(str(self._upstream)).path}"

    @property
    def exchanges(self) -> list[Exchange]:
        """What was recorded so far, in the order of the requests."""
        return [each for each in self._exchanges if each is not None]

    def start(self) -> Self:
        """Starts the server, without a `with` block. `close` ends it."""
        self._listener.start()
        return self

    def close(self) -> None:
        """Ends the server and writes the cassette."""
        self._listener.close()
        cassette.save(self._path, str(self._upstream), self.exchanges)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _respond(self, request: Request) -> AsyncIterator[Step]:
        place = len(self._exchanges)
        self._exchanges.append(None)
        headers = {name: value for name, value in request.headers.items() if name not in _HOPS}
        content, opened, whole = bytearray(), None, False
        client = httpx.AsyncClient(timeout=None)
        try:
            sent = client.build_request(
                request.method,
                f"{self._upstream.origin}{request.target}",
                headers={**headers, "accept-encoding": "identity"},
                content=request.body or None,
            )
            opened = await client.send(sent, stream=True)
            length = opened.headers.get("content-length")
            kept = {
                name.lower(): value for name, value in opened.headers.items() if name.lower() not in _CHANGED
            }
            yield Head(opened.status_code, kept, None if length is None else int(length))
            async for data in opened.aiter_bytes():
                content += data
                yield data
            whole = True
            yield Ending.DONE
        except httpx.HTTPError as failure:
            if opened is not None:
                yield Ending.DROP
                return
            failed = error(502, f"the recorder cannot reach {self._upstream.origin}: {failure}").response()
            for step in steps(failed):
                yield step
        finally:
            if opened is not None:
                received = {name.lower(): value for name, value in opened.headers.items()}
                self._exchanges[place] = cassette.recorded(
                    request, opened.status_code, received, bytes(content), cut=not whole
                )
            with suppress(RuntimeError):  # the event loop is ending
                await client.aclose()


def record(path: str | PathLike[str], base_url: str | None = None) -> Recorder:
    """Records what a real server answers, into a cassette that `replay` reads.

    It is a context manager, and a local server that passes each request on as it is, and each answer as it arrives. The
    file is written at the end:

        with record("cassette.json", "http://localhost:8000/v1") as server:
            print(VLLMProvider(base_url=server.base_url).chat("Hello").text)

    Keys are masked, and of the headers only those that describe the content are kept.

    Args:
        path: The file. One that exists is replaced.
        base_url: The real server; `/v1` is added if it is missing. Default: `$VLLM_BASE_URL`, else
            `http://localhost:8000/v1`.

    Raises:
        ValueError: The URL is invalid.
    """
    return Recorder(path, base_url or os.environ.get("VLLM_BASE_URL") or "http://localhost:8000/v1")
