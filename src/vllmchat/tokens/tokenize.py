"""Converting text and conversations to tokens, and tokens to text: `/tokenize` and `/detokenize`."""

# No `from __future__ import annotations`: pydantic would have to evaluate every annotation again.

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Final, TypeAlias, TypeVar, cast

from pydantic import Field
from typing_extensions import TypedDict

from vllmchat.chat.completion import ChatMessage
from vllmchat.chat.messages import Message, Messages
from vllmchat.chat.templating import (
    TEMPLATE_RULES,
    TemplatingBase,
    check_conversation,
    convert_tools,
    fold_template,
)
from vllmchat.checking.call_params import CallBase
from vllmchat.checking.rules import Default, Length, Needs, Since
from vllmchat.checking.validator import CheckedParams, Validator, check_request, check_tokens
from vllmchat.client.discovery import OUTSIDE_V1
from vllmchat.client.request import ModelRequest
from vllmchat.http.call import Response
from vllmchat.sampling.params import ReasoningEffort
from vllmchat.schemas.tool_params import FunctionTool
from vllmchat.versions import EFFORT_IN_TEMPLATE, EFFORT_THINKS, Version
from vllmchat.wire.decode import (
    Answer,
    LenientInt,
    LenientList,
    WireModel,
    decode,
    read_answer,
    unexpected_body,
)

T = TypeVar("T")

Tokenizable: TypeAlias = str | Sequence[Message | ChatMessage]
"""A string, or a conversation, which is rendered with the model's chat template."""


class SpecialTokensBase(TypedDict, total=False):
    """The tokenizer's special tokens. A base class."""

    add_special_tokens: Annotated[bool | None, Default("True for a text, False for a conversation")]
    """Add the tokenizer's special tokens, such as the beginning-of-sequence token.

    Chat templates usually add them already.

    Default: True for a text, False for a conversation.
    """


class TokenTextsBase(TypedDict, total=False):
    """What to return. A base class."""

    return_token_strs: Annotated[bool | None, Default("False"), Since("0.9.1")]
    """Also return each token as the tokenizer writes it: `token_strs`.

    Default: False. Since: vLLM 0.9.1.
    """


class ConversationBase(TemplatingBase, total=False):
    """Parameters that only apply to conversations. A base class."""

    tools: Annotated[Sequence[FunctionTool | Callable[..., object]] | None, Length(1), Since("0.9")]
    """The functions that the prompt describes to the model, as in `chat`. Only for conversations.

    Range: not empty. Since: vLLM 0.9.
    """
    add_generation_prompt: Annotated[bool | None, Default("True")]
    """End the prompt with the start of an assistant message, as in `chat`. Only for conversations.

    Default: True.
    """
    continue_final_message: Annotated[bool | None, Default("False")]
    """Leave the last message open, to be continued. Only for conversations.

    Default: False.
    """
    mm_processor_kwargs: Annotated[
        Mapping[str, object] | None, Needs("--trust-request-mm-kwargs (0.31 or newer)")
    ]
    """Arguments for the model's image, audio and video processor. Only for conversations.

    Needs: --trust-request-mm-kwargs (0.31 or newer).
    """


class TokenizeParams(TokenTextsBase, SpecialTokensBase, ConversationBase, CallBase, total=False, closed=True):
    """What `VLLMProvider.tokenize` accepts."""


class CountedBase(TypedDict, total=False):
    """Chat parameters that the template reads, but `/tokenize` does not have. A base class."""

    reasoning_effort: Annotated[ReasoningEffort | None, Since("0.10.1")]
    """How much to reason, as in `chat`.

    Sent as `chat_template_kwargs`, since vLLM 0.22 with the `enable_thinking` that it implies, as chats do.

    Since: vLLM 0.10.1.
    """
    documents: Sequence[Mapping[str, str]] | None
    """Documents for templates that support retrieval, as in `chat`. Sent as `chat_template_kwargs`."""


class CountTokensParams(SpecialTokensBase, CountedBase, ConversationBase, CallBase, total=False, closed=True):
    """What `VLLMProvider.count_tokens` accepts."""


class DetokenizeParams(CallBase, total=False, closed=True):
    """What `VLLMProvider.detokenize` accepts."""


class _TextParams(TokenTextsBase, SpecialTokensBase, CallBase, total=False, closed=True):
    """What `tokenize` accepts for a string."""


class Tokenization(Answer):
    """A text or a prompt as tokens."""

    count: LenientInt = 0
    """The number of tokens."""

    max_model_len: int | None = None
    """The model's context length, for prompt and reply together, in tokens."""

    tokens: LenientList[int] = Field(default_factory=list[int])
    """The token ids."""

    token_strs: list[str] | None = None
    """Each token as the tokenizer writes it, with `return_token_strs=True`: `Ġworld` is ` world`. Since vLLM 0.9.1."""


