"""What tells one job from another: digests of its input and of its parameters."""

from __future__ import annotations

import hashlib
import json
import re
from typing import IO, TYPE_CHECKING, Final

from vllmchat.schemas.types import SchemaError, adapter_of, is_type, schema_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_BLOCK: Final = 1 << 20

_IRRELEVANT: Final = frozenset(
    {"timeout", "max_retry_seconds", "extra_headers", "priority", "session_id", "data_parallel_rank"}
)
"""Parameters that replies do not depend on."""


def digest_of_file(file: IO[bytes]) -> str:
    """Returns the digest of a file's bytes, from where it stands."""
    digest = hashlib.blake2b(digest_size=16)
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def digest_of_params(params: Mapping[str, object]) -> str:
    """Returns the digest of parameters, of those that replies depend on."""
    relevant = {name: value for name, value in params.items() if name not in _IRRELEVANT}
    text = json.dumps(relevant, sort_keys=True, default=_plain)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _plain(value: object) -> object:
    """What stands for a value that is not JSON: a type by its schema, anything else by what it shows."""
    if is_type(value):
        try:
            return schema_of(adapter_of(value))
        except SchemaError:
            return repr(value)
    # A function shows where it is in memory.
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
