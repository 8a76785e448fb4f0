"""The request for a chat."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final

from vllmchat.chat.templating import check_conversation
from vllmchat.checking.validator import check_request
from vllmchat.client.request import JSONRequest, depends_on_version, suit
from vllmchat.lazy import lazy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vllmchat.chat.completion import ChatCompletion, decode_completion
    from vllmchat.chat.limits import CallLimits, limits_of
    from vllmchat.chat.messages import Messages
    from vllmchat.checking.validator import CheckedParams, Validator
    from vllmchat.errors import Problem
    from vllmchat.http.call import Call, Response
    from vllmchat.http.timeout import Timeout
    from vllmchat.versions import Version
else:
    decode_completion = lazy("vllmchat.chat.completion", "decode_completion")
    limits_of = lazy("vllmchat.chat.limits", "limits_of")

NEEDS: Final = (
    "Check base_url, and that the server has a generating model: one started with --runner pooling does not."
)
"""Hint for a server without this route."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A validated request for a chat; the model and timeout are filled in later.

    Attributes:
        messages: The conversation in wire format.
        params: The validated parameters.
        stream: Whether the reply is streamed.
        ask_usage: Whether to request the usage of a stream, unless the parameters set that.
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
        validator: Validator,
        params: Mapping[str, object],
        *,
        stream: bool,
        ask_usage: bool,
        found: Sequence[Problem] = (),
    ) -> ChatRequest:
        """Validates the list of messages and the parameters.

        Args:
            messages: The conversation so far; a string is one user message.
            validator: Validates the parameters.
            params: The keyword arguments of the call.
            stream: See the class.
            ask_usage: See the class.
            found: Problems of the call found so far.

        Raises:
            InvalidRequestError: With every problem found.
        """
        encoded, wrong = check_conversation(messages, "messages")
        checked = check_request([*wrong, *found], validator.check, params, stream=stream)
        return cls(encoded, checked, stream, ask_usage)

    @property
    def limits(self) -> CallLimits:
        """What the request says about tool calls in its reply."""
        return limits_of(self.params)

    @property
    def needs_version(self) -> bool:
        """Whether some server versions need the request in another form, or reject it."""
        return depends_on_version(self.params)

    def for_version(self, version: Version) -> ChatRequest:
        """Returns the request in the form for a server version.

        Raises:
            InvalidRequestError: The server is too old for it.
        """
        return replace(self, params=suit(self.params, version))

    def call(self, model: str, timeout: Timeout) -> Call[ChatCompletion]:
        """Returns the call to send.

        Args:
            model: Name of the model.
            timeout: The provider's timeout; the request's own takes precedence.

        Raises:
            InvalidRequestError: Something in the request is not JSON-serializable.
        """
        subject = {"messages": self.messages}
        read = partial(_read, request=self)
        post = JSONRequest(
            "/chat/completions", subject, self.params, read, self.stream, self.ask_usage, route_hint=NEEDS
        )
        return post.call(model, timeout)


def _read(reply: Response, request: ChatRequest) -> ChatCompletion:
    completion = decode_completion(reply.body, request_id=reply.head.request_id)
    if any(choice.message.tool_calls for choice in completion.choices):
        request.limits.mark(completion)
    return completion
