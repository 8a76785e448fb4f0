"""Lets a class explain calls that do not fit the signature of the called method.

Python's own error for such a call names a private class and suggests nothing. A valid call costs one more function
call; type checkers see the methods as they are written.
"""

from __future__ import annotations

from functools import wraps
from inspect import CO_COROUTINE
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

from vllmchat.checking.secrets import hide_secrets
from vllmchat.client.signatures import MethodSignature
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    from vllmchat.client import wrong_arguments
    from vllmchat.errors import InvalidRequestError
else:
    wrong_arguments = LazyModule("vllmchat.client.wrong_arguments")  # needed only for invalid calls

C = TypeVar("C")


def explain_arguments(cls: type[C]) -> type[C]:
    """Makes the constructor and the public methods of a class raise `InvalidRequestError` for a call that does not fit.

    No key among the arguments is in a local of a traceback.

    Args:
        cls: The class, which is changed in place.
    """
    methods: dict[str, FunctionType] = {}
    for base in reversed(cls.__mro__[:-1]):
        methods.update({name: each for name, each in vars(base).items() if isinstance(each, FunctionType)})
    for name, method in methods.items():
        if name in ("__init__", "with_options"):
            setattr(cls, name, _explained_settings(cls.__name__, method))
        elif not name.startswith("_"):
            wrap = _explained_async if method.__code__.co_flags & CO_COROUTINE else _explained
            call: Any = wrap(cls.__name__, method)
            call.__signature__ = MethodSignature(method)
            setattr(cls, name, call)
    return cls


def _explained(owner: str, method: FunctionType) -> FunctionType:
    @wraps(method)
    def call(self: object, /, *args: object, **kwargs: object) -> Any:
        kwargs = hide_secrets(kwargs)
        try:
            return method(self, *args, **kwargs)
        except TypeError as error:
            if _is_raised_inside(error):
                raise
        failure = _explanation(owner, method, args, kwargs)
        del args  # one may be a key
        raise failure

    return call  # type: ignore[return-value] # a function is one


def _explained_async(owner: str, method: FunctionType) -> FunctionType:
    @wraps(method)
    async def call(self: object, /, *args: object, **kwargs: object) -> Any:
        kwargs = hide_secrets(kwargs)
        try:
            result = method(self, *args, **kwargs)
        except TypeError as error:
            if _is_raised_inside(error):
                raise
        else:
            return await result
        failure = _explanation(owner, method, args, kwargs)
        del args
        raise failure

    return call  # type: ignore[return-value]


def _explained_settings(owner: str, method: FunctionType) -> FunctionType:
    @wraps(method)
    def call(self: object, /, *args: object, **kwargs: object) -> Any:
        kwargs = hide_secrets(kwargs)
        failure: Exception
        try:
            return method(self, *args, **kwargs)
        except ValueError as error:
            failure = error
        except TypeError as error:
            inside = _is_raised_inside(error)
            failure = error if inside else _explanation(owner, method, args, kwargs)
        # Without the frames inside: what is wrong may be a key, or a URL with a password.
        del args, kwargs
        raise failure.with_traceback(None)

    return call  # type: ignore[return-value]


def _is_raised_inside(error: TypeError) -> bool:
    """Whether an error comes from the body of the called method, so that the call itself was valid."""
    return error.__traceback__ is not None and error.__traceback__.tb_next is not None


def _explanation(
    owner: str, method: FunctionType, args: tuple[object, ...], kwargs: dict[str, object]
) -> InvalidRequestError:
    return wrong_arguments.explain_call(owner, method, args, kwargs)
