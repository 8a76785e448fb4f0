"""Recorded exchanges, as a JSON file that reads well in diffs.

Keys are masked before anything is kept. Of the headers only the media types, `Retry-After` and the request id remain.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from vllmchat.checking.describe import as_list
from vllmchat.http.secrets import Mask
from vllmchat.wire.decode import as_object

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from os import PathLike
    from pathlib import Path

    from vllmchat.testing.exchange import Request

Object: TypeAlias = dict[str, Any]

FORMAT: Final = 1
"""The version of the file's format."""

_KEPT: Final = frozenset({"content-type", "retry-after", "allow"})
"""The headers of a response that are kept. All others say when and where it was recorded."""

_OWN: Final = frozenset({"request_id"})
"""Fields of a request that differ from call to call."""


class CassetteError(AssertionError):
    """A cassette cannot be read, or does not fit the requests."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A recorded request and its response.

    Attributes:
        method: The method of the request.
        path: Its path and query.
        body: Its body: decoded JSON, or a digest of anything else; None if there was none.
        status: The status of the response.
        headers: Its headers.
        content: Its body, or the pieces of a stream.
        cut: Whether the response ended too early.
    """

    method: str
    path: str
    body: object
    status: int
    headers: Mapping[str, str]
    content: bytes | list[bytes]
    cut: bool = False

    @property
    def label(self) -> str:
        """The method and the path."""
        return f"{self.method} {self.path}"


def body_of(request: Request) -> object:
    """The body of a request as it is kept and compared, without its keys."""
    data = Mask(request.headers.items()).data(request.body)
    if not data:
        return None
    content_type = request.headers.get("content-type", "")
    boundary = re.search(r"boundary=\"?([^\";]+)", content_type)
    if boundary is not None:
        # The parts of a form are separated by random text.
        data = data.replace(boundary[1].encode(), b"boundary")
    else:
        try:
            value: object = json.loads(data)
        except ValueError:
            pass
        else:
            fields = as_object(value)
            return value if fields is None else {name: fields[name] for name in fields if name not in _OWN}
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def path_of(request: Request) -> str:
    """The path and query of a request as they are kept and compared, without its keys."""
    return Mask(request.headers.items()).text(request.target)


def recorded(
    request: Request, status: int, headers: Mapping[str, str], content: bytes, *, cut: bool
) -> Exchange:
    """An exchange, without its keys."""
    mask = Mask(request.headers.items())
    content = mask.data(content)
    kept = {name: mask.text(value) for name, value in headers.items() if name in _KEPT}
    streamed = headers.get("content-type", "").startswith("text/event-stream")
    pieces = list(_blocks(content)) if streamed else content
    return Exchange(request.method, path_of(request), body_of(request), status, kept, pieces, cut)


def _blocks(content: bytes) -> Iterator[bytes]:
    """The events of a stream, each with the blank line after it; the last one may lack it."""
    for block in re.findall(rb".+?(?:\r?\n\r?\n|\Z)", content, re.DOTALL):
        yield bytes(block)


def save(path: str | PathLike[str], server: str, exchanges: Sequence[Exchange]) -> None:
    """Writes a cassette."""
    lines = ",\n    ".join(_pretty(_packed(each), "    ") for each in exchanges)
    text = (
        f'{{\n  "format": {FORMAT},\n  "server": {json.dumps(server)},\n  "exchanges": [\n    {lines}\n  ]\n}}\n'
        if exchanges
        else f'{{\n  "format": {FORMAT},\n  "server": {json.dumps(server)},\n  "exchanges": []\n}}\n'
    )
    with open(path, "w", encoding="utf-8", errors="surrogatepass") as file:
        file.write(text)


