"""LoRA adapters for the tiny model."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def make_adapter(parent: Path, name: str) -> Path:
    """Make an adapter that spoils the attention of every layer, without the libraries that do so usually."""
    folder = parent / name
    folder.mkdir(parents=True)
    tensors: dict[str, object] = {}
    data = b""
    for layer in range(4):
        for part, rows, columns, value in (("lora_A", 2, 256, 0.3), ("lora_B", 256, 2, 0.5)):
            start = len(data)
            data += struct.pack(f"<{rows * columns}f", *([value] * (rows * columns)))
            tensors[f"base_model.model.model.layers.{layer}.self_attn.q_proj.{part}.weight"] = {
                "dtype": "F32",
                "shape": [rows, columns],
                "data_offsets": [start, len(data)],
            }
    head = json.dumps(tensors).encode()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + data)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
