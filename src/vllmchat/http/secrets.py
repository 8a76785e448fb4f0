"""Keeps keys out of errors: servers and gateways echo what they were sent, in many forms."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    import base64
    from collections.abc import Iterable
    from html import entities
else:
    # Needed only where something has failed.
    base64 = LazyModule("base64")
    entities = LazyModule("html.entities")

_SECRET_NAME = (
    "key|secret|salt|passw|credential|authorization|bearer|cookie|jwt|assertion|signature|headers"
    "|(^|[-_])(token|auth)$"
)
_SECRET_HEADER = "auth|token|session"
"""More names of headers, which may be called anything. Parameters have such names too: `stop_token_ids`."""

_HARMLESS_NAMES = frozenset(
    {
        "accept",
        "accept-encoding",
        "content-type",
        "host",
        "user-agent",
        "x-data-parallel-rank",
        "x-request-id",
    }
)
_SHORTEST = 6
"""Shorter values, like vLLM's "EMPTY", are not secrets but may be ordinary words."""

_RANDOM = r"(?=.*[0-9])(?=.*[A-Za-z])[!-~]{16,}"


@lru_cache(maxsize=1024)
def is_secret_name(name: str) -> bool:
    """Whether what has a name is a secret: a parameter, a header, or a field of a body."""
    return re.search(_SECRET_NAME, name.lower()) is not None


def is_secret_header(name: str, value: str) -> bool:
    """Whether a header is a secret: by its name, in lower case, or because its value looks random."""
    if name in _HARMLESS_NAMES:
        return False
    return _is_secret_header_name(name) or re.fullmatch(_RANDOM, value) is not None


def _is_secret_header_name(name: str) -> bool:
    return is_secret_name(name) or re.search(_SECRET_HEADER, name) is not None


class Mask:
    """Replaces the secrets among the headers of a request by `***`, in whatever form they come back.

    They are found as they were sent, in lower or upper case, escaped for JSON, HTML or URLs, in base64, and in UTF-16.
    """

    def __init__(self, headers: Iterable[tuple[str, str]]) -> None:
        found = {each for name, value in headers for each in _secrets(name.lower(), value)}
        forms = found | {base64.b64encode(each.encode()).decode().rstrip("=") for each in found}
        # The longest first: one secret may begin another.
        self._secrets = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(_any_form, self._secrets)), re.IGNORECASE) if forms else None

    def text(self, text: str) -> str:
        """The text without the secrets."""
        return text if self._pattern is None else self._pattern.sub("***", text)

    def data(self, data: bytes, *, cut: bool = False) -> bytes:
        """The same for bytes. If they are `cut`, a secret may have been cut too, so the end is left out."""
        if self._pattern is None:
            return data
        masked = self.text(data.decode("latin-1")).encode("latin-1")
        return masked[: -6 * len(self._secrets[0])] if cut else masked

    def headers(self, headers: dict[str, str]) -> dict[str, str]:
        """The same for the headers of a response."""
        return {name: self.text(value) for name, value in headers.items()}


def _secrets(name: str, value: str) -> set[str]:
    """What is secret in a header."""
    if not is_secret_header(name, value):
        return set()
    if not _is_secret_header_name(name):
        # Whatever a gateway may call it: a value that looks random.
        return {value}
    scheme, _, rest = value.partition(" ")
    whole = rest.strip() if rest and scheme.isalpha() else value
    found = {whole, *re.findall(r"[^\s;,=]{8,}", whole)}
    if scheme.lower() == "basic":
        try:
            pair = base64.b64decode(whole, validate=True).decode()
        except ValueError:
            pair = ""
        found |= {pair, pair.partition(":")[2]}
    return {each for each in found if len(each) >= _SHORTEST}


def _any_form(secret: str) -> str:
    return r"\0?".join(map(_forms, secret))


def _forms(char: str) -> str:
    """A pattern for a character as it is or escaped."""
    code = ord(char)
    name = entities.codepoint2name.get(code)
    forms = [
        rf"\\?{re.escape(char)}",
        rf"\\u{code:04x}",
        rf"&\#0*{code};",
        rf"&\#x0*{code:x};",
        f"%{code:02x}",
    ]
    return f"(?:{'|'.join(forms)}{f'|&{name};' if name else ''})"
