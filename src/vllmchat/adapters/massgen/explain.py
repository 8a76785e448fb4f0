"""The error messages for MassGen's users. Does not depend on the MassGen package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllmchat.adapters.massgen.wording import in_yaml
from vllmchat.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ContextWindowExceededError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    StreamError,
    UnprocessableEntityError,
)

if TYPE_CHECKING:
    from vllmchat.errors import VLLMChatError


def is_fatal(error: VLLMChatError, *, first: bool) -> bool:
    """Whether retrying is pointless, so that MassGen should give up the agent at once.

    Args:
        error: What happened.
        first: Whether it happened on the first request of an agent's turn. What the server rejects there, it will
            reject again, since MassGen only adds to the conversation; later requests have tool results that the next
            attempt may not have.
    """
    match error:
        case APITimeoutError():
            return False
        case AuthenticationError() | PermissionDeniedError() | NotFoundError() | APIConnectionError():
            return True
        case _:
            return first and is_refusal(error)


def is_refusal(error: VLLMChatError) -> bool:
    """Whether the request was rejected as wrong."""
    return isinstance(error, InvalidRequestError | BadRequestError | UnprocessableEntityError)


def explain(error: VLLMChatError, *, base_url: str, model: str | None, first: bool = True) -> str:
    """Explains the error in a sentence or two, with what to do about it if known.

    Args:
        error: What happened.
        base_url: The server's URL.
        model: The model's name.
        first: Whether it happened on the first request of an agent's turn.
    """
    said = in_yaml(error.message)
    reason = said.partition(" - check api_key")[0].rstrip(".")
    match error:
        case AuthenticationError():
            return (
                f"The vLLM server at {base_url} rejected the API key ({reason}). Set VLLM_API_KEY to the key that the "
                'server was started with, or write `api_key: "${NAME}"` into the backend block to take it from another '
                "environment variable."
            )
        case NotFoundError() if _is_about_model(error):
            return (
                f"The vLLM server at {base_url} does not serve the model {model!r} ({reason}). "
                f"`curl {base_url}/models` lists what it serves; write one of these names as `model:`."
            )
        case NotFoundError():
            return (
                f"{base_url} has no chat route ({reason}). `base_url:` must point to a vLLM server's "
                "/v1, such as http://localhost:8000/v1."
            )
        case BadRequestError() if "--tool-call-parser" in error.message:
            return (
                f"The vLLM server at {base_url} cannot call tools ({reason}), and MassGen needs tool calls. "
                "Start it with --enable-auto-tool-choice and the model's --tool-call-parser, such as hermes for Qwen."
            )
        case ContextWindowExceededError() if first:
            return (
                f"{said.rstrip('.')}. MassGen's own instructions and tools take several thousand tokens: start the "
                "server with a larger --max-model-len."
            )
        case StreamError():
            arrived = len(error.partial.text) if error.partial is not None else 0
            kept = f"{arrived} characters arrived and are kept." if arrived else "No text arrived."
            return f"The stream ended before the reply was complete. {kept} {said}"
        case _:
            return said


def _is_about_model(error: APIStatusError) -> bool:
    return error.param == "model" or "does not exist" in error.message
