"""What a header may be, for the headers of a provider and of a call."""

from __future__ import annotations

import re
from typing import Final

_NAME: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_VALUE: Final = r"([\x21-\x7e]([\t\x20-\x7e]*[\x21-\x7e])?)?"
_COMPUTED: Final = frozenset({"content-length", "transfer-encoding"})


def is_header_name(name: str) -> bool:
    """Whether a name is valid: RFC 9110 calls it a token."""
    return re.fullmatch(_NAME, name) is not None


def is_header_value(text: str) -> bool:
    """Whether a value is printable ASCII without line breaks or surrounding white space."""
    return re.fullmatch(_VALUE, text) is not None


def is_computed(name: str) -> bool:
    """Whether a header is computed from the request and cannot be set."""
    return name.lower() in _COMPUTED
