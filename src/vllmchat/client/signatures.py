"""Signatures that name every parameter of a method, for `help()`, editors and notebooks.

A method accepts its parameters as `**params`, which a TypedDict describes. They are read when a signature is first
used, so that importing a provider costs nothing for it.
"""

from __future__ import annotations

import re
import sys
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Any, Final, Literal, Union, cast, get_args, get_origin

from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import MappingProxyType

    from vllmchat.checking import rules
else:
    rules = LazyModule("vllmchat.checking.rules")

_UNPACKED: Final = r"Unpack\[(\w+)\]"


class MethodSignature(Signature):
    """The signature of a method. It is made when it is first used.

    Args:
        method: The method.
        params: The name of the TypedDict of its keywords, if the class decides that and not the method.
    """

    __slots__ = ("_method", "_params", "_whole")

    def __init__(  # pyright: ignore[reportMissingSuperCall]
        self, method: Callable[..., object], params: str | None = None
    ) -> None:
        self._method = method
        self._params = params
        self._whole: Signature | None = None

    @property
    def whole(self) -> Signature:
        """The signature itself."""
        if self._whole is None:
            self._whole = _expanded(signature(self._method), self._params)
        return self._whole

    @property
    def parameters(self) -> MappingProxyType[str, Parameter]:
        """The parameters by their names."""
        return self.whole.parameters

    @property
    def return_annotation(self) -> Any:
        """What the method returns."""
        return self.whole.return_annotation

    def replace(self, **changes: Any) -> Signature:  # type: ignore[override] # the same arguments, by name
        """Returns a changed copy."""
        return self.whole.replace(**changes)

    def __reduce__(self) -> tuple[object, ...]:
        return cast("tuple[object, ...]", self.whole.__reduce__())


def _expanded(written: Signature, params: str | None) -> Signature:
    """Returns a signature with a keyword for each key of the TypedDict that its `**params` are."""
    parameters = list(written.parameters.values())
    last = parameters[-1] if parameters else None
    if last is None or last.kind is not last.VAR_KEYWORD:
        return written
    match = re.search(_UNPACKED, str(last.annotation))
    name = params or (match[1] if match is not None else "")
    # All of them are public, and the package is loaded. Their own modules need not be: the methods name them for types.
    public = sys.modules[__name__.partition(".")[0]]
    typed_dict = getattr(public, name, None)
    if not isinstance(typed_dict, type):
        return written
    fields: Mapping[str, rules.Field] = rules.fields_of(typed_dict)
    names = {each.name for each in parameters}
    keywords = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=_plain(field.type) | None)
        for name, field in fields.items()
        if name not in names
    ]
    return written.replace(parameters=[*parameters[:-1], *keywords])


def _plain(hint: Any) -> Any:
    """Returns a type without the annotations inside it, which say what is checked."""
    bare: Any = rules.unwrap(hint)[0]
    kinds = rules.members(bare)
    if len(kinds) > 1:
        return Union[tuple(map(_plain, kinds))]  # noqa: UP007 - the members are known only here
    origin: Any = get_origin(bare)
    if (
        origin is None
        or origin is Literal
        or rules.is_python(bare)
        or any(isinstance(each, list) for each in get_args(bare))
    ):
        return bare
    return origin[tuple(map(_plain, get_args(bare)))]
