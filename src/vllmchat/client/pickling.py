"""Pickles a provider by its settings: it opens connections of its own where it is unpickled.

What is secret does not travel unless `pickle_secrets` is set. The provider remembers what it lacks, and its calls raise
an error that says so; the key may come from the environment instead.
"""

# Pickling is a part of `ProviderBase`, outside it because it is rarely needed.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from vllmchat.checking.secrets import holds_secret, is_secret
from vllmchat.client.hooks import Hooks
from vllmchat.errors import InvalidRequestError
from vllmchat.http.secrets import is_secret_header
from vllmchat.http.transport.httpx_client import USER_AGENT

if TYPE_CHECKING:
    from vllmchat.client.base import ProviderBase
    from vllmchat.http.observe import Observer

_KEY: Final = "authorization"

_OWN: Final = frozenset(
    {
        "_async_timeout",
        "_clients",
        "_defaults",
        "_found",
        "_lacks",
        "_model",
        "_owner",
        "_pickle_secrets",
        "_sync_timeout",
        "_target",
        "_timeout",
    }
)
"""The attributes of every provider. Others are those of a subclass."""


def reduce(llm: ProviderBase) -> tuple[object, ...]:
    """Returns what `__reduce__` returns.

    Raises:
        TypeError: A setting cannot be pickled.
    """
    _check_clients(llm)
    target = llm._target
    headers = dict(target.headers)
    lacks = set(llm._lacks)
    if headers.get("user-agent") == USER_AGENT:
        del headers["user-agent"]  # of the version that is installed there
    if target.default_key and (sent := headers.pop(_KEY, None)) and not _is_default(llm, sent):
        lacks.add(_KEY)
    defaults = dict(llm._defaults)
    state = {name: value for name, value in vars(llm).items() if name not in _OWN}
    if not llm._pickle_secrets:
        for name, value in target.headers.items():
            if _is_secret_header(llm, name, value) and headers.pop(name, None) is not None:
                lacks.add(name)
        for held in (defaults, state):
            for name in [name for name, value in held.items() if holds_secret(name, value)]:
                del held[name]
                lacks.add(name)
    settings: dict[str, object] = dict(
        defaults,
        **_hooks(llm, target.observers),
        model=llm._model,
        base_url=str(target.base),
        timeout=llm._timeout,
        max_retries=target.max_retries,
        max_retry_seconds=target.max_retry_seconds,
        headers=headers,
        verify=llm._clients.verify,
        max_connections=llm._clients.max_connections,
        pickle_secrets=llm._pickle_secrets,
    )
    return type(llm)._restored, (settings, sorted(lacks)), state or None


def _is_default(llm: ProviderBase, sent: str) -> bool:
    return sent == f"Bearer {llm._api_key_default}"


def _is_secret_header(llm: ProviderBase, name: str, value: str) -> bool:
    if name == _KEY:
        return not _is_default(llm, value)
    return is_secret_header(name, value) or is_secret(name, value)


def _check_clients(llm: ProviderBase) -> None:
    name, clients = type(llm).__name__, llm._clients
    if clients.has_own:
        raise TypeError(
            f"this {name} uses an HTTP client of yours, which cannot be pickled. Create the {name} where it is used"
        )
    if not isinstance(clients.verify, bool | str | bytes | os.PathLike):
        raise TypeError(
            f"this {name} has verify=ssl.SSLContext, which cannot be pickled. Pass the path of the certificates, as "
            f"in verify='ca.pem', or create the {name} where it is used"
        )


def _hooks(llm: ProviderBase, observers: tuple[Observer, ...]) -> dict[str, object]:
    found: dict[str, object] = {}
    for observer in observers:
        if not isinstance(observer, Hooks):
            raise TypeError(
                f"this {type(llm).__name__} is traced by instrument(), which cannot be pickled. Call instrument() "
                "where it is used"
            )
        for name in ("on_request", "on_retry", "on_response"):
            hook: object = getattr(observer, name)
            if hook is None:
                continue
            if not _is_importable(hook):
                # Its `repr` may show what it holds.
                what = getattr(hook, "__qualname__", type(hook).__name__)
                raise TypeError(
                    f"{name}={what} cannot be pickled. Pass a function that is defined at the top level of a module"
                )
            found[name] = hook
    return found


def _is_importable(function: object) -> bool:
    """Whether a pickle holds only the name of a function. Others may hold anything, such as a key."""
    found: object = sys.modules.get(str(getattr(function, "__module__", None)))
    for name in str(getattr(function, "__qualname__", "")).split("."):
        found = getattr(found, name, None)
    return found is function


def lacking(llm: ProviderBase) -> InvalidRequestError:
    """Returns the error for a call of a provider that lacks some of its settings."""
    others = sorted(llm._lacks - {_KEY})
    names, hints = list(others), list[str]()
    if _KEY in llm._lacks:
        names.insert(0, "key")
        hints.append(f"Set ${llm._api_key_variable} in this process")
    if others:
        hints.append(f"{'pass' if hints else 'Pass'} {', '.join(others)} to with_options")
    listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return InvalidRequestError(
        f"this {type(llm).__name__} comes from a pickle, and its {listed} {'were' if names[1:] else 'was'} left out "
        f"because pickles are readable. {' and '.join(hints)}, or create the original with pickle_secrets=True"
    )
