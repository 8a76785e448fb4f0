"""Copies of objects with changes."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

T = TypeVar("T")


def replace(value: T, **changes: Any) -> T:
    """A copy with other attributes, as `dataclasses.replace` makes of dataclasses."""
    changed = copy.copy(value)
    for name, each in changes.items():
        assert hasattr(value, name)
        setattr(changed, name, each)
    return changed
