"""A MassGen backend for a vLLM server."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from massgen.backend import _compression_utils
from massgen.backend.base import StreamChunk
from massgen.backend.base_with_custom_tool_and_mcp import ToolExecutionConfig, UploadFileError
from massgen.backend.chat_completions import ChatCompletionsBackend
from massgen.logger_config import logger
from massgen.structured_logging import trace_llm_api_call
from massgen.utils.tool_argument_normalization import normalize_json_object_argument

from vllmchat.adapters.massgen import settings
from vllmchat.adapters.massgen.context import PROVIDER, Calculator, known_size, learn_size, serves, serving
from vllmchat.adapters.massgen.explain import explain, is_fatal, is_refusal
from vllmchat.adapters.massgen.failures import Failures
from vllmchat.adapters.massgen.messages import is_object, request_messages
from vllmchat.adapters.massgen.patch import massgen_names
from vllmchat.adapters.massgen.reply import Interrupted, OpenReply
from vllmchat.adapters.massgen.turn import INTERRUPTED, REFUSED, Chunk, Turn
from vllmchat.adapters.massgen.wording import in_yaml
from vllmchat.chat.check import OPENAI_CHAT_NAMES, VLLM_CHAT_NAMES
from vllmchat.errors import ContextWindowExceededError, InvalidRequestError, Problem, VLLMChatError
from vllmchat.providers.vllm import VLLMProvider

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterable, Iterator

    from vllmchat.chat.messages import Messages
    from vllmchat.chat.stream import AsyncChatEvents

DEFAULT_BASE_URL: Final = "http://localhost:8000/v1"

_VLLM_ONLY: Final = VLLM_CHAT_NAMES - OPENAI_CHAT_NAMES

_compressing: ContextVar[VLLMBackend | None] = ContextVar("_compressing", default=None)
"""The backend whose conversation MassGen is summarizing. MassGen makes a second backend of the same type for that, but
without the key."""


class VLLMBackend(ChatCompletionsBackend):
    """A MassGen backend for one vLLM server, built on `VLLMProvider`.

    It accepts MassGen's options and the parameters of `VLLMChatParams` together, as in a `type: vllm` block of a YAML
    file, and does everything that MassGen's own chat completions backend does: MCP servers, custom tools, workspaces,
    compression, traces, metrics.

    The backend keeps one connection pool for its lifetime, which ends with the event loop.

    Args:
        api_key: The server's key; else `$VLLM_API_KEY`, else `EMPTY`.
        **kwargs: The rest of the block. Without `base_url`, `$VLLM_BASE_URL`, else `http://localhost:8000/v1`.

    Raises:
        InvalidRequestError: An option is unknown or has a wrong value. The message lists all of them.
    """

    parameter_names: ClassVar[frozenset[str]] = frozenset()
    """Extra keys of the block that a subclass accepts; its `_build_vllm_extra_body` receives them."""

    def __init__(self, api_key: str | None = None, **kwargs: Any) -> None:
        origin = _compressing.get()
        if api_key is None and origin is not None and origin.config["base_url"] == kwargs.get("base_url"):
            api_key = origin.api_key
        api_key = api_key or os.environ.get("VLLM_API_KEY") or "EMPTY"
        kwargs["base_url"] = kwargs.get("base_url") or os.environ.get("VLLM_BASE_URL") or DEFAULT_BASE_URL
        problems = settings.check(kwargs, own=massgen_names() | self.parameter_names)
        model = kwargs.get("model")
        try:
            self._server = VLLMProvider(model, base_url=kwargs["base_url"], api_key=api_key)
        except (TypeError, ValueError) as error:
            problems.append(Problem("base_url", "", f"cannot be used: {in_yaml(str(error))}"))
        if problems:
            raise InvalidRequestError(problems)
        super().__init__(api_key, **kwargs)
        self.token_calculator = Calculator(self._server)
        self._charged_to = origin
        self._open_replies: set[OpenReply] = set()
        self._failures = Failures()
        self._stopped = False
        if isinstance(model, str):
            serves(self._server, model)

    # What MassGen asks about the backend

    def get_provider_name(self) -> str:
        """The provider's name."""
        return PROVIDER

    def get_supported_builtin_tools(self) -> list[str]:
        """Tools that the server runs itself: none."""
        return []

    # The request

    def _build_vllm_extra_body(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Takes the vLLM-only parameters out of `kwargs` and returns them as fields of the request body.

        Override it to add fields, or to read keys of your own (name them in `parameter_names`).

        Args:
            kwargs: The parameters of the request: those of the backend block, overridden by the call's. Whatever is
                left in it is sent as well.
        """
        extra = {name: kwargs.pop(name) for name in list(kwargs) if name in _VLLM_ONLY}
        thinking = extra.pop("enable_thinking", None)
        if thinking is not None:
            variables: dict[str, Any] = extra.get("chat_template_kwargs") or {}
            extra["chat_template_kwargs"] = {**variables, "enable_thinking": thinking}
        return {name: value for name, value in extra.items() if value is not None}

    def _request(
        self, tools: list[dict[str, Any]], call: dict[str, Any], *, with_mcp: bool
    ) -> dict[str, Any]:
        """The keyword arguments of the request, except `messages`."""
        params = settings.parameters(self.config, call, own=massgen_names())
        extra = self._build_vllm_extra_body(params)
        unknown = {name: extra.pop(name) for name in list(extra) if name not in VLLM_CHAT_NAMES}
        request = settings.with_timeout({**params, **extra})
        if unknown:
            request["extra_body"] = {**(request.get("extra_body") or {}), **unknown}
        # MassGen's metrics need the token counts, whatever the block says.
        request["stream_options"] = {**(request.get("stream_options") or {}), "include_usage": True}
        offered = [*self._offered_tools(tools, with_mcp=with_mcp), *(request.pop("tools", None) or ())]
        if offered:
            request["tools"] = offered
        else:
            request.pop("tool_choice", None)
            request.pop("parallel_tool_calls", None)
        return request

    def _offered_tools(self, tools: list[dict[str, Any]], *, with_mcp: bool) -> Iterable[dict[str, Any]]:
        """MassGen's tools for this call, custom and MCP, without the fields that the server ignores."""
        handler = self.api_params_handler
        for tool in (
            *(self.formatter.format_tools(tools) if tools else ()),
            *handler.get_custom_tools(),
            *(handler.get_mcp_tools() if with_mcp else ()),
        ):
            function = tool.get("function")
            if tool.get("type") == "function" and isinstance(function, dict):
                definition = cast("dict[str, Any]", function)
                known = ("name", "description", "parameters", "strict")
                kept = {name: definition[name] for name in known if definition.get(name) is not None}
                yield {"type": "function", "function": kept}

    # The stream

    async def stream_with_tools(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], **kwargs: Any
    ) -> AsyncGenerator[StreamChunk]:
        """Runs an agent's turn: calls the model and runs the tools that MassGen runs itself, until none are left.

        Args:
            messages: The conversation.
            tools: The workflow tools, such as `new_answer` and `vote`. Their calls are handed over, never run here.
            **kwargs: Parameters of this call; they take precedence over the backend block's.

        Yields:
            Chunks, in the order that MassGen's agents rely on.
        """
        if self._stopped:
            yield StreamChunk("error", error="The run was stopped.", status="fatal", detail=INTERRUPTED)
            return
        reply = OpenReply()
        self._open_replies.add(reply)
        failed = False
        try:
            # The generators inside are not closed here (`aclosing`): when the event loop ends, it closes all generators
            # at the same time, and closing one twice at a time is an error. All that must end at once is the reply.
            async for chunk in super().stream_with_tools(messages, tools, **kwargs, _open_reply=reply):
                if chunk.type == "error" and chunk.detail != INTERRUPTED:
                    failed = True
                    self._add_failure(chunk)
                yield chunk
            if not failed:
                self._failures.clear()
        finally:
            self._open_replies.discard(reply)
            await reply.aclose()

    @property
    def last_failure(self) -> str | None:
        """Why the last turn failed; None if it did not."""
        return self._failures.last

    def _add_failure(self, chunk: StreamChunk) -> None:
        """Makes an error fatal if repeating the turn is pointless: MassGen may repeat it without end."""
        why = chunk.error or "unknown error"
        refused, fatal = chunk.detail == REFUSED, chunk.status == "fatal"
        if self._failures.add(why, refused=refused, fatal=fatal):
            chunk.status = "fatal"  # MassGen reports it.
        else:
            logger.warning(f"[{PROVIDER}] {why}")

    async def interrupt(self) -> None:
        """Ends all replies that are being streamed, so the server stops generating. The backend remains usable."""
        for reply in list(self._open_replies):
            await reply.interrupt()

    @property
    def is_replying(self) -> bool:
        """Whether a turn is running."""
        return bool(self._open_replies)

    async def stop(self) -> None:
        """Ends all replies, and every later turn before it begins: the program ends."""
        self._stopped = True
        await self.interrupt()

    def _create_client(self, **kwargs: Any) -> OpenReply:
        """Returns what MassGen uses as a client: the holder of this call's open reply."""
        reply: OpenReply = kwargs.get("_open_reply") or OpenReply()
        return reply

    async def _cleanup_client(self, client: OpenReply | None) -> None:
        """Ends the call's reply if it is still open. The connections are kept for the next call."""
        if client is not None:
            await client.aclose()

    async def _stream_without_custom_and_mcp_tools(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], client: OpenReply, **kwargs: Any
    ) -> AsyncGenerator[StreamChunk]:
        """Runs the turn without MCP tools: MassGen's fallback when its MCP servers fail."""
        turn = self._stream_with_custom_and_mcp_tools(messages, tools, client, _with_mcp=False, **kwargs)
        async for chunk in turn:
            yield chunk

    async def _stream_with_custom_and_mcp_tools(
        self,
        current_messages: list[dict[str, Any]],
        tools: list[dict[str, Any]],
        client: OpenReply,
        _compression_retry: bool = False,
        *,
        _with_mcp: bool = True,
        **kwargs: Any,
    ) -> AsyncGenerator[StreamChunk]:
        """Runs the turn: one reply after another, as long as there are tools to run."""
        options = {**self.config, **kwargs}
        try:
            messages = await self._process_upload_files(current_messages, dict(options))
        except UploadFileError as error:
            for chunk in _told([*Turn().broken(f"upload_files: {error}", fatal=True), Chunk("done")]):
                yield chunk
            return
        model = str(options.get("model") or "")
        may_compress = not _compression_retry
        first = True
        while True:
            # Callers other than agents join the content of all chunks, so reasoning would end up in their text.
            turn = Turn(reasoning_in_content="agent_id" in kwargs)
            try:
                await client.wait(lambda: learn_size(self._server))
                turn.context_size = known_size(self._server, model)
                request = self._request(tools, kwargs, with_mcp=_with_mcp)
                async for chunk in self._one_reply(messages, model, request, turn, client, kwargs):
                    yield chunk
            except VLLMChatError as error:
                if isinstance(error, ContextWindowExceededError) and may_compress:
                    may_compress = False
                    logger.warning(f"[{PROVIDER}] {error.message}")
                    async for step in self._compressed(messages):
                        if isinstance(step, StreamChunk):
                            yield step
                        else:
                            messages = step
                    continue
                why = explain(error, base_url=self._server.base_url, model=model, first=first)
                broken = turn.broken(
                    why, fatal=is_fatal(error, first=first), detail=REFUSED if is_refusal(error) else None
                )
                for chunk in _told([*broken, *turn.handed_over()]):
                    yield chunk
                return
            except Interrupted:
                for chunk in _told(turn.broken("The reply was interrupted.", detail=INTERRUPTED)):
                    yield chunk
                return
            mcp, custom, others = self._categorize_tool_calls([_flat(call) for call in turn.calls])
            # Calls of workflow tools end the turn, and so do calls of unknown tools: MassGen handles them.
            if others or not (mcp or custom):
                for chunk in _told(turn.handed_over()):
                    yield chunk
                return
            messages = [*messages, turn.assistant_message()]
            async for chunk in self._run_tools(mcp, custom, messages, options):
                yield chunk
            messages = self._trim_message_history(messages)
            first = False

    async def _one_reply(
        self,
        messages: list[dict[str, Any]],
        model: str,
        request: dict[str, Any],
        turn: Turn,
        client: OpenReply,
        call: dict[str, Any],
    ) -> AsyncGenerator[StreamChunk]:
        """Yields one reply of the model as chunks; `turn` records it."""
        agent_id = call.get("agent_id")
        self._interrupted_stream_messages = messages
        self._interrupted_stream_model = model
        self._interrupted_stream_content = ""
        self._stream_usage_received = False
        outgoing = cast("Messages", request_messages(messages))
        self.start_api_call_timing(model)
        failure: str | None = "interrupted"
        try:
            with trace_llm_api_call(agent_id or "unknown", PROVIDER.lower(), model, operation="stream"):
                events: AsyncChatEvents = await self.circuit_breaker.call_with_retry(
                    lambda: client.open(
                        lambda: self._server.astream(outgoing, model=model or None, **request)
                    ),
                    agent_id=agent_id,
                )
            while (event := await client.wait(lambda: anext(events, None))) is not None:
                self.record_first_token()
                for chunk in turn.feed(event):
                    self._take_down(chunk)
                    yield _massgen_chunk(chunk)
            self._count(turn, messages, model)
            self._mend_calls(turn)
            for chunk in turn.end():
                self._take_down(chunk)
                yield _massgen_chunk(chunk)
            failure = turn.refusal
        except VLLMChatError as error:
            failure = error.message
            self._count(turn, messages, model, error)
            raise
        finally:
            await client.aclose()
            self.end_api_call_timing(success=failure is None, error=failure)

    def _mend_calls(self, turn: Turn) -> None:
        """Makes of a reply's tool calls what MassGen's own backend does: each ID once, small mistakes repaired.

        Arguments beyond repair stay as they are if MassGen runs the tool: its result will say so. A call of a
        workflow tool is dropped then, because MassGen would take it for a call without arguments.
        """
        turn.calls = self._deduplicate_standard_tool_calls(turn.calls, source="the reply")
        for call in turn.calls:
            function: dict[str, Any] = call["function"]
            name, arguments = function["name"], function["arguments"]
            try:
                parsed, _ = normalize_json_object_argument(arguments)
            except (ValueError, RecursionError):
                if not (self.is_mcp_tool_call(name) or self.is_custom_tool_call(name)):
                    turn.refuse(
                        f"The call of tool {name!r} has arguments that are not a JSON object: {arguments[:100]!r}. "
                        "It was not executed."
                    )
                    return
            else:
                if not is_object(arguments):
                    function["arguments"] = json.dumps(parsed, ensure_ascii=False)

    def _take_down(self, chunk: Chunk) -> None:
        """Adds a chunk to MassGen's trace and to the buffer from which it continues after an interruption."""
        match chunk:
            case Chunk("reasoning", reasoning_delta=str(text)):
                self._append_reasoning_to_buffer(text)
            case Chunk("content", content=str(text)):
                self._append_to_streaming_buffer(text)
                self._interrupted_stream_content += text
            case Chunk("tool_calls", tool_calls=list(calls)):
                self._append_tool_call_to_buffer(calls)
            case Chunk("error", error=str(text)):
                # The next attempt sees the buffer, so the model learns what was wrong with its call.
                self._append_to_streaming_buffer(f"\n\n[{text}]\n")
            case _:
                pass

    async def _compressed(
        self, messages: list[dict[str, Any]]
    ) -> AsyncGenerator[StreamChunk | list[dict[str, Any]]]:
        """Lets MassGen summarize the conversation; yields progress chunks, and finally the shorter conversation."""
        yield StreamChunk(
            "compression_status",
            content=f"\n📦 [Compression] The context is full - summarizing {len(messages)} messages...",
            status="compressing",
            source=self.agent_id,
        )
        shorter = await self._compress_messages_for_context_recovery(
            messages, buffer_content=self._get_streaming_buffer()
        )
        yield StreamChunk(
            "compression_status",
            content=f"✅ [Compression] Continuing with {len(shorter)} messages",
            status="compression_complete",
            source=self.agent_id,
        )
        yield shorter

    async def _compress_messages_for_context_recovery(
        self, messages: list[dict[str, Any]], buffer_content: str | None = None
    ) -> list[dict[str, Any]]:
        """Runs MassGen's own compression, with this server's context size and this backend's key for the summary."""
        from vllmchat.adapters.massgen.patch import installed_for

        with _origin_of_summaries(self, self._server), installed_for(type(self)):
            return await super()._compress_messages_for_context_recovery(messages, buffer_content)

    # Running tools

    async def _run_tools(
        self,
        mcp: list[dict[str, Any]],
        custom: list[dict[str, Any]],
        messages: list[dict[str, Any]],
        options: dict[str, Any],
    ) -> AsyncGenerator[StreamChunk]:
        """Runs the calls by MassGen's rules and appends their results to `messages`."""
        every_call = [*custom, *mcp]
        if mcp and not await self._check_circuit_breaker_before_execution():
            mcp = []
            yield StreamChunk(
                "mcp_status",
                content="⚠️ [MCP] All servers blocked by circuit breaker",
                status="mcp_blocked",
                source="circuit_breaker",
            )
        if mcp and self.is_planning_mode_enabled() and not self.get_planning_mode_blocked_tools():
            mcp = []
            yield StreamChunk(
                "mcp_status",
                content="🚫 [MCP] Planning mode active - all MCP tools blocked during coordination",
                status="planning_mode_blocked",
                source="planning_mode",
            )
        processed: set[str] = set()
        direct: list[dict[str, Any]] = []
        for call in (*custom, *mcp):
            routed = False
            if self._nlip_enabled and self._nlip_router:
                try:
                    config = self._tool_config(call)
                    async for chunk in self._stream_tool_execution_via_nlip(
                        call, config, messages, processed
                    ):
                        yield chunk
                    routed = True
                except Exception as error:  # As MassGen does: whatever its router raises, run it directly.
                    logger.warning(f"[NLIP] {call['name']}: {error}; running it directly")
            if not routed:
                direct.append(call)
        if direct:
            async for chunk in self._execute_tool_calls(
                all_calls=direct,
                tool_config_for_call=self._tool_config,
                all_params=options,
                updated_messages=messages,
                processed_call_ids=processed,
                log_prefix=f"[{PROVIDER}]",
                chunk_adapter=lambda chunk: chunk,
            ):
                yield chunk
        messages.extend(_not_carried_out(call) for call in every_call if call["call_id"] not in processed)

    def _tool_config(self, call: dict[str, Any]) -> ToolExecutionConfig:
        custom = call["name"] in self._custom_tool_names
        kind, label = ("custom", "Custom Tool") if custom else ("mcp", "MCP Tool")
        prefix = "custom_tool" if custom else "mcp_tool"
        return ToolExecutionConfig(
            tool_type=kind,
            chunk_type="custom_tool_status" if custom else "mcp_status",
            emoji_prefix=f"🔧 [{label}]",
            success_emoji=f"✅ [{label}]",
            error_emoji=f"❌ [{label} Error]",
            source_prefix=f"{kind}_",
            status_called=f"{prefix}_called",
            status_response=f"{prefix}_response",
            status_error=f"{prefix}_error",
            execution_callback=self._execute_custom_tool if custom else self._execute_mcp_function_with_retry,
        )

    # Counting

    def _count(
        self, turn: Turn, messages: list[dict[str, Any]], model: str, error: VLLMChatError | None = None
    ) -> None:
        """Adds the reply to MassGen's metrics: the server's token counts, or an estimate if there are none."""
        completion = turn.completion or (error.partial if error is not None else None)
        usage = completion.usage if completion is not None else None
        self._stream_usage_received = True
        self._interrupted_stream_messages = []
        if usage is not None:
            self._update_token_usage_from_api_response(usage.model_dump(), model)
        elif completion is not None:
            self._estimate_token_usage(messages, turn.text + turn.reasoning, model)

    def _update_token_usage_from_api_response(self, usage: Any, model: str) -> None:
        """Adds the server's token counts. MassGen's own method would first look up the price of a local model."""
        counted = self.token_calculator.extract_token_breakdown(usage)
        self._last_call_input_tokens = counted["input_tokens"]
        for backend in (self, self._charged_to):
            if backend is not None:
                total = backend.token_usage
                total.input_tokens += counted["input_tokens"]
                total.output_tokens += counted["output_tokens"]
                total.reasoning_tokens += counted["reasoning_tokens"]
                total.cached_input_tokens += counted["cached_input_tokens"]
                total.cache_creation_tokens += counted["cache_creation_tokens"]


