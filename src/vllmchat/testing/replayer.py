"""Answers as a recorded server did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from vllmchat.checking.describe import as_list
from vllmchat.testing import cassette
from vllmchat.testing.cassette import CassetteError
from vllmchat.testing.errors import error
from vllmchat.testing.exchange import Fault, Response, steps
from vllmchat.testing.listener import Listener
from vllmchat.wire.decode import as_object

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike
    from typing import Self

    from vllmchat.testing.exchange import Request, Step

_SHOWN: Final = 3
"""How many differences to the nearest recorded request are shown."""


class Replayer:
    """A local server that answers from a cassette. `replay` makes one."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = path
        self._server, self._exchanges = cassette.load(path)
        self._used: set[int] = set()
        self._unmatched: list[str] = []
        self._listener = Listener(self._respond)

    @property
    def base_url(self) -> str:
        """The `base_url` for a provider."""
        return f"{self._listener.url}{urlsplit(self._server).path}"

    @property
    def requests(self) -> list[Request]:
        """All requests so far, in order of arrival."""
        return self._listener.requests

    def assert_done(self) -> None:
        """Checks that each request was recorded, and that each recorded one was made.

        Raises:
            CassetteError: That is not the case.
        """
        if self._unmatched:
            raise CassetteError("\n".join(self._unmatched))
        left = [each for number, each in enumerate(self._exchanges) if number not in self._used]
        if left:
            raise CassetteError(
                f"{len(left)} of {len(self._exchanges)} recorded requests were not made; the first is {left[0].label}"
            )

    def start(self) -> Self:
        """Starts the server, without a `with` block. `close` ends it."""
        self._listener.start()
        return self

    def close(self) -> None:
        """Ends the server."""
        self._listener.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _respond(self, request: Request) -> Iterator[Step]:
        method, path, body = request.method, cassette.path_of(request), cassette.body_of(request)
        fitting = [
            number
            for number, each in enumerate(self._exchanges)
            if (each.method, each.path, each.body) == (method, path, body)
        ]
        if not fitting:
            message = self._explained(method, path, body)
            self._unmatched.append(message)
            return steps(error(500, message, type="CassetteError").response())
        # The same request again gets the next answer to it, and the last one from then on.
        number = next((each for each in fitting if each not in self._used), fitting[-1])
        self._used.add(number)
        found = self._exchanges[number]
        fault = None
        if found.cut:
            fault = Fault("drop", len(found.content))
        return steps(Response(found.content, found.status, found.headers, fault=fault))

    def _explained(self, method: str, path: str, body: object) -> str:
        message = f"{self._path} has no answer to {method} {path}"
        candidates = [
            (number, list(_differences(each.body, body, "")), each)
            for number, each in enumerate(self._exchanges)
            if (each.method, each.path) == (method, path)
        ]
        if not candidates:
            paths = sorted({each.label for each in self._exchanges})
            return f"{message}. It has answers to {', '.join(paths) or 'nothing'}"
        number, different, _ = min(candidates, key=lambda candidate: len(candidate[1]))
        shown = "; ".join(different[:_SHOWN])
        more = f"; and {len(different) - _SHOWN} more" if len(different) > _SHOWN else ""
        return (
            f"{message} with this body. The nearest is exchange {number + 1}, which differs in {shown}{more}"
        )


def _differences(recorded: object, sent: object, path: str) -> Iterator[str]:
    """The places where two bodies differ, each with both values."""
    if recorded == sent:
        return
    ours, theirs = as_object(recorded), as_object(sent)
    if ours is not None and theirs is not None:
        for name in [*ours, *(name for name in theirs if name not in ours)]:
            where = f"{path}.{name}" if path else name
            if name not in theirs:
                yield f"{where}: recorded {_shown(ours[name])}, not sent"
            elif name not in ours:
                yield f"{where}: not recorded, sent {_shown(theirs[name])}"
            else:
                yield from _differences(ours[name], theirs[name], where)
        return
    old, new = as_list(recorded), as_list(sent)
    if old is not None and new is not None and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _differences(before, after, f"{path}[{index}]")
    else:
        yield f"{path or 'body'}: recorded {_shown(recorded)}, sent {_shown(sent)}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def replay(path: str | PathLike[str]) -> Replayer:
    """Answers as a server that was recorded with `record`.

    It is a context manager, and a local server. A request gets the answer that the same request got when it was
    recorded: the same method, path and body. If it was recorded several times, the answers come in that order, and the
    last one from then on. Any other request gets a 500 whose message names the nearest recorded one.

        with replay("cassette.json") as server:
            print(VLLMProvider(base_url=server.base_url).chat("Hello").text)

    Args:
        path: The cassette.

    Raises:
        FileNotFoundError: There is no such file.
        CassetteError: The file is not a cassette.
    """
    return Replayer(path)
