"""A chat as a call: parameters and messages in, bytes out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final

from vllmchat.chat.templating import judge_conversation
from vllmchat.checking.subject import check_all
from vllmchat.later import later
from vllmchat.post import Post, depends_on_version, suit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vllmchat.chat.completion import ChatCompletion, decode_completion
    from vllmchat.chat.limits import CallLimits, limits_of
    from vllmchat.chat.messages import Messages
    from vllmchat.checking.dialect import CheckedParams, Dialect
    from vllmchat.errors import Problem
    from vllmchat.http.call import Call, Reply
    from vllmchat.http.timeout import Timeout
    from vllmchat.versions import Version
else:
    decode_completion = later("vllmchat.chat.completion", "decode_completion")
    limits_of = later("vllmchat.chat.limits", "limits_of")

NEEDS: Final = (
    "Check base_url, and that the server has a model that generates: "
    "one started with --runner pooling has none."
)
"""What every server that generates has, if only the URL is right."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A chat that has been checked, before it is known which model it goes to.

    Attributes:
        messages: The conversation in the wire's form.
        params: The checked parameters.
        stream: Whether the reply is to be streamed.
        ask_usage: Whether a stream is asked for the usage, unless the parameters say so.
    """

    messages: list[Mapping[str, object]]
    params: CheckedParams
    stream: bool
    ask_usage: bool

    needs_model: ClassVar[bool] = True

    @classmethod
    def make(
        cls,
        messages: Messages,
        dialect: Dialect,
        params: Mapping[str, object],
        *,
        stream: bool,
        ask_usage: bool,
        found: Sequence[Problem] = (),
    ) -> ChatRequest:
        """Checks the messages' container and the parameters.

        Args:
            messages: A text, or the conversation so far.
            dialect: The rules of the parameters.
            params: The keyword arguments of the call.
            stream: As of the class.
            ask_usage: As of the class.
            found: What is wrong with the call already.

        Raises:
            InvalidRequestError: With every problem found.
        """
        encoded, wrong = judge_conversation(messages, "messages")
        checked = check_all([*wrong, *found], dialect.check, params, stream=stream)
        return cls(encoded, checked, stream, ask_usage)

    @property
    def limits(self) -> CallLimits:
        """What it says of the tool calls in its reply."""
        return limits_of(self.params)

    @property
    def needs_version(self) -> bool:
        """Whether it is written differently for some versions of the server, or refused there."""
        return depends_on_version(self.params)

    def for_version(self, version: Version) -> ChatRequest:
        """The request as a server of a version reads it.

        Raises:
            InvalidRequestError: That server is too old for it.
        """
        return replace(self, params=suit(self.params, version))

    def call(self, model: str, timeout: Timeout) -> Call[ChatCompletion]:
        """The call to a model.

        Args:
            model: Its name.
            timeout: The provider's limits; the call's own go before them.

        Raises:
            InvalidRequestError: Something in the request has no JSON form.
        """
        subject = {"messages": self.messages}
        read = partial(_read, request=self)
        post = Post("/chat/completions", subject, self.params, read, self.stream, self.ask_usage, needs=NEEDS)
        return post.call(model, timeout)


def _read(reply: Reply, request: ChatRequest) -> ChatCompletion:
    completion = decode_completion(reply.body, request_id=reply.head.request_id)
    if any(choice.message.tool_calls for choice in completion.choices):
        request.limits.mark(completion)
    return completion
