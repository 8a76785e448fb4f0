"""The typed Python client for vLLM.

`VLLMProvider` talks to a vLLM server, `OpenAIProvider` to any OpenAI-compatible one. Names are imported when they are
first used, so `import vllmchat` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __all__: list[str]

    from vllmchat.audio.params import (
        OpenAITranscribeParams as OpenAITranscribeParams,
        OpenAITranslateParams as OpenAITranslateParams,
        StreamTranscribeParams as StreamTranscribeParams,
        StreamTranslateParams as StreamTranslateParams,
        TranscribeParams as TranscribeParams,
        TranslateParams as TranslateParams,
    )
    from vllmchat.audio.stream import (
        AsyncTranscriptionStream as AsyncTranscriptionStream,
        TranscriptionStream as TranscriptionStream,
    )
    from vllmchat.audio.transcription import (
        Transcription as Transcription,
        TranscriptionChunk as TranscriptionChunk,
        TranscriptionSegment as TranscriptionSegment,
    )
    from vllmchat.chat.chunk import (
        ChatCompletionChunk as ChatCompletionChunk,
        ChunkChoice as ChunkChoice,
        Delta as Delta,
        DeltaToolCall as DeltaToolCall,
    )
    from vllmchat.chat.completion import (
        ChatCompletion as ChatCompletion,
        ChatMessage as ChatMessage,
        Choice as Choice,
        ToolCall as ToolCall,
    )
    from vllmchat.chat.events import (
        Event as Event,
        Finished as Finished,
        ReasoningDelta as ReasoningDelta,
        TextDelta as TextDelta,
        ToolCallDelta as ToolCallDelta,
        ToolCallDone as ToolCallDone,
        ToolCallStart as ToolCallStart,
    )
    from vllmchat.chat.messages import (
        History as History,
        Message as Message,
        Messages as Messages,
        audio_part as audio_part,
        custom_message as custom_message,
        image_part as image_part,
        text_part as text_part,
        tool_message as tool_message,
        user_message as user_message,
        video_part as video_part,
    )
    from vllmchat.chat.params import (
        ChatParams as ChatParams,
        CommonChatParams as CommonChatParams,
        DefaultParams as DefaultParams,
        VLLMChatParams as VLLMChatParams,
        VLLMDefaultParams as VLLMDefaultParams,
    )
    from vllmchat.chat.protocols import (
        AsyncProvider as AsyncProvider,
        Provider as Provider,
        SyncProvider as SyncProvider,
    )
    from vllmchat.chat.stream import (
        AsyncChatStream as AsyncChatStream,
        ChatStream as ChatStream,
    )
    from vllmchat.client.discovery import (
        Model as Model,
        ModelList as ModelList,
    )
    from vllmchat.client.hooks import (
        OnRequest as OnRequest,
        OnResponse as OnResponse,
        OnRetry as OnRetry,
        RequestInfo as RequestInfo,
        ResponseInfo as ResponseInfo,
        RetryInfo as RetryInfo,
    )
    from vllmchat.completions.completion import (
        TextCompletion as TextCompletion,
        TextCompletionChunk as TextCompletionChunk,
    )
    from vllmchat.completions.params import (
        CompletionParams as CompletionParams,
        VLLMCompletionParams as VLLMCompletionParams,
    )
    from vllmchat.completions.stream import (
        AsyncTextStream as AsyncTextStream,
        TextStream as TextStream,
    )
    from vllmchat.decisions.decision import (
        ChoiceAnswer as ChoiceAnswer,
        Decision as Decision,
        DecisionAnswer as DecisionAnswer,
        PredicateAnswer as PredicateAnswer,
        ScoreAnswer as ScoreAnswer,
    )
    from vllmchat.decisions.params import (
        DecideParams as DecideParams,
        DecisionQuestion as DecisionQuestion,
    )
    from vllmchat.errors import (
        APIConnectionError as APIConnectionError,
        APIStatusError as APIStatusError,
        APITimeoutError as APITimeoutError,
        AuthenticationError as AuthenticationError,
        BadRequestError as BadRequestError,
        ConflictError as ConflictError,
        ContextWindowExceededError as ContextWindowExceededError,
        InternalServerError as InternalServerError,
        InvalidRequestError as InvalidRequestError,
        JobStoppedError as JobStoppedError,
        MaxTurnsError as MaxTurnsError,
        NotFoundError as NotFoundError,
        PermissionDeniedError as PermissionDeniedError,
        Problem as Problem,
        RateLimitError as RateLimitError,
        RecordedError as RecordedError,
        ResponseError as ResponseError,
        ServiceUnavailableError as ServiceUnavailableError,
        StreamError as StreamError,
        StreamInterruptedError as StreamInterruptedError,
        StructuredOutputError as StructuredOutputError,
        UnprocessableEntityError as UnprocessableEntityError,
        VLLMChatError as VLLMChatError,
    )
    from vllmchat.generate.generation import (
        Generation as Generation,
        GenerationChunk as GenerationChunk,
    )
    from vllmchat.generate.params import GenerateParams as GenerateParams
    from vllmchat.generate.rendered import RenderedPrompt as RenderedPrompt
    from vllmchat.generate.stream import (
        AsyncGenerationStream as AsyncGenerationStream,
        GenerationStream as GenerationStream,
    )
    from vllmchat.http.record import Timings as Timings
    from vllmchat.http.timeout import Timeout as Timeout
    from vllmchat.jobs.files import (
        JobSummary as JobSummary,
        run_job as run_job,
    )
    from vllmchat.jobs.map import (
        AsyncMapResults as AsyncMapResults,
        MapResults as MapResults,
        amap_chat as amap_chat,
        map_chat as map_chat,
    )
    from vllmchat.jobs.reading import read_results as read_results
    from vllmchat.jobs.result import (
        JobProgress as JobProgress,
        Result as Result,
    )
    from vllmchat.pooling.embeddings import (
        Embedding as Embedding,
        Embeddings as Embeddings,
    )
    from vllmchat.pooling.outputs import (
        Classification as Classification,
        Classifications as Classifications,
        PoolingOutput as PoolingOutput,
        PoolingOutputs as PoolingOutputs,
    )
    from vllmchat.pooling.params import (
        ClassifyParams as ClassifyParams,
        EmbedParams as EmbedParams,
        EmbedTokensParams as EmbedTokensParams,
        OpenAIEmbedParams as OpenAIEmbedParams,
        PoolParams as PoolParams,
        RerankParams as RerankParams,
        ScoreParams as ScoreParams,
    )
    from vllmchat.pooling.scores import (
        Ranked as Ranked,
        Ranking as Ranking,
        Score as Score,
        Scores as Scores,
    )
    from vllmchat.pooling.token_embeddings import (
        TokenEmbedding as TokenEmbedding,
        TokenEmbeddings as TokenEmbeddings,
    )
    from vllmchat.pooling.vector import Vector as Vector
    from vllmchat.providers.openai import OpenAIProvider as OpenAIProvider
    from vllmchat.providers.vllm import VLLMProvider as VLLMProvider
    from vllmchat.responses.events import (
        ResponseArgumentsDelta as ResponseArgumentsDelta,
        ResponseEvent as ResponseEvent,
        ResponseItemEvent as ResponseItemEvent,
        ResponsePartEvent as ResponsePartEvent,
        ResponseReasoningDelta as ResponseReasoningDelta,
        ResponseStateEvent as ResponseStateEvent,
        ResponseTextDelta as ResponseTextDelta,
    )
    from vllmchat.responses.params import (
        OpenAIResponseParams as OpenAIResponseParams,
        ResponseParams as ResponseParams,
    )
    from vllmchat.responses.response import (
        ModelResponse as ModelResponse,
        ResponseItem as ResponseItem,
    )
    from vllmchat.responses.stream import (
        AsyncResponseStream as AsyncResponseStream,
        ResponseStream as ResponseStream,
    )
    from vllmchat.schemas.functions import Tool as Tool
    from vllmchat.schemas.tool_params import FunctionTool as FunctionTool
    from vllmchat.server.metrics import (
        MetricFamily as MetricFamily,
        MetricHistogram as MetricHistogram,
        Metrics as Metrics,
        MetricSample as MetricSample,
    )
    from vllmchat.structured.output_type import Parsed as Parsed
    from vllmchat.structured.stream import (
        AsyncParseStream as AsyncParseStream,
        ParseStream as ParseStream,
        PartialValue as PartialValue,
    )
    from vllmchat.tokens.tokenize import (
        CountTokensParams as CountTokensParams,
        DetokenizeParams as DetokenizeParams,
        Tokenization as Tokenization,
        TokenizeParams as TokenizeParams,
    )
    from vllmchat.tools.flow import (
        OnToolError as OnToolError,
        RunEvent as RunEvent,
        ToolResult as ToolResult,
        ToolRun as ToolRun,
        Turn as Turn,
    )
    from vllmchat.tools.run import (
        arun_tools as arun_tools,
        run_tools as run_tools,
    )
    from vllmchat.tools.stream import (
        AsyncToolRunStream as AsyncToolRunStream,
        ToolRunStream as ToolRunStream,
        astream_run_tools as astream_run_tools,
        stream_run_tools as stream_run_tools,
    )
    from vllmchat.version import __version__ as __version__
    from vllmchat.wire.usage import Usage as Usage
else:
    # The same names for run time, which must not execute the imports above. Type checkers must not see
    # `__getattr__`: they would accept any name.
    _HOMES = {
        "audio.params": (
            "OpenAITranscribeParams OpenAITranslateParams StreamTranscribeParams StreamTranslateParams "
            "TranscribeParams TranslateParams"
        ),
        "audio.stream": "AsyncTranscriptionStream TranscriptionStream",
        "audio.transcription": "Transcription TranscriptionChunk TranscriptionSegment",
        "chat.chunk": "ChatCompletionChunk ChunkChoice Delta DeltaToolCall",
        "chat.completion": "ChatCompletion ChatMessage Choice ToolCall",
        "chat.events": "Event Finished ReasoningDelta TextDelta ToolCallDelta ToolCallDone ToolCallStart",
        "chat.messages": (
            "History Message Messages audio_part custom_message image_part text_part tool_message user_message "
            "video_part"
        ),
        "chat.params": "ChatParams CommonChatParams DefaultParams VLLMChatParams VLLMDefaultParams",
        "chat.protocols": "AsyncProvider Provider SyncProvider",
        "chat.stream": "AsyncChatStream ChatStream",
        "client.discovery": "Model ModelList",
        "client.hooks": "OnRequest OnResponse OnRetry RequestInfo ResponseInfo RetryInfo",
        "completions.completion": "TextCompletion TextCompletionChunk",
        "completions.params": "CompletionParams VLLMCompletionParams",
        "completions.stream": "AsyncTextStream TextStream",
        "decisions.decision": "ChoiceAnswer Decision DecisionAnswer PredicateAnswer ScoreAnswer",
        "decisions.params": "DecideParams DecisionQuestion",
        "errors": (
            "APIConnectionError APIStatusError APITimeoutError AuthenticationError BadRequestError ConflictError "
            "ContextWindowExceededError InternalServerError InvalidRequestError JobStoppedError "
            "MaxTurnsError NotFoundError RecordedError "
            "PermissionDeniedError Problem RateLimitError ResponseError ServiceUnavailableError StreamError "
            "StreamInterruptedError StructuredOutputError UnprocessableEntityError VLLMChatError"
        ),
        "generate.generation": "Generation GenerationChunk",
        "generate.params": "GenerateParams",
        "generate.rendered": "RenderedPrompt",
        "generate.stream": "AsyncGenerationStream GenerationStream",
        "http.record": "Timings",
        "http.timeout": "Timeout",
        "jobs.files": "JobSummary run_job",
        "jobs.map": "AsyncMapResults MapResults amap_chat map_chat",
        "jobs.reading": "read_results",
        "jobs.result": "JobProgress Result",
        "pooling.embeddings": "Embedding Embeddings",
        "pooling.outputs": "Classification Classifications PoolingOutput PoolingOutputs",
        "pooling.params": (
            "ClassifyParams EmbedParams EmbedTokensParams OpenAIEmbedParams PoolParams RerankParams "
            "ScoreParams"
        ),
        "pooling.scores": "Ranked Ranking Score Scores",
        "pooling.token_embeddings": "TokenEmbedding TokenEmbeddings",
        "pooling.vector": "Vector",
        "providers.openai": "OpenAIProvider",
        "providers.vllm": "VLLMProvider",
        "responses.events": (
            "ResponseArgumentsDelta ResponseEvent ResponseItemEvent ResponsePartEvent ResponseReasoningDelta "
            "ResponseStateEvent ResponseTextDelta"
        ),
        "responses.params": "OpenAIResponseParams ResponseParams",
        "responses.response": "ModelResponse ResponseItem",
        "responses.stream": "AsyncResponseStream ResponseStream",
        "schemas.functions": "Tool",
        "schemas.tool_params": "FunctionTool",
        "server.metrics": "MetricFamily MetricHistogram MetricSample Metrics",
        "structured.output_type": "Parsed",
        "structured.stream": "AsyncParseStream ParseStream PartialValue",
        "tokens.tokenize": "CountTokensParams DetokenizeParams Tokenization TokenizeParams",
        "tools.flow": "OnToolError RunEvent ToolResult ToolRun Turn",
        "tools.run": "arun_tools run_tools",
        "tools.stream": "AsyncToolRunStream ToolRunStream astream_run_tools stream_run_tools",
        "version": "__version__",
        "wire.usage": "Usage",
    }
    _HOME_OF = {name: f"vllmchat.{home}" for home, names in _HOMES.items() for name in names.split()}
    __all__ = sorted(_HOME_OF)

    def __getattr__(name: str) -> object:
        home = _HOME_OF.get(name)
        if home is None:
            raise AttributeError(f"module 'vllmchat' has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(home), name)
        return value

    def __dir__() -> list[str]:
        return __all__
