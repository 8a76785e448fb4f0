"""Lets a provider explain calls that do not fit the signature of the called method, and apply its defaults to others.

Python's own error for such a call names a private class and suggests nothing. A valid call costs one more function
call; type checkers see the methods as they are written. What is applied to every method is applied here, because this
is where every call passes with its parameters by name.
"""

# The wrapped methods are those of `ProviderBase`.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from functools import partial, wraps
from inspect import CO_COROUTINE
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

from vllmchat.checking.secrets import hide_secrets
from vllmchat.client.signatures import MethodSignature
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    from vllmchat.client import defaults, wrong_arguments
    from vllmchat.client.base import ProviderBase
    from vllmchat.errors import InvalidRequestError
else:
    defaults = LazyModule("vllmchat.client.defaults")
    wrong_arguments = LazyModule("vllmchat.client.wrong_arguments")  # needed only for invalid calls

C = TypeVar("C", bound="ProviderBase")


def explain_arguments(cls: type[C]) -> type[C]:
    """Makes the constructor and the public methods of a class raise `InvalidRequestError` for a call that does not fit.

    Methods that sample get the defaults of the provider. No key among the arguments is in a local of a traceback.

    Args:
        cls: The class, which is changed in place.
    """
    methods: dict[str, FunctionType] = {}
    for base in reversed(cls.__mro__[:-1]):
        methods.update({name: each for name, each in vars(base).items() if isinstance(each, FunctionType)})
    for name, method in methods.items():
        if name in ("__init__", "with_options"):
            signature = MethodSignature(method, cls._default_params)
            wrap = _explained_settings
        elif not name.startswith("_"):
            signature = MethodSignature(method)
            wrap = _explained_async if method.__code__.co_flags & CO_COROUTINE else _explained
        else:
            continue
        call: Any = wrap(cls.__name__, method, signature)
        call.__signature__ = signature
        setattr(cls, name, call)
    return cls


def _explained(owner: str, method: FunctionType, signature: MethodSignature) -> FunctionType:
    @wraps(method)
    def call(self: ProviderBase, /, *args: object, **kwargs: object) -> Any:
        if self._defaults:
            kwargs = defaults.for_call(self._defaults, kwargs, signature.parameters)
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


def _explained_async(owner: str, method: FunctionType, signature: MethodSignature) -> FunctionType:
    @wraps(method)
    async def call(self: ProviderBase, /, *args: object, **kwargs: object) -> Any:
        if self._defaults:
            kwargs = defaults.for_call(self._defaults, kwargs, signature.parameters)
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


def _explained_settings(owner: str, method: FunctionType, signature: MethodSignature) -> FunctionType:
    code = method.__code__
    settings = frozenset(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])

    def explain(
        self: ProviderBase, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> InvalidRequestError:
        accepted = signature.parameters
        given = {name: value for name, value in kwargs.items() if name in accepted and name not in settings}
        return wrong_arguments.explain_settings(
            owner, method, args, kwargs, accepted, partial(self._check_defaults, given)
        )

    @wraps(method)
    def call(self: ProviderBase, /, *args: object, **kwargs: object) -> Any:
        kwargs = hide_secrets(kwargs)
        failure: Exception
        try:
            if settings.issuperset(kwargs) or signature.parameters.keys() >= kwargs.keys():
                return method(self, *args, **kwargs)
            failure = explain(self, args, kwargs)
        except ValueError as error:
            failure = error
        except TypeError as error:
            failure = error
            if not _is_raised_inside(error):
                failure = explain(self, args, kwargs)
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
