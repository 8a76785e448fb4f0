"""Errors for streams that are used as if they were of the other kind, sync or async.

Python's own errors name a protocol, not what to write. Type checkers see nothing of this. Nor does code that asks which
kind a stream is, with `hasattr(stream, "__aiter__")` or `inspect.isawaitable`: so sync streams have no `__aiter__`, and
none has `__await__`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn


class _WrongUseError(TypeError, AttributeError):
    """A stream of the wrong kind: a `TypeError` as Python's own, and an `AttributeError` for `hasattr`."""


class _AsyncWith:
    """Looked up by `async with`, which a sync stream does not support."""

    def __get__(self, stream: object, owner: type) -> NoReturn:
        raise _WrongUseError(
            f"a {owner.__name__} is sync: write `with` instead of `async with`, or call the async method, whose name "
            "begins with an a, such as astream"
        )


class _PlainWith:
    """Looked up by `with`, which an async stream does not support."""

    def __get__(self, stream: object, owner: type) -> NoReturn:
        raise _wrong(owner, "with")


def _wrong(owner: type, word: str) -> TypeError:
    return _WrongUseError(
        f"an {owner.__name__} is async: write `async {word}` instead of `{word}`, or call the sync method, whose name "
        "has no a in front, such as stream"
    )


class SyncOnly:
    """What a sync stream says if it is used as an async one."""

    __slots__ = ()

    if not TYPE_CHECKING:
        __aenter__ = __aexit__ = _AsyncWith()


class AwaitedOnly:
    """What an async stream says if it is used as a sync one."""

    __slots__ = ()

    if not TYPE_CHECKING:
        __enter__ = __exit__ = _PlainWith()

        def __iter__(self) -> NoReturn:
            raise _wrong(type(self), "for")
