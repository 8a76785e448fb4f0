"""A chat as a call: parameters and messages in, bytes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

from pydantic_core import to_json

from vllmchat.chat.completion import decode_completion
from vllmchat.chat.messages import encode_messages
from vllmchat.errors import InvalidRequestError, Problem
from vllmchat.http.call import Call
from vllmchat.http.timeout import Timeout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllmchat.chat.check import CheckedParams
    from vllmchat.chat.completion import ChatCompletion
    from vllmchat.chat.messages import Messages
    from vllmchat.http.call import Reply


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
    def make(cls, messages: Messages, params: CheckedParams, *, stream: bool, ask_usage: bool) -> ChatRequest:
        """Checks the messages' container and keeps the rest.

        Raises:
            InvalidRequestError: The messages are no conversation.
        """
        return cls(encode_messages(messages), params, stream, ask_usage)

    @property
    def choices(self) -> int:
        """How many choices are asked for."""
        fields = self.params.fields
        n = fields.get("n", 1)
        if self.params.extra_body is not None:
            n = self.params.extra_body.get("n", n)
        return max(n, 1) if isinstance(n, int) else 1

    def call(self, model: str, timeout: Timeout) -> Call[ChatCompletion]:
        """The call to a model.

        Args:
            model: Its name.
            timeout: The provider's limits; the call's own go before them.

        Raises:
            InvalidRequestError: Something in the request has no JSON form.
        """
        body: dict[str, object] = {"model": model, "messages": self.messages, **self.params.fields}
        if self.stream:
            body["stream"] = True
            if self.ask_usage and "stream_options" not in body:
                # Explicitly, since the default has changed between servers.
                body["stream_options"] = {"include_usage": True}
        if self.params.extra_body is not None:
            body.update(self.params.extra_body)
        request_id = body.get("request_id")
        return Call(
            "/chat/completions",
            _read,
            Timeout.of(self.params.timeout, timeout),
            body=encode_json(body),
            headers=self.params.extra_headers or {},
            accept="text/event-stream" if self.stream else "application/json",
            request_id=request_id if isinstance(request_id, str) else None,
        )


def encode_json(body: Mapping[str, object]) -> bytes:
    """JSON of a request body.

    Raises:
        InvalidRequestError: A value has no JSON form; the message says where it stands.
    """
    try:
        return _to_json(body)
    except (ValueError, RecursionError) as error:
        where, value = _culprit(body)
        reason = " ".join(str(error).split()).removeprefix("Error serializing to JSON: ")
        reason = reason.removeprefix("ValueError: ")
        raise InvalidRequestError([Problem(where, value, f"has no JSON form ({reason}).")]) from error


def _to_json(value: object) -> bytes:
    return to_json(value, inf_nan_mode="constants", fallback=_plain)


def _plain(value: object) -> object:
    """A mapping or sequence of a kind that the encoder does not know, as one that it knows."""
    if isinstance(value, Mapping):
        return dict(cast("Mapping[object, object]", value))
    if isinstance(value, Sequence):
        return list(cast("Sequence[object]", value))
    raise ValueError(f"{type(value).__name__} is none of JSON's types")


def _culprit(body: Mapping[str, object]) -> tuple[str, str]:
    """Where the value stands that cannot be encoded: its path, and its type."""
    path = ""
    values: list[object] = [body]
    while True:
        value = values[-1]
        bad = next((inner for inner in _inside(value) if not _encodes(inner[1])), None)
        # What contains itself has no innermost culprit, nor has what never ends.
        if bad is None or len(values) > 100 or any(bad[1] is each for each in values):
            return path.removeprefix(".") or "request", f"<{type(value).__name__}>"
        path += bad[0]
        values.append(bad[1])


def _inside(value: object) -> Iterator[tuple[str, object]]:
    """What a value contains, each with its step of a path."""
    if isinstance(value, Mapping):
        for key, each in cast("Mapping[object, object]", value).items():
            yield f".{key}", each
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for place, each in enumerate(cast("Sequence[object]", value)):
            yield f"[{place}]", each


def _encodes(value: object) -> bool:
    try:
        _to_json(value)
    except (ValueError, RecursionError):
        return False
    return True


def _read(reply: Reply) -> ChatCompletion:
    return decode_completion(reply.body, request_id=reply.head.request_id)
