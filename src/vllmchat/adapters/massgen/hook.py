"""Makes MassGen use our backend for `type: vllm`."""

from __future__ import annotations

from vllmchat.adapters.massgen import patch
from vllmchat.adapters.massgen.backend import VLLMBackend


def install(backend: type[VLLMBackend] = VLLMBackend) -> None:
    """Makes MassGen use our backend for `type: vllm`.

    This applies to `massgen.run`, to MassGen's command line, and wherever agents are created from a configuration.
    Other types do not change. Calling it again is harmless.

    MassGen's validation of configuration files learns vLLM's parameters too, so a misspelled one is reported with its
    place in the file.

    It does not apply to child processes that MassGen starts (subagents): they use MassGen's own backend, unless
    `vllmchat-massgen enable` was called.

    Args:
        backend: Our backend, or a subclass of it.

    Raises:
        ImportError: The installed MassGen lacks a name that the backend uses. The message says what to install.
    """
    patch.install(backend)
