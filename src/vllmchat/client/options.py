"""The settings of a provider, checked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final, cast

from vllmchat.checking.headers import is_computed, is_header_name, is_header_value
from vllmchat.checking.secrets import Secret, is_secret
from vllmchat.errors import InvalidRequestError, Problem


def check_cap(max_connections: object) -> None:
    """Check `max_connections`."""
    if max_connections is None:
        return
    if isinstance(max_connections, bool) or not isinstance(max_connections, int) or max_connections < 1:
        raise ValueError(f"max_connections must be at least 1 or None, not {max_connections!r}")


def checked_model(model: object) -> str | None:
    """The name of a model; None for an empty one."""
    if model is not None and not isinstance(model, str):
        raise TypeError(f"model must be a str or None, not {type(model).__name__}")
    if model is not None and ":" in model and re.match(_URL, model, re.IGNORECASE):
        # A URL with a password is not shown.
        shown = "" if is_secret("model", model) else repr(model)
        url = repr(model if "//" in model else f"http://{model}") if shown else "..."
        rule = "is a URL, and not the name of a model."
        raise InvalidRequestError([Problem("model", shown, rule, f"Write base_url={url}.")])
    return model or None


_URL: Final = r"https?://|(localhost|\d+\.\d+\.\d+\.\d+):\d+"


def checked_retries(max_retries: object) -> int:
    """`max_retries`."""
    if isinstance(max_retries, bool) or not isinstance(max_retries, int) or max_retries < 0:
        raise ValueError(f"max_retries must be an integer of at least 0, not {max_retries!r}")
    return max_retries


def checked_retry_seconds(seconds: object) -> float | None:
    """`max_retry_seconds`."""
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < math.inf:
        raise ValueError(f"max_retry_seconds must be a positive number of seconds or None, not {seconds!r}")
    return seconds


def checked_switch(name: str, value: object) -> bool:
    """A setting that is on or off."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False")
    return value


def authorization(key: object) -> dict[str, str]:
    """The header that carries a key."""
    if not isinstance(key, str):
        raise TypeError(f"api_key must be a str, not {type(key).__name__}")
    if not key.isprintable() or not key.isascii():
        # Do not show the key in the message.
        raise ValueError("api_key contains a line break or another character that is not printable ASCII")
    return {"authorization": Secret(f"Bearer {key}")}


def checked_headers(headers: object) -> dict[str, str]:
    """A caller's headers, names in lower case."""
    if not isinstance(headers, Mapping):
        kind = str if isinstance(headers, str) else type(headers)
        raise TypeError(f"headers must be a mapping of str to str, not {kind.__name__}")
    checked: dict[str, str] = {}
    for name, value in cast("Mapping[object, object]", headers).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"headers must map str to str; {name!r} does not")
        # Do not show the value in the message: it may be a key.
        if not is_header_name(name):
            raise ValueError(f"headers: {name!r} is not a valid header name")
        text = value.strip("\t ")
        if not is_header_value(text):
            raise ValueError(
                f"headers: the value of {name!r} contains characters that are not printable ASCII"
            )
        if is_computed(name):
            raise ValueError(f"headers: {name!r} is computed from the request and cannot be set")
        checked[name.lower()] = Secret(text)
    return checked