def load(path: str | Path | PathLike[str]) -> tuple[str, list[Exchange]]:
    """Reads a cassette: the URL of the server, and the exchanges.

    Raises:
        FileNotFoundError: There is no such file.
        CassetteError: The file is not a cassette, or one of a newer format.
    """
    with open(path, encoding="utf-8", errors="surrogatepass") as file:
        text = file.read()
    try:
        whole = json.loads(text)
        if whole["format"] != FORMAT:
            raise CassetteError(
                f"{path} has format {whole['format']!r}, and this version reads {FORMAT}: record it again"
            )
        return str(whole["server"]), [_unpacked(each) for each in whole["exchanges"]]
    except (ValueError, TypeError, KeyError) as error:
        raise CassetteError(
            f"{path} is not a cassette ({type(error).__name__}: {error}): record it again"
        ) from error


def _packed(exchange: Exchange) -> Object:
    request: Object = {"method": exchange.method, "path": exchange.path}
    if exchange.body is not None:
        request["body"] = exchange.body
    response: Object = {"status": exchange.status, "headers": dict(exchange.headers)}
    if isinstance(exchange.content, list):
        response["events"] = [_packed_event(each) for each in exchange.content]
    else:
        response |= _packed_body(exchange.content)
    if exchange.cut:
        response["cut"] = True
    return {"request": request, "response": response}


def _unpacked(packed: Object) -> Exchange:
    request, response = packed["request"], packed["response"]
    content: bytes | list[bytes]
    if "events" in response:
        content = [_unpacked_event(each) for each in response["events"]]
    else:
        content = _unpacked_body(response)
    return Exchange(
        request["method"],
        request["path"],
        request.get("body"),
        response["status"],
        response["headers"],
        content,
        response.get("cut", False),
    )


def _packed_body(content: bytes) -> Object:
    if not content:
        return {}
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}
    try:
        return {"json": json.loads(text)}
    except ValueError:
        return {"text": text}


def _unpacked_body(response: Object) -> bytes:
    if "json" in response:
        return _compact(response["json"]).encode()
    if "base64" in response:
        return base64.b64decode(response["base64"])
    return str(response.get("text", "")).encode()


def _packed_event(block: bytes) -> Object:
    """An event; one that is not of the usual form is kept as it was."""
    try:
        text = block.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(block).decode()}
    match = re.fullmatch(r"(?:event: (?P<name>[^\n]*)\n)?data: (?P<data>[^\n]*)\n\n", text)
    if match is None:
        return {"raw": text}
    data: object = match["data"]
    try:
        data = json.loads(match["data"])
    except ValueError:
        if match["data"] != "[DONE]":
            return {"raw": text}
    else:
        if isinstance(data, str):
            return {"raw": text}
    return {"event": match["name"], "data": data} if match["name"] is not None else {"data": data}


def _unpacked_event(packed: Object) -> bytes:
    if "base64" in packed:
        return base64.b64decode(packed["base64"])
    if "raw" in packed:
        return str(packed["raw"]).encode()
    data = packed["data"]
    name = f"event: {packed['event']}\n" if "event" in packed else ""
    return f"{name}data: {data if isinstance(data, str) else _compact(data)}\n\n".encode()


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _pretty(value: object, indent: str) -> str:
    """JSON with a line for each field and each event, but one line for a list of numbers."""
    inner = f"{indent}  "
    if fields := as_object(value):
        write = {"events": _events}
        lines = [
            f"{json.dumps(name, ensure_ascii=False)}: {write.get(name, _pretty)(each, inner)}"
            for name, each in fields.items()
        ]
        return "{\n" + inner + f",\n{inner}".join(lines) + f"\n{indent}}}"
    items = as_list(value) or ()
    if any(isinstance(each, dict | list) for each in items):
        return "[\n" + inner + f",\n{inner}".join(_pretty(each, inner) for each in items) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False)


def _events(events: object, indent: str) -> str:
    inner = f"{indent}  "
    items = as_list(events)
    if not items:
        return _compact(events)
    return "[\n" + inner + f",\n{inner}".join(_compact(each) for each in items) + f"\n{indent}]"
