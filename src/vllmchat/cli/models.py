"""`vllmchat models`: what the server serves."""

from __future__ import annotations

import json as jsons
import sys
from typing import TYPE_CHECKING, Final

import click

from vllmchat.cli.command import Command
from vllmchat.cli.server import server_options
from vllmchat.cli.terminal import columns, say, write
from vllmchat.wire.controls import without_controls

if TYPE_CHECKING:
    from vllmchat.cli.server import Server
    from vllmchat.client.discovery import Model


def models(server: Server, json: bool) -> None:
    """List the models that the server serves: the name to use, the context in tokens, and where it comes from."""
    with server.connect() as llm:
        found = llm.models().data
    if json:
        rows = [model.model_dump(mode="json") for model in found]
        sys.stdout.write(f"{without_controls(jsons.dumps(rows, indent=2, ensure_ascii=False))}\n")
        return
    if not found:
        say(f"{llm.base_url} serves no model.")
        return
    lengths = {model.id: model.max_model_len for model in found}
    write(columns([("NAME", "CONTEXT", "FROM"), *(_row(model, lengths) for model in found)]))


def _row(model: Model, lengths: dict[str, int | None]) -> tuple[str, str, str]:
    # An adapter has the length of its base model.
    length = model.max_model_len or lengths.get(model.parent or "")
    origin = f"adapter of {model.parent}" if model.parent else model.root or model.owned_by or ""
    return model.id, f"{length:,}" if length else "-", origin


COMMAND: Final = Command(
    "models",
    models,
    [click.Option(["--json"], is_flag=True, help="Print them as JSON.")],
    server=server_options(model=False),
)
