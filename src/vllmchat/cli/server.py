"""Which server a command talks to: the options that all commands share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import click

from vllmchat.checking.secrets import hide
from vllmchat.cli.values import Number
from vllmchat.cli.wording import OPTIONS, in_options
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    from vllmchat.providers import openai, vllm
    from vllmchat.providers.openai import OpenAIProvider
    from vllmchat.providers.vllm import VLLMProvider

    AnyProvider: TypeAlias = VLLMProvider | OpenAIProvider
else:
    openai = LazyModule("vllmchat.providers.openai")
    vllm = LazyModule("vllmchat.providers.vllm")

P = TypeVar("P", "VLLMProvider", "OpenAIProvider")


class ServerOption(click.Option):
    """An option about the server."""


@dataclass(frozen=True, slots=True)
class Server:
    """What was given of the options about the server. What was not is taken from the environment.

    Attributes:
        url: `--url`.
        model: `--model`.
        timeout: `--timeout`, in seconds.
        provider: `--provider`.
        api_key_file: `--api-key-file`.
    """

    url: str | None = None
    model: str | None = None
    timeout: float | None = None
    provider: str = "vllm"
    api_key_file: str | None = None

    def connect(self, *, max_retries: int = 2, timeout: float | None = None) -> AnyProvider:
        """Returns the provider. Nothing is sent yet.

        Args:
            max_retries: How often it tries a request again.
            timeout: How long a request may take if `--timeout` does not say so, in seconds.

        Raises:
            click.UsageError: An option, or a variable of the environment, is wrong.
        """
        if self.provider == "openai":
            return self._made(openai.OpenAIProvider, max_retries, timeout)
        return self.vllm(max_retries=max_retries, timeout=timeout)

    def vllm(self, *, max_retries: int = 2, timeout: float | None = None) -> VLLMProvider:
        """Returns the provider for a vLLM server; see `connect`."""
        return self._made(vllm.VLLMProvider, max_retries, timeout)

    def _made(self, make: type[P], max_retries: int, timeout: float | None) -> P:
        if self.timeout is not None and self.timeout <= 0:
            raise click.UsageError(
                f"--timeout {self.timeout:g}: must be greater than 0.",
                click.get_current_context(silent=True),
            )
        try:
            return make(
                self.model,
                base_url=self.url,
                api_key=self._key(),
                timeout=timeout if self.timeout is None else self.timeout,
                max_retries=max_retries,
            )
        except (ValueError, TypeError) as error:
            raise click.UsageError(in_options(str(error), OPTIONS)) from None

    def _key(self) -> str | None:
        if self.api_key_file is None:
            return None
        try:
            key = Path(self.api_key_file).read_text(encoding="utf-8-sig").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise click.UsageError(f"--api-key-file {self.api_key_file}: {reason}") from None
        if not key:
            raise click.UsageError(f"--api-key-file {self.api_key_file}: the file is empty")
        return hide(key)


def _log(ctx: click.Context, param: click.Parameter, value: int) -> None:
    if value:
        os.environ["VLLMCHAT_LOG"] = "debug" if value > 1 else "info"


def server_options(*, model: bool = True) -> list[click.Option]:
    """Returns the options about the server.

    Args:
        model: Whether the command is about one model.
    """
    options: list[click.Option] = [
        ServerOption(
            ["--url"],
            metavar="URL",
            help="The server. Default: $VLLM_BASE_URL, else http://localhost:8000/v1.",
        ),
        ServerOption(
            ["--model", "-m"],
            metavar="NAME",
            help="The model, or a LoRA adapter. Default: the only one that the server serves.",
        ),
        ServerOption(
            ["--timeout"],
            type=Number(whole=False),
            metavar="SECONDS",
            help="How long a request may take.",
        ),
        ServerOption(
            ["--provider"],
            type=click.Choice(["vllm", "openai"]),
            default="vllm",
            show_default=True,
            help="openai: any OpenAI-compatible server, with $OPENAI_BASE_URL and $OPENAI_API_KEY.",
        ),
        ServerOption(
            ["--api-key-file"],
            type=click.Path(),
            metavar="FILE",
            help="A file with the API key. Default: the key in $VLLM_API_KEY.",
        ),
        ServerOption(
            ["--verbose", "-v"],
            count=True,
            expose_value=False,
            callback=_log,
            help="Log requests to stderr; -vv connections too.",
        ),
    ]
    return [each for each in options if model or each.name != "model"]
