"""The typed Python client for vLLM.

`VLLMProvider` talks to a vLLM server, `OpenAIProvider` to any OpenAI-compatible one. Names are imported when they are
first used, so `import vllmchat` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllmchat.audio.params import (
        StreamTranscribeParams,
        StreamTranslateParams,
        TranscribeParams,
        TranslateParams,
    )
    from vllmchat.audio.stream import AsyncTranscriptionStream, TranscriptionStream
    from vllmchat.audio.transcription import Transcription, TranscriptionChunk, TranscriptionSegment
    from vllmchat.chat.chunk import ChatCompletionChunk, ChunkChoice, Delta, DeltaToolCall
    from vllmchat.chat.completion import ChatCompletion, ChatMessage, Choice, ToolCall
    from vllmchat.chat.events import (
        Event,
        Finished,
        ReasoningDelta,
        TextDelta,
        ToolCallDelta,
        ToolCallDone,
        ToolCallStart,
    )
    from vllmchat.chat.messages import (
        Message,
        Messages,
        audio_part,
        image_part,
        text_part,
        tool_message,
        video_part,
    )
    from vllmchat.chat.params import ChatParams, CommonChatParams, VLLMChatParams
    from vllmchat.chat.protocols import AsyncProvider, Provider, SyncProvider
    from vllmchat.chat.stream import AsyncChatStream, ChatStream
    from vllmchat.client.discovery import Model, ModelList
    from vllmchat.completions.completion import TextCompletion, TextCompletionChunk
    from vllmchat.completions.params import CompletionParams, VLLMCompletionParams
    from vllmchat.completions.stream import AsyncTextStream, TextStream
    from vllmchat.errors import (
        APIConnectionError,
        APIStatusError,
        APITimeoutError,
        AuthenticationError,
        BadRequestError,
        ConflictError,
        ContextWindowExceededError,
        InternalServerError,
        InvalidRequestError,
        MaxTurnsError,
        NotFoundError,
        PermissionDeniedError,
        Problem,
        RateLimitError,
        ResponseError,
        ServiceUnavailableError,
        StreamError,
        StreamInterruptedError,
        StructuredOutputError,
        UnprocessableEntityError,
        VLLMChatError,
    )
    from vllmchat.generate.generation import Generation, GenerationChunk
    from vllmchat.generate.params import GenerateParams
    from vllmchat.generate.rendered import RenderedPrompt
    from vllmchat.generate.stream import AsyncGenerationStream, GenerationStream
    from vllmchat.http.timeout import Timeout
    from vllmchat.pooling.embeddings import Embedding, Embeddings
    from vllmchat.pooling.outputs import Classification, Classifications, PoolingOutput, PoolingOutputs
    from vllmchat.pooling.params import ClassifyParams, EmbedParams, PoolParams, RerankParams, ScoreParams
    from vllmchat.pooling.scores import Ranked, Ranking, Score, Scores
    from vllmchat.pooling.vector import Vector
    from vllmchat.providers.openai import OpenAIProvider
    from vllmchat.providers.vllm import VLLMProvider
    from vllmchat.responses.events import (
        ResponseArgumentsDelta,
        ResponseEvent,
        ResponseItemEvent,
        ResponsePartEvent,
        ResponseReasoningDelta,
        ResponseStateEvent,
        ResponseTextDelta,
    )
    from vllmchat.responses.params import ResponseParams
    from vllmchat.responses.response import ModelResponse, ResponseItem
    from vllmchat.responses.stream import AsyncResponseStream, ResponseStream
    from vllmchat.schemas.functions import Tool
    from vllmchat.schemas.tool_params import FunctionTool
    from vllmchat.server.metrics import MetricFamily, MetricHistogram, Metrics, MetricSample
    from vllmchat.structured.output_type import Parsed
    from vllmchat.structured.stream import AsyncParseStream, ParseStream, PartialValue
    from vllmchat.tokens.tokenize import CountTokensParams, DetokenizeParams, Tokenization, TokenizeParams
    from vllmchat.tools.flow import OnToolError, RunEvent, ToolResult, ToolRun, Turn
    from vllmchat.tools.run import arun_tools, run_tools
    from vllmchat.tools.stream import AsyncToolRunStream, ToolRunStream, astream_run_tools, stream_run_tools
    from vllmchat.version import VERSION as __version__  # noqa: N811 - the usual name
    from vllmchat.wire.usage import Usage

_HOMES = {
    "vllmchat.audio.params": (
        "StreamTranscribeParams",
        "StreamTranslateParams",
        "TranscribeParams",
        "TranslateParams",
    ),
    "vllmchat.audio.stream": (
        "AsyncTranscriptionStream",
        "TranscriptionStream",
    ),
    "vllmchat.audio.transcription": (
        "Transcription",
        "TranscriptionChunk",
        "TranscriptionSegment",
    ),
    "vllmchat.chat.chunk": (
        "ChatCompletionChunk",
        "ChunkChoice",
        "Delta",
        "DeltaToolCall",
    ),
    "vllmchat.chat.completion": (
        "ChatCompletion",
        "ChatMessage",
        "Choice",
        "ToolCall",
    ),
    "vllmchat.chat.events": (
        "Event",
        "Finished",
        "ReasoningDelta",
        "TextDelta",
        "ToolCallDelta",
        "ToolCallDone",
        "ToolCallStart",
    ),
    "vllmchat.chat.messages": (
        "Message",
        "Messages",
        "audio_part",
        "image_part",
        "text_part",
        "tool_message",
        "video_part",
    ),
    "vllmchat.chat.params": (
        "ChatParams",
        "CommonChatParams",
        "VLLMChatParams",
    ),
    "vllmchat.chat.protocols": (
        "AsyncProvider",
        "Provider",
        "SyncProvider",
    ),
    "vllmchat.chat.stream": (
        "AsyncChatStream",
        "ChatStream",
    ),
    "vllmchat.client.discovery": (
        "Model",
        "ModelList",
    ),
    "vllmchat.completions.completion": (
        "TextCompletion",
        "TextCompletionChunk",
    ),
    "vllmchat.completions.params": (
        "CompletionParams",
        "VLLMCompletionParams",
    ),
    "vllmchat.completions.stream": (
        "AsyncTextStream",
        "TextStream",
    ),
    "vllmchat.errors": (
        "APIConnectionError",
        "APIStatusError",
        "APITimeoutError",
        "AuthenticationError",
        "BadRequestError",
        "ConflictError",
        "ContextWindowExceededError",
        "InternalServerError",
        "InvalidRequestError",
        "MaxTurnsError",
        "NotFoundError",
        "PermissionDeniedError",
        "Problem",
        "RateLimitError",
        "ResponseError",
        "ServiceUnavailableError",
        "StreamError",
        "StreamInterruptedError",
        "StructuredOutputError",
        "UnprocessableEntityError",
        "VLLMChatError",
    ),
    "vllmchat.generate.generation": (
        "Generation",
        "GenerationChunk",
    ),
    "vllmchat.generate.params": ("GenerateParams",),
    "vllmchat.generate.rendered": ("RenderedPrompt",),
    "vllmchat.generate.stream": (
        "AsyncGenerationStream",
        "GenerationStream",
    ),
    "vllmchat.http.timeout": ("Timeout",),
    "vllmchat.pooling.embeddings": (
        "Embedding",
        "Embeddings",
    ),
    "vllmchat.pooling.outputs": (
        "Classification",
        "Classifications",
        "PoolingOutput",
        "PoolingOutputs",
    ),
    "vllmchat.pooling.params": (
        "ClassifyParams",
        "EmbedParams",
        "PoolParams",
        "RerankParams",
        "ScoreParams",
    ),
    "vllmchat.pooling.scores": (
        "Ranked",
        "Ranking",
        "Score",
        "Scores",
    ),
    "vllmchat.pooling.vector": ("Vector",),
    "vllmchat.providers.openai": ("OpenAIProvider",),
    "vllmchat.providers.vllm": ("VLLMProvider",),
    "vllmchat.responses.events": (
        "ResponseArgumentsDelta",
        "ResponseEvent",
        "ResponseItemEvent",
        "ResponsePartEvent",
        "ResponseReasoningDelta",
        "ResponseStateEvent",
        "ResponseTextDelta",
    ),
    "vllmchat.responses.params": ("ResponseParams",),
    "vllmchat.responses.response": (
        "ModelResponse",
        "ResponseItem",
    ),
    "vllmchat.responses.stream": (
        "AsyncResponseStream",
        "ResponseStream",
    ),
    "vllmchat.schemas.functions": ("Tool",),
    "vllmchat.schemas.tool_params": ("FunctionTool",),
    "vllmchat.server.metrics": (
        "MetricFamily",
        "MetricHistogram",
        "MetricSample",
        "Metrics",
    ),
    "vllmchat.structured.output_type": ("Parsed",),
    "vllmchat.structured.stream": (
        "AsyncParseStream",
        "ParseStream",
        "PartialValue",
    ),
    "vllmchat.tokens.tokenize": (
        "CountTokensParams",
        "DetokenizeParams",
        "Tokenization",
        "TokenizeParams",
    ),
    "vllmchat.tools.flow": (
        "OnToolError",
        "RunEvent",
        "ToolResult",
        "ToolRun",
        "Turn",
    ),
    "vllmchat.tools.run": (
        "arun_tools",
        "run_tools",
    ),
    "vllmchat.tools.stream": (
        "AsyncToolRunStream",
        "ToolRunStream",
        "astream_run_tools",
        "stream_run_tools",
    ),
    "vllmchat.wire.usage": ("Usage",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
    "AsyncChatStream",
    "AsyncGenerationStream",
    "AsyncParseStream",
    "AsyncProvider",
    "AsyncResponseStream",
    "AsyncTextStream",
    "AsyncToolRunStream",
    "AsyncTranscriptionStream",
    "AuthenticationError",
    "BadRequestError",
    "ChatCompletion",
    "ChatCompletionChunk",
    "ChatMessage",
    "ChatParams",
    "ChatStream",
    "Choice",
    "ChunkChoice",
    "Classification",
    "Classifications",
    "ClassifyParams",
    "CommonChatParams",
    "CompletionParams",
    "ConflictError",
    "ContextWindowExceededError",
    "CountTokensParams",
    "Delta",
    "DeltaToolCall",
    "DetokenizeParams",
    "EmbedParams",
    "Embedding",
    "Embeddings",
    "Event",
    "Finished",
    "FunctionTool",
    "GenerateParams",
    "Generation",
    "GenerationChunk",
    "GenerationStream",
    "InternalServerError",
    "InvalidRequestError",
    "MaxTurnsError",
    "Message",
    "Messages",
    "MetricFamily",
    "MetricHistogram",
    "MetricSample",
    "Metrics",
    "Model",
    "ModelList",
    "ModelResponse",
    "NotFoundError",
    "OnToolError",
    "OpenAIProvider",
    "ParseStream",
    "Parsed",
    "PartialValue",
    "PermissionDeniedError",
    "PoolParams",
    "PoolingOutput",
    "PoolingOutputs",
    "Problem",
    "Provider",
    "Ranked",
    "Ranking",
    "RateLimitError",
    "ReasoningDelta",
    "RenderedPrompt",
    "RerankParams",
    "ResponseArgumentsDelta",
    "ResponseError",
    "ResponseEvent",
    "ResponseItem",
    "ResponseItemEvent",
    "ResponseParams",
    "ResponsePartEvent",
    "ResponseReasoningDelta",
    "ResponseStateEvent",
    "ResponseStream",
    "ResponseTextDelta",
    "RunEvent",
    "Score",
    "ScoreParams",
    "Scores",
    "ServiceUnavailableError",
    "StreamError",
    "StreamInterruptedError",
    "StreamTranscribeParams",
    "StreamTranslateParams",
    "StructuredOutputError",
    "SyncProvider",
    "TextCompletion",
    "TextCompletionChunk",
    "TextDelta",
    "TextStream",
    "Timeout",
    "Tokenization",
    "TokenizeParams",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolCallDone",
    "ToolCallStart",
    "ToolResult",
    "ToolRun",
    "ToolRunStream",
    "TranscribeParams",
    "Transcription",
    "TranscriptionChunk",
    "TranscriptionSegment",
    "TranscriptionStream",
    "TranslateParams",
    "Turn",
    "UnprocessableEntityError",
    "Usage",
    "VLLMChatError",
    "VLLMChatParams",
    "VLLMCompletionParams",
    "VLLMProvider",
    "Vector",
    "__version__",
    "arun_tools",
    "astream_run_tools",
    "audio_part",
    "image_part",
    "run_tools",
    "stream_run_tools",
    "text_part",
    "tool_message",
    "video_part",
]


if not TYPE_CHECKING:
    # Type checkers read the imports above; seeing this, they would take any name for one of ours.

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from vllmchat.version import VERSION

            return VERSION
        home = _HOME_OF.get(name)
        if home is None:
            raise AttributeError(f"module 'vllmchat' has no attribute {name!r}")
        value: object = getattr(import_module(home), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
