from typing import Any

def normalize_json_object_argument(
    arguments: Any, *, field_name: str = "arguments", max_decode_passes: int = 2
) -> tuple[dict[str, Any], int]: ...