@contextmanager
def _origin_of_summaries(backend: VLLMBackend, server: VLLMProvider) -> Generator[None]:
    # MassGen's compression gets the context size from a calculator of its own.
    known = _compression_utils._get_token_calculator  # pyright: ignore[reportPrivateUsage]
    if not isinstance(getattr(known, "_instance", None), Calculator):
        setattr(known, "_instance", Calculator())  # noqa: B010 - a function's attribute, which type checkers reject
    compressing, served = _compressing.set(backend), serving.set(server)
    try:
        yield
    finally:
        _compressing.reset(compressing)
        serving.reset(served)


def _massgen_chunk(chunk: Chunk) -> StreamChunk:
    return StreamChunk(**asdict(chunk))


def _told(chunks: Iterable[Chunk]) -> Iterator[StreamChunk]:
    return map(_massgen_chunk, chunks)


def _not_carried_out(call: dict[str, Any]) -> dict[str, Any]:
    text = f"Error: the call of {call['name']} was not executed: it is blocked or failed."
    return {"role": "tool", "tool_call_id": call["call_id"], "content": text}


def _flat(call: dict[str, Any]) -> dict[str, Any]:
    """A tool call in the form that MassGen's tool code expects."""
    function = call["function"]
    return {"call_id": call["id"], "name": function["name"], "arguments": function["arguments"]}