class _Text(WireModel):
    prompt: str


_FOR_CONVERSATIONS: Final[tuple[str, str]] = (
    "only applies to conversations; this is a string.",
    'For a conversation, write [{{"role": "user", "content": ...}}].',
)

_TEXT: Final = Validator(
    "VLLMProvider.tokenize",
    _TextParams,
    own=dict.fromkeys(ConversationBase.__optional_keys__, _FOR_CONVERSATIONS),
)
_CONVERSATION: Final = Validator(
    "VLLMProvider.tokenize",
    TokenizeParams,
    TEMPLATE_RULES,
    finish=fold_template,
    convert={"tools": convert_tools},
)


def _fold_counted(fields: dict[str, object]) -> None:
    """Sets the template variables that a chat would set."""
    fold_template(fields)
    implied: dict[str, object] = {}
    effort = fields.pop("reasoning_effort", None)
    if effort is not None:
        implied = {"reasoning_effort": effort, "enable_thinking": effort != "none"}
    if "documents" in fields:
        implied["documents"] = fields.pop("documents")
    if implied:
        variables = cast("Mapping[str, object]", fields.get("chat_template_kwargs", {}))
        fields["chat_template_kwargs"] = {**implied, **variables}


_COUNT: Final = Validator(
    "VLLMProvider.count_tokens",
    CountTokensParams,
    TEMPLATE_RULES,
    finish=_fold_counted,
    convert={"tools": convert_tools},
)
_DETOKENIZE: Final = Validator("VLLMProvider.detokenize", DetokenizeParams)


def tokenize_request(prompt: Tokenizable, params: TokenizeParams) -> ModelRequest[Tokenization]:
    """Returns the request to tokenize a string or a conversation.

    Raises:
        InvalidRequestError: With every problem found.
    """
    if isinstance(cast("object", prompt), str):
        return _tokenize({"prompt": prompt}, check_request((), _TEXT.check, params), _read_tokens)
    messages, found = check_conversation(prompt, "prompt")
    return _tokenize({"messages": messages}, check_request(found, _CONVERSATION.check, params), _read_tokens)


def count_request(messages: Messages, params: CountTokensParams) -> ModelRequest[int]:
    """Returns the request to count the tokens of a conversation's prompt.

    Raises:
        InvalidRequestError: With every problem found.
    """
    encoded, found = check_conversation(messages, "messages")
    request = _tokenize({"messages": encoded}, check_request(found, _COUNT.check, params), _read_count)
    if params.get("reasoning_effort") is None:
        return request
    # Older versions set fewer template variables for it.
    variables = {**(params.get("chat_template_kwargs") or {})}
    if (thinks := params.get("enable_thinking")) is not None:
        variables["enable_thinking"] = thinks
    older: list[tuple[Version, CheckedParams]] = []
    for since, implied in (
        (EFFORT_IN_TEMPLATE, ("enable_thinking", "reasoning_effort")),
        (EFFORT_THINKS, ("enable_thinking",)),
    ):
        fields = dict(request.params.fields)
        kwargs = cast("Mapping[str, object]", fields["chat_template_kwargs"])
        fields["chat_template_kwargs"] = {
            name: value for name, value in kwargs.items() if name in variables or name not in implied
        }
        older.append((since, request.params.with_fields(fields)))
    request.older = older
    return request


def detokenize_request(tokens: Sequence[int], params: DetokenizeParams) -> ModelRequest[str]:
    """Returns the request to convert tokens to text.

    Raises:
        InvalidRequestError: With every problem found.
    """
    checked = check_request(check_tokens(tokens, "tokens"), _DETOKENIZE.check, params)
    return ModelRequest(
        "/detokenize", {"tokens": tokens}, checked, _read_text, outside_v1=True, route_hint=OUTSIDE_V1
    )


def _tokenize(
    subject: Mapping[str, object], params: CheckedParams, read: Callable[[Response], T]
) -> ModelRequest[T]:
    return ModelRequest("/tokenize", subject, params, read, outside_v1=True, route_hint=OUTSIDE_V1)


_WHAT: Final = "a list of tokens"


def _read_tokens(reply: Response) -> Tokenization:
    answer = read_answer(Tokenization, reply, _WHAT, required_key="tokens")
    if "count" not in answer.model_fields_set:  # other servers return no tokens to our request
        raise unexpected_body(_WHAT, reply.body, "it has no count")
    return answer


def _read_count(reply: Response) -> int:
    return read_answer(Tokenization, reply, _WHAT, required_key="count").count


def _read_text(reply: Response) -> str:
    return decode(_Text, reply.body, "a text").prompt
