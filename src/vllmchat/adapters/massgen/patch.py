"""What is replaced in MassGen, and put back, so that `type: vllm` means our backend."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from massgen.agent_config import AgentConfig
from massgen.api_params_handler import ChatCompletionsAPIParamsHandler
from massgen.backend.llm_circuit_breaker import LLMCircuitBreakerConfig
from massgen.cli import backends
from massgen.config_validator import ConfigValidator
from massgen.memory import _context_monitor

from vllmchat.adapters.massgen import settings
from vllmchat.adapters.massgen.context import AskingCalculator
from vllmchat.adapters.massgen.installed import require_names
from vllmchat.adapters.massgen.names import FOR_THE_BACKEND
from vllmchat.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from massgen.config_validator import ValidationResult

    from vllmchat.adapters.massgen.backend import VLLMBackend


@cache
def massgen_names() -> frozenset[str]:
    """MassGen's own options in a backend block, as the installed MassGen lists them."""
    handler = object.__new__(ChatCompletionsAPIParamsHandler)
    breaker = {f"llm_circuit_breaker_{field.name}" for field in fields(LLMCircuitBreakerConfig)}
    return frozenset({*handler.get_excluded_params(), *breaker, *settings.OWN_NAMES})


_undo: list[Callable[[], None]] = []
_backend: type[VLLMBackend] | None = None


def install(backend: type[VLLMBackend]) -> None:
    """Makes `type: vllm` mean this backend.

    Raises:
        ImportError: The installed MassGen lacks a name that the backend uses.
    """
    global _backend
    if not _undo:
        require_names(FOR_THE_BACKEND)
    _backend = backend
    if not _undo:
        _replace(backends, "InferenceBackend", _inference_backend)
        _replace(ConfigValidator, "_validate_backend", _validate_backend)
        _replace(AgentConfig, "create_vllm_config", classmethod(_create_vllm_config))
        _replace(_context_monitor, "TokenCostCalculator", AskingCalculator)


def uninstall() -> None:
    """Makes MassGen use its own backend for `type: vllm` again. Existing agents keep theirs."""
    while _undo:
        _undo.pop()()


@contextmanager
def installed_for(backend: type[VLLMBackend]) -> Generator[None]:
    """Uses this backend for `type: vllm` inside a `with` block, whatever was used before."""
    global _backend
    was_installed, before = bool(_undo), _backend
    install(backend)
    try:
        yield
    finally:
        _backend = before
        if not was_installed:
            uninstall()


def _replace(owner: object, name: str, new: object) -> None:
    old: object = vars(owner)[name]
    _originals[name] = old
    setattr(owner, name, new)
    _undo.append(lambda: setattr(owner, name, old))


_originals: dict[str, Any] = {}


def _inference_backend(backend_type: str = "vllm", **kwargs: Any) -> Any:
    """Replaces MassGen's lookup of its backend class for vLLM and SGLang."""
    if backend_type.lower() != "vllm":
        return _originals["InferenceBackend"](backend_type=backend_type, **kwargs)
    assert _backend is not None
    try:
        return _backend(**kwargs)
    except InvalidRequestError as error:
        agent = kwargs.get("agent_id")
        place = f"agents[{agent!r}].backend" if agent else "backend"
        lines = settings.report(error.problems, place)
        raise backends.ConfigurationError("".join(f"\n  - {line}" for line in lines)) from None


def _validate_backend(
    self: ConfigValidator, backend_config: object, location: str, result: ValidationResult
) -> None:
    """Replaces MassGen's validation of a backend block."""
    _originals["_validate_backend"](self, backend_config, location, result)
    block = cast("dict[str, Any]", backend_config) if isinstance(backend_config, dict) else {}
    if block.get("type") == "vllm" and _backend is not None:
        for problem in settings.check(block, own=massgen_names() | _backend.parameter_names):
            if problem.parameter in settings.REPORTED_BY_MASSGEN:
                continue
            (line,) = settings.report([problem], location)
            result.add_error(line.removeprefix(f"{location}."), f"{location}.{problem.parameter}")


def _create_vllm_config(cls: type[AgentConfig], /, model: str | None = None, **kwargs: Any) -> AgentConfig:
    """Replaces MassGen's way to make the parameters that an agent repeats with each call.

    Parameters for whose names MassGen passes something of its own would come twice. The backend has them anyway.
    """
    kept = {name: value for name, value in kwargs.items() if name not in settings.GIVEN_BY_MASSGEN}
    config: AgentConfig = _originals["create_vllm_config"].__func__(cls, model, **kept)
    return config
