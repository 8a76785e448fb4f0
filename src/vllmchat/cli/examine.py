"""Examines a server: looks at what it says about itself, and tries what it can do."""

from __future__ import annotations

import email.utils
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, cast

from vllmchat.checking.since import OLDEST
from vllmchat.cli.findings import Finding, split_advice
from vllmchat.cli.parsers import REASONING_PARSERS, TOOL_PARSERS, has_call, has_reasoning, parser_for
from vllmchat.errors import (
    APIConnectionError,
    APIStatusError,
    AuthenticationError,
    NotFoundError,
    PermissionDeniedError,
    ResponseError,
    VLLMChatError,
)
from vllmchat.http.plain_key import is_local
from vllmchat.http.transport.proxy import proxy_for
from vllmchat.http.url import BaseURL
from vllmchat.providers.vllm import VLLMProvider
from vllmchat.versions import TESTED, read_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from vllmchat.chat.completion import ChatCompletion
    from vllmchat.cli.server import AnyProvider
    from vllmchat.client.discovery import Model
    from vllmchat.client.hooks import ResponseInfo

_CLOCK_SECONDS: Final = 5.0
"""How far two clocks may be apart."""

_SHOWN: Final = 5
"""How many models are named."""

_TOKENS: Final = 400
"""How long the reply to a question may be, reasoning included."""

_PIECES: Final = 64
_WATCH_SECONDS: Final = 3.0
"""How much of a stream is watched: so many tokens, and so long after the first one."""

_TELLING_SECONDS: Final = 0.2
"""A stream that is generated faster than this does not show whether it was held back."""

_WEATHER: Final = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


