"""The parameters of a call on a provider that has defaults for some of them.

A provider that has none does not import this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from vllmchat.checking.describe import format_value
from vllmchat.checking.secrets import is_secret

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_LENGTHS: Final = frozenset({"max_tokens", "max_completion_tokens"})
"""Two names of one limit."""

_SWITCH: Final = "enable_thinking"
_VARIABLES: Final = "chat_template_kwargs"


def for_call(
    defaults: Mapping[str, object], given: dict[str, object], accepted: Collection[str]
) -> dict[str, object]:
    """Returns the parameters of a call: its own, and the defaults that it accepts and does not override.

    Args:
        defaults: The defaults of the provider.
        given: The keyword arguments of the call.
        accepted: The parameters of the method. Those of a method that samples include `temperature`; the others get no
            defaults.
    """
    if "temperature" not in accepted:
        return given
    return merge({name: value for name, value in defaults.items() if name in accepted}, given)


def merge(defaults: Mapping[str, object], given: Mapping[str, object]) -> dict[str, object]:
    """Returns given parameters, and the defaults that they do not override.

    A given parameter, also None, overrides the default of the same name, and of another name for the same.
    """
    if not defaults:
        return dict(given)
    kept = {name: value for name, value in defaults.items() if name not in given}
    if not _LENGTHS.isdisjoint(given):
        kept = {name: value for name, value in kept.items() if name not in _LENGTHS}
    if _SWITCH in kept and _SWITCH in _variables(given):
        del kept[_SWITCH]
    if _SWITCH in given and _SWITCH in _variables(kept):
        kept[_VARIABLES] = {name: value for name, value in _variables(kept).items() if name != _SWITCH}
    return {**kept, **given}


def _variables(params: Mapping[str, object]) -> Mapping[str, object]:
    variables = params.get(_VARIABLES)
    return cast("Mapping[str, object]", variables) if hasattr(variables, "keys") else {}


def describe(defaults: Mapping[str, object]) -> str:
    """Formats defaults for the `repr` of a provider."""
    return "".join(
        f", {name}={'...' if is_secret(name, value) else format_value(value)}"
        for name, value in defaults.items()
    )
