"""What most endpoints are sent: a JSON body for a model, of a subject and checked parameters."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar, cast

from vllmchat.checking.since import HARMLESS
from vllmchat.encoding import encode_json
from vllmchat.errors import InvalidRequestError
from vllmchat.http.call import Call
from vllmchat.http.timeout import Timeout
from vllmchat.versions import CHATS, fit, must_ask, needs, read_version

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vllmchat.checking.dialect import CheckedParams
    from vllmchat.http.call import Reply
    from vllmchat.versions import Version

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Post(Generic[T]):
    """A request that has been checked, before it is known which model it goes to.

    Attributes:
        path: The route.
        subject: What the request is about, such as its messages.
        params: The checked parameters.
        read: Makes the result of the answer.
        stream: Whether the answer is to be streamed.
        ask_usage: Whether a stream is asked for the usage, unless the parameters say that it is not.
        outside_v1: Whether the route stands beside `/v1`.
        needs: As of `Call`.
        whole_too: As of `Call`.
        older: The parameters for servers before some versions, oldest first.
    """

    path: str
    subject: Mapping[str, object]
    params: CheckedParams
    read: Callable[[Reply], T]
    stream: bool = False
    ask_usage: bool = False
    outside_v1: bool = False
    needs: str | None = None
    whole_too: bool = False
    older: Sequence[tuple[Version, CheckedParams]] = ()

    needs_model: ClassVar[bool] = True

    @property
    def needs_version(self) -> bool:
        """Whether it is written differently for some versions of the server, or refused there."""
        return depends_on_version(self.params, self.path)

    def for_version(self, version: Version) -> Post[T]:
        """The request as a server of a version reads it.

        Raises:
            InvalidRequestError: That server is too old for it.
        """
        params = next((older for since, older in self.older if version < since), self.params)
        return replace(self, params=suit(params, version, self.path), older=())

    def call(self, model: str, timeout: Timeout) -> Call[T]:
        """The call to a model.

        Args:
            model: Its name.
            timeout: The provider's limits; the call's own go before them.

        Raises:
            InvalidRequestError: Something in the request has no JSON form.
        """
        body: dict[str, object] = {"model": model, **self.subject, **self.params.fields}
        if body.get("top_k") == 0:
            body["top_k"] = -1  # vLLM 0.8 knows no other word for "off", and later ones know both
        if self.stream:
            body["stream"] = True
            if self.ask_usage:
                # Explicitly, since the default has changed between servers.
                given = cast("Mapping[str, object]", body.get("stream_options", {}))
                wanted = {name: value for name, value in given.items() if value is not None}
                body["stream_options"] = {"include_usage": True, **wanted}
        if self.params.extra_body is not None:
            body.update(self.params.extra_body)
        request_id = body.get("request_id")
        return Call(
            self.path,
            self.read,
            Timeout.of(self.params.timeout, timeout),
            body=encode_json(body),
            headers=self.params.extra_headers or {},
            accept="text/event-stream" if self.stream else "application/json",
            request_id=request_id if isinstance(request_id, str) else None,
            outside_v1=self.outside_v1,
            needs=self.needs,
            whole_too=self.whole_too,
        )


def depends_on_version(params: CheckedParams, route: str = CHATS) -> bool:
    """Whether a request with these parameters is written differently for some versions, or refused there."""
    return bool(params.newer) or must_ask(params.fields, route)


def suit(params: CheckedParams, version: Version, route: str = CHATS) -> CheckedParams:
    """The parameters as a server of a version reads them. Warns of what it ignores, where that does no harm.

    Args:
        params: The parameters.
        version: The server's.
        route: Where they go, below `/v1` if the route is there.

    Raises:
        InvalidRequestError: The server is too old for some, and would ignore them silently.
    """
    lacking = {
        name: needs(name, since, version)
        for name, came in params.newer.items()
        if version < (since := read_version(came))
    }
    problems = [problem for name, problem in lacking.items() if name not in HARMLESS]
    try:
        fields = fit(params.fields, version, route)
    except InvalidRequestError as error:
        problems += error.problems
        fields = params.fields
    if problems:
        raise InvalidRequestError(problems)
    for name in lacking:
        warnings.warn(f"the server ignores {lacking[name]}", stacklevel=2)
    return replace(params, fields=fields)


def replies_wanted(params: CheckedParams) -> int:
    """How many replies to one prompt a request asks for, by its `n`."""
    n = params.fields.get("n", 1)
    if params.extra_body is not None:
        n = params.extra_body.get("n", n)
    return max(n, 1) if isinstance(n, int) else 1