class Examination:
    """The examination of one server.

    Args:
        llm: Its provider.
        has_key: Whether a key was given.
    """

    def __init__(self, llm: AnyProvider, *, has_key: bool) -> None:
        self._plain = llm
        self._llm = llm.with_options(on_response=self._note)
        self._has_key = has_key
        self._base = BaseURL.parse(llm.base_url, add_v1=False)
        self._headers: Mapping[str, str] = {}
        self._received = datetime.now(UTC)
        self._models: Sequence[Model] = ()
        self._answers = True
        self._is_vllm = isinstance(llm, VLLMProvider)
        self._chats = True

    def run(self) -> Iterator[Finding]:
        """Yields what it finds, as it finds it. If the server cannot be reached, that is the last."""
        yield from self._look_at_proxy()
        if self._answers:
            yield from self._reach()
        if not self._answers:
            return
        yield from self._look_at_headers()
        if self._is_vllm:
            yield from self._ask_version()
        if self._is_vllm:
            yield from self._ask_health()
        yield from self._look_at_models()
        if self._chats:
            yield from self._try_chats()
        if self._is_vllm:
            yield from self._try_tokenizer()
            yield from self._read_metrics()

    def _note(self, response: ResponseInfo) -> None:
        self._headers = response.headers or self._headers
        self._received = datetime.now(UTC)

    # How it is reached

    def _look_at_proxy(self) -> Iterator[Finding]:
        proxy = proxy_for(self._base)
        if proxy is None:
            return
        if is_local(self._base.host) and not is_local(proxy.host):
            # What follows would be about the proxy.
            self._answers = False
            hosts = dict.fromkeys(("localhost", "127.0.0.1", self._base.host))
            yield Finding(
                "proxy",
                "problem",
                f"requests to this machine go through {proxy.source}",
                f"export NO_PROXY={','.join(hosts)}",
            )
        else:
            yield Finding("proxy", "ok", f"requests go through {proxy.source}")

    def _reach(self) -> Iterator[Finding]:
        began = time.monotonic()
        error: VLLMChatError | None = None
        try:
            self._models = self._llm.models().data
        except APIConnectionError as failure:
            self._answers = False
            what = "TLS" if failure.kind == "tls" else "reachable"
            yield Finding(what, "problem", *split_advice(failure.message))
            return
        except VLLMChatError as failure:
            error = failure
        yield Finding(
            "reachable", "ok", f"{self._base} responds in {(time.monotonic() - began) * 1000:,.0f} ms"
        )
        yield self._security()
        if error is None:
            yield self._key()
        elif isinstance(error, AuthenticationError | PermissionDeniedError):
            self._chats = False
            given = "does not accept the key" if self._has_key else "asks for a key"
            advice = "Set VLLM_API_KEY, or give --api-key-file: the value of the server's --api-key."
            yield Finding("key", "problem", f"the server {given} (HTTP {error.status_code})", advice)
        else:
            self._chats = False
            yield Finding("models", "problem", *split_advice(error.message))

    def _security(self) -> Finding:
        if self._base.scheme == "https":
            return Finding("TLS", "ok", "encrypted, and the certificate is trusted")
        if is_local(self._base.host):
            return Finding("TLS", "ok", "not encrypted, on this machine")
        return Finding(
            "TLS",
            "warning",
            "not encrypted: prompts, replies and keys can be read on the way",
            "Put a proxy with TLS before the server, use a tunnel, or start it with --ssl-certfile and --ssl-keyfile.",
        )

    def _key(self) -> Finding:
        if not self._has_key:
            return Finding("key", "ok", "none is needed")
        try:
            self._plain.with_options(api_key="EMPTY").models()
        except VLLMChatError:
            return Finding("key", "ok", "accepted")
        return Finding(
            "key",
            "warning",
            "accepted, but the server does not ask for one: whoever reaches it can use it",
            "Start it with: vllm serve --api-key KEY",
        )

    def _look_at_headers(self) -> Iterator[Finding]:
        software, via = self._headers.get("server", ""), self._headers.get("via", "")
        between = [each for each in (software, via) if each and "uvicorn" not in each]
        if between:
            yield Finding("in between", "ok", f"the response came through {', '.join(between)}")
        sent = email.utils.parsedate_tz(self._headers.get("date", ""))
        if sent is None:
            return
        ahead = email.utils.mktime_tz(sent) - self._received.timestamp()
        if abs(ahead) < _CLOCK_SECONDS:
            yield Finding("clock", "ok", "the same as here")
        else:
            where = "ahead of" if ahead > 0 else "behind"
            yield Finding(
                "clock",
                "warning",
                f"the server's clock is {abs(ahead):,.0f} s {where} this one",
                "Set both by NTP: tokens, certificates and logs depend on it.",
            )

    # What it says about itself

    def _ask_version(self) -> Iterator[Finding]:
        try:
            text = self._vllm.version()
        except (APIStatusError, ResponseError):
            self._is_vllm = False
            yield Finding(
                "version",
                "warning",
                "there is no /version: it is not vLLM, or something in between does not forward it",
                "For another server, use --provider openai. Else forward /version, /health, /metrics, /tokenize.",
            )
            return
        except VLLMChatError as error:
            yield Finding("version", "problem", *split_advice(error.message))
            return
        version = read_version(text)
        if version < read_version(OLDEST):
            yield Finding(
                "version",
                "problem",
                f"vLLM {text} is older than {OLDEST}, the oldest that is supported",
                "Update it.",
            )
        elif version[:2] > TESTED[:2] and text[:1].isdigit() and not text.startswith("0.1.dev"):
            tested = f"{TESTED[0]}.{TESTED[1]}"
            yield Finding(
                "version",
                "warning",
                f"vLLM {text} is newer than {tested}, the newest that this vllmchat is tested with",
                "Update vllmchat: pip install -U vllmchat",
            )
        else:
            yield Finding("version", "ok", f"vLLM {text}")

    def _ask_health(self) -> Iterator[Finding]:
        try:
            healthy = self._vllm.health()
        except VLLMChatError as error:
            yield Finding("health", "warning", *split_advice(error.message))
            return
        if healthy:
            yield Finding("health", "ok", "the engine is running")
        else:
            yield Finding(
                "health", "problem", "the engine has died", "Restart the server. Its log says what happened."
            )

    def _look_at_models(self) -> Iterator[Finding]:
        if not self._models:
            if self._chats:
                self._chats = False
                yield Finding("models", "problem", "the server serves none", "It may still be starting.")
            return
        names = [model.id for model in self._models]
        bases = [model.id for model in self._models if not model.parent]
        wanted = self._llm.model
        if wanted is not None and wanted not in names:
            self._chats = False
            yield Finding(
                "models", "problem", f"{wanted} is not served", f"Set --model to one of: {_listed(names)}"
            )
            return
        model = wanted or (bases or names)[0]
        self._llm = self._llm.with_options(model=model)
        one = len({each.root for each in self._models if not each.parent}) == 1
        text = f"{_listed(bases or names)}{'' if len(names) == 1 or wanted else f'; examining {model}'}"
        if wanted is None and not one and len(bases) > 1:
            yield Finding(
                "models", "warning", text, "Name one with --model: a request without one is rejected."
            )
        else:
            yield Finding("models", "ok", text)
        lengths = {each.id: each.max_model_len for each in self._models}
        card = next(each for each in self._models if each.id == model)
        if length := card.max_model_len or lengths.get(card.parent or ""):
            yield Finding("context", "ok", f"{length:,} tokens, prompt and reply together")
        if self._is_vllm:
            adapters = [each.id for each in self._models if each.parent]
            none = "none loaded. vllm serve --enable-lora --lora-modules NAME=PATH serves some"
            yield Finding("LoRA", "ok", _listed(adapters) if adapters else none)

    # What it can do

    def _try_chats(self) -> Iterator[Finding]:
        began = time.monotonic()
        try:
            self._chat("Hello", max_tokens=1)
            began = time.monotonic()
            self._chat("Hello", max_tokens=1)
        except NotFoundError as error:
            yield Finding(
                "chat",
                "warning",
                split_advice(error.message)[0],
                "The model may be one for embeddings, or the route is not forwarded.",
            )
            return
        except VLLMChatError as error:
            yield Finding("chat", "problem", *split_advice(error.message))
            return
        seconds = time.monotonic() - began
        yield Finding("chat", "ok", f"a reply of one token takes {seconds * 1000:,.0f} ms")
        yield from self._guarded("streaming", lambda: self._try_stream(seconds))
        yield from self._guarded("reasoning", self._try_reasoning)
        yield from self._guarded("tools", self._try_tools)
        yield from self._guarded("structured", self._try_constraint)

    def _guarded(self, what: str, attempt: Callable[[], Finding]) -> Iterator[Finding]:
        try:
            yield attempt()
        except VLLMChatError as error:
            yield Finding(what, "problem", *split_advice(error.message))

    def _try_stream(self, one: float) -> Finding:
        """Watches a stream.

        Args:
            one: How long a reply of one token takes, in seconds.
        """
        arrivals: list[float] = []
        more: dict[str, Any] = {"ignore_eos": True} if self._is_vllm else {}
        began = time.monotonic()
        with self._llm.stream("Count from 1 to 100.", max_tokens=_PIECES, temperature=0, **more) as stream:
            for chunk in stream:
                if chunk.text or any(choice.delta.reasoning for choice in chunk.choices):
                    arrivals.append(time.monotonic() - began)
                    if arrivals[-1] - arrivals[0] > _WATCH_SECONDS:
                        break
        return judge_stream(one, arrivals)

    def _try_reasoning(self) -> Finding:
        more: dict[str, Any] = {"enable_thinking": True} if self._is_vllm else {}
        reply = self._chat("What is 17 times 3?", max_tokens=_TOKENS, **more)
        if reply.reasoning:
            return Finding("reasoning", "ok", "the reasoning parser works")
        if has_reasoning(reply.text):
            parser = parser_for(self._names(), REASONING_PARSERS)
            return Finding(
                "reasoning",
                "problem",
                "the reasoning is in the text of the reply",
                f"Start the server with: vllm serve --reasoning-parser {parser}",
            )
        return Finding("reasoning", "unknown", "the model did not reason, so the parser cannot be tried")

    def _try_tools(self) -> Finding:
        parser = parser_for(self._names(), TOOL_PARSERS)
        advice = f"Start the server with: vllm serve --enable-auto-tool-choice --tool-call-parser {parser}"
        tools: list[Any] = [_WEATHER]
        try:
            reply = self._chat("What is the weather in Paris?", max_tokens=_TOKENS, tools=tools)
        except APIStatusError as error:
            if error.status_code == 400 and "tool" in error.message:
                return Finding("tools", "warning", "tools are switched off", advice)
            raise
        if reply.tool_calls:
            call = reply.tool_calls[0]
            if call.complete:
                return Finding("tools", "ok", f"the tool parser works: {call.name}({call.arguments})")
            return Finding("tools", "warning", f"the call is not complete: {call.name}({call.arguments})")
        if has_call(reply.text):
            return Finding("tools", "problem", "the tool call is in the text of the reply", advice)
        return Finding("tools", "unknown", "the model called no tool, so the parser cannot be tried")

    def _try_constraint(self) -> Finding:
        choices = ["yes", "no"]
        more: dict[str, Any]
        if self._is_vllm:
            more = {"structured_outputs": {"choice": choices}, "enable_thinking": False}
        else:
            schema = {"type": "string", "enum": choices}
            more = {
                "response_format": {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}
            }
        reply = self._chat("Is the sky green?", max_tokens=_TOKENS, **more)
        if reply.text.strip().strip('"') in choices:
            return Finding("structured", "ok", "the reply has the form that was asked for")
        if reply.finish_reason == "length":
            return Finding("structured", "unknown", f"there was no reply within {_TOKENS} tokens")
        return Finding(
            "structured",
            "problem",
            f"asked for yes or no, the reply was {reply.text[:60]!r}",
            "The server, or something in between, ignores structured outputs. Update it.",
        )

    def _try_tokenizer(self) -> Iterator[Finding]:
        try:
            count = self._vllm.count_tokens("Hello")
        except VLLMChatError as error:
            if not self._chats and isinstance(error, AuthenticationError):
                return
            yield Finding("tokenizer", "warning", *split_advice(error.message))
        else:
            yield Finding("tokenizer", "ok", f"/tokenize counts {count} tokens for a greeting")

    def _read_metrics(self) -> Iterator[Finding]:
        try:
            metrics = self._vllm.metrics()
        except ImportError as error:
            yield Finding("metrics", "unknown", str(error))
            return
        except VLLMChatError as error:
            yield Finding("metrics", "warning", *split_advice(error.message))
            return
        running, waiting = metrics.requests_running, metrics.requests_waiting
        if running is None:
            yield Finding("metrics", "warning", "/metrics has no figures of vLLM")
            return
        parts = [f"{running:,} running", f"{waiting or 0:,} waiting"]
        if (usage := metrics.kv_cache_usage) is not None:
            parts.append(f"{usage:.0%} of the KV cache used")
        if (rate := metrics.prefix_cache_hit_rate) is not None:
            parts.append(f"{rate:.0%} of the prompts cached")
        if preemptions := metrics.preemptions:
            yield Finding(
                "metrics",
                "warning",
                ", ".join([*parts, f"{preemptions:,} preemptions since the start"]),
                "The KV cache is too small for the load: raise --gpu-memory-utilization, or lower --max-num-seqs.",
            )
        else:
            yield Finding("metrics", "ok", ", ".join(parts))

    # Help for the above

    def _chat(self, text: str, **params: Any) -> ChatCompletion:
        return self._llm.chat(text, temperature=0, **params)

    @property
    def _vllm(self) -> VLLMProvider:
        return cast("VLLMProvider", self._llm)

    def _names(self) -> list[str]:
        """The names of the model: its own, and where its weights come from."""
        return [self._llm.model or "", *(model.root or "" for model in self._models)]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def judge_stream(one: float, arrivals: Sequence[float]) -> Finding:
    """Judges whether a stream came as it was generated.

    Args:
        one: How long a reply of one token takes, in seconds.
        arrivals: When its pieces arrived, in seconds since the request.
    """
    if not arrivals:
        return Finding("streaming", "unknown", "the stream had no text")
    generating, spread = arrivals[-1] - one, arrivals[-1] - arrivals[0]
    text = f"{len(arrivals)} pieces in {arrivals[-1]:.2g} s, the first after {arrivals[0] * 1000:,.0f} ms"
    if generating < _TELLING_SECONDS:
        return Finding("streaming", "ok", text)
    if spread < generating / 4:
        return Finding(
            "streaming",
            "warning",
            f"all came at once: {text}",
            "A proxy in between holds the stream back. In nginx, write: proxy_buffering off",
        )
    return Finding("streaming", "ok", text)
