"""Pack the recorded answers of one server into an archive: they stay as they are, and the repo stays small.

    python scripts/pack_recordings.py /somewhere/vllm-0.33.0 [/somewhere/vllm-0.33.0-pooling ...]

Each folder holds recordings, as `scripts/record.py` writes them, and the server's `openapi.json`. It becomes
`tests/recorded/vllm-0.33.0.zip`, the same bytes for the same recordings. What is packed is described in
`tests/recorded/README.md`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cached_env import say_to_stderr

RECORDED = Path(__file__).resolve().parent.parent / "tests" / "recorded"

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The date of every member, so that the same recordings make the same archive."""

NEUTRAL = (
    # Where Python keeps its packages, in tracebacks.
    (re.compile(r"(?:/[\w.+~-]+)+/(?:site|dist)-packages/"), "/usr/lib/python3/site-packages/"),
    # Where the model is stored, in `/v1/models`.
    (re.compile(r'(?<="root":")/[^"]*/'), "/models/"),
)
"""Paths of the machine that recorded, and what is written instead."""


class PackError(Exception):
    """A folder cannot be packed."""


def neutral(text: str) -> str:
    """A body without the paths of the machine that recorded it.

    Raises:
        PackError: A path of this machine is left.
    """
    for path, instead in NEUTRAL:
        text = path.sub(instead, text)
    for place in (Path.home(), RECORDED.parent.parent, Path(tempfile.gettempdir())):
        if f"{place}/" in text:
            raise PackError(f"a path below {place} is left")
    return text


def pack(folder: Path, into: Path = RECORDED) -> Path:
    """Pack the recordings of a folder, and return the archive.

    What got no answer at all is left out: it is not a recording.

    Args:
        folder: Its name is that of the archive.
        into: Where the archive goes.

    Raises:
        PackError: A file is not a recording, or has a path of this machine in its answer.
    """
    members: dict[str, str] = {}
    for file in sorted(folder.glob("*.json")):
        content: dict[str, Any] = json.loads(file.read_text("utf-8"))
        if file.name != "openapi.json":
            if not {"request", "response"} <= content.keys():
                raise PackError(f"{file}: neither a recording nor openapi.json")
            response: dict[str, Any] = content["response"]
            if "status" not in response:
                continue
            try:
                response["body"] = neutral(response["body"])
            except PackError as error:
                raise PackError(f"{file}: {error}") from None
        members[file.name] = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    if not members:
        raise PackError(f"{folder} holds no recordings")
    into.mkdir(parents=True, exist_ok=True)
    archive = into / f"{folder.name}.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target:
        for name, text in members.items():
            member = zipfile.ZipInfo(name, EPOCH)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o644 << 16
            target.writestr(member, text)
    return archive


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="pack_recordings.py", description="Pack the recorded answers of servers into archives."
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="named vllm-VERSION")
    parser.add_argument("--into", type=Path, default=RECORDED, metavar="FOLDER", help="default: %(default)s")
    arguments = parser.parse_args(argv)
    try:
        for folder in arguments.folders:
            archive = pack(folder, arguments.into)
            print(f"{archive.stat().st_size:,} bytes {archive}")
    except (PackError, OSError) as error:
        say_to_stderr(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
