"""The types that stand in others: in parameters, messages, replies and events.

What a program names often is in `vllmchat` itself. Importing this module imports pydantic.
"""

from vllmchat.audio.transcription import (
    AudioUsage as AudioUsage,
    TranscriptionChoice as TranscriptionChoice,
    TranscriptionDelta as TranscriptionDelta,
    TranscriptionWord as TranscriptionWord,
)
from vllmchat.chat.chunk import DeltaFunction as DeltaFunction
from vllmchat.chat.completion import (
    ChoiceLogprobs as ChoiceLogprobs,
    FunctionCall as FunctionCall,
)
from vllmchat.chat.content import (
    AudioData as AudioData,
    AudioEmbedsPart as AudioEmbedsPart,
    AudioPart as AudioPart,
    AudioURLPart as AudioURLPart,
    ContentPart as ContentPart,
    FileData as FileData,
    FilePart as FilePart,
    ImageDetail as ImageDetail,
    ImageEmbedsPart as ImageEmbedsPart,
    ImagePart as ImagePart,
    ImageSource as ImageSource,
    ImageURL as ImageURL,
    InputAudioPart as InputAudioPart,
    InputImagePart as InputImagePart,
    InputTextPart as InputTextPart,
    MediaURL as MediaURL,
    OutputTextPart as OutputTextPart,
    PillowImage as PillowImage,
    PromptEmbedsPart as PromptEmbedsPart,
    RefusalPart as RefusalPart,
    Source as Source,
    TextPart as TextPart,
    ThinkingPart as ThinkingPart,
    ToolReferencePart as ToolReferencePart,
    VideoEmbedsPart as VideoEmbedsPart,
    VideoPart as VideoPart,
)
from vllmchat.chat.messages import (
    AssistantCustomToolCall as AssistantCustomToolCall,
    AssistantMessage as AssistantMessage,
    AssistantToolCall as AssistantToolCall,
    AudioReference as AudioReference,
    CalledFunction as CalledFunction,
    CustomInput as CustomInput,
    DeveloperMessage as DeveloperMessage,
    FunctionMessage as FunctionMessage,
    SystemMessage as SystemMessage,
    ToolMessage as ToolMessage,
    UserMessage as UserMessage,
)
from vllmchat.chat.params import (
    ApproximateLocation as ApproximateLocation,
    AudioOutput as AudioOutput,
    CustomVoice as CustomVoice,
    Moderation as Moderation,
    ModerationMode as ModerationMode,
    ModerationPolicy as ModerationPolicy,
    Prediction as Prediction,
    PromptCacheOptions as PromptCacheOptions,
    ServiceTier as ServiceTier,
    TextPiece as TextPiece,
    UserLocation as UserLocation,
    WebSearchOptions as WebSearchOptions,
)
from vllmchat.chat.protocols import (
    AsyncChunks as AsyncChunks,
    SyncChunks as SyncChunks,
)
from vllmchat.completions.completion import (
    TextChoice as TextChoice,
    TextChunkChoice as TextChunkChoice,
    TextLogprobs as TextLogprobs,
)
from vllmchat.decisions.decision import (
    ChoiceProbability as ChoiceProbability,
    LevelProbability as LevelProbability,
)
from vllmchat.decisions.params import (
    ChoiceOption as ChoiceOption,
    ChoiceQuestion as ChoiceQuestion,
    DecisionInput as DecisionInput,
    DecisionMessage as DecisionMessage,
    DecisionTextPart as DecisionTextPart,
    PredicateQuestion as PredicateQuestion,
    ScoreLevel as ScoreLevel,
    ScoreQuestion as ScoreQuestion,
)
from vllmchat.generate.generation import (
    GeneratedToken as GeneratedToken,
    GenerationChoice as GenerationChoice,
    GenerationLogprobs as GenerationLogprobs,
    GenerationTokenLogprob as GenerationTokenLogprob,
)
from vllmchat.pooling.params import (
    LateChunkingParams as LateChunkingParams,
)
from vllmchat.pooling.scores import (
    RankedDocument as RankedDocument,
    Scorable as Scorable,
    ScoreContent as ScoreContent,
)
from vllmchat.pooling.token_embeddings import (
    LateChunk as LateChunk,
    LateChunking as LateChunking,
)
from vllmchat.responses.params import (
    ResponseCodeInterpreter as ResponseCodeInterpreter,
    ResponseCustomTool as ResponseCustomTool,
    ResponseFunctionTool as ResponseFunctionTool,
    ResponseJSONSchemaFormat as ResponseJSONSchemaFormat,
    ResponseMCPTool as ResponseMCPTool,
    ResponseNamedTool as ResponseNamedTool,
    ResponsePromptCacheOptions as ResponsePromptCacheOptions,
    ResponseReasoning as ResponseReasoning,
    ResponseText as ResponseText,
    ResponseTool as ResponseTool,
    ResponseWebSearch as ResponseWebSearch,
)
from vllmchat.responses.response import (
    IncompleteDetails as IncompleteDetails,
    ResponsePart as ResponsePart,
    ResponseStatus as ResponseStatus,
)
from vllmchat.sampling.formats import (
    JSONObjectFormat as JSONObjectFormat,
    JSONSchema as JSONSchema,
    JSONSchemaFormat as JSONSchemaFormat,
    LegacyStructuralTagFormat as LegacyStructuralTagFormat,
    ResponseFormat as ResponseFormat,
    StructuralTagFormat as StructuralTagFormat,
    StructuralTagPassage as StructuralTagPassage,
    StructuredOutputs as StructuredOutputs,
    TextFormat as TextFormat,
)
from vllmchat.sampling.params import (
    ReasoningEffort as ReasoningEffort,
    RepetitionDetection as RepetitionDetection,
    StreamOptions as StreamOptions,
)
from vllmchat.schemas.tool_params import (
    AllowedTools as AllowedTools,
    AllowedToolsChoice as AllowedToolsChoice,
    CustomDefinition as CustomDefinition,
    CustomName as CustomName,
    CustomTool as CustomTool,
    FunctionCallName as FunctionCallName,
    FunctionDefinition as FunctionDefinition,
    FunctionName as FunctionName,
    GrammarInputFormat as GrammarInputFormat,
    InputGrammar as InputGrammar,
    NamedCustomToolChoice as NamedCustomToolChoice,
    NamedToolChoice as NamedToolChoice,
    TextInputFormat as TextInputFormat,
)
from vllmchat.wire.usage import (
    CompletionTokensDetails as CompletionTokensDetails,
    FinishReason as FinishReason,
    InputTokensDetails as InputTokensDetails,
    OutputTokensDetails as OutputTokensDetails,
    PromptLogprob as PromptLogprob,
    PromptTokensDetails as PromptTokensDetails,
    RequestMetrics as RequestMetrics,
    ResponseUsage as ResponseUsage,
    TokenLogprob as TokenLogprob,
    TopLogprob as TopLogprob,
    WeightVersion as WeightVersion,
)
