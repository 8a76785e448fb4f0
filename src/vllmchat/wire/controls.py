"""JSON for terminals."""

from __future__ import annotations

import re

_CONTROL = re.compile("[\x7f-\x9f]")


def without_controls(json: str) -> str:
    """Returns equal JSON that does not drive a terminal: the control characters that JSON allows are escaped."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", json)
