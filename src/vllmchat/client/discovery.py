"""What a provider finds out about its server: which models it serves, and which version it is."""

# No `from __future__ import annotations`: pydantic would have to evaluate every annotation again.

from functools import partial
from typing import Final

from pydantic import Field

from vllmchat.checking.call_params import checked_timeout
from vllmchat.client.lookup import Found
from vllmchat.client.request import ServerRequest
from vllmchat.errors import APIStatusError, InvalidRequestError, Problem, ResponseError
from vllmchat.http.call import Response
from vllmchat.http.clock import Clock
from vllmchat.http.flow import Flow, Target, reply_flow
from vllmchat.http.timeout import Timeout
from vllmchat.versions import Version, read_version
from vllmchat.wire.decode import LenientList, WireModel, decode


class Model(WireModel):
    """One model, or one LoRA adapter, that a server offers."""

    id: str
    """The name to use as `model`."""

    object: str = "model"
    """Always `"model"`."""

    created: int | None = None
    """With vLLM, the time of the call, in seconds since 1970."""

    owned_by: str | None = None
    """`"vllm"` for vLLM."""

    root: str | None = None
    """Where the weights were loaded from: a path, or a name on a hub. Aliases of one model share it."""

    parent: str | None = None
    """For a LoRA adapter, its base model."""

    max_model_len: int | None = None
    """The maximum context length, prompt plus reply, in tokens. None for an adapter."""


class ModelList(WireModel):
    """All models that a server offers."""

    object: str = "list"
    """Always `"list"`."""

    data: LenientList[Model] = Field(default_factory=list[Model])
    """The models."""


def models_request(timeout: float | Timeout | None = None) -> ServerRequest[ModelList]:
    """The request that lists a server's models."""
    return ServerRequest("/models", _read, checked_timeout(timeout), outside_v1=False)


def length_request(
    found: Found, model: str | None, timeout: float | Timeout | None = None
) -> ServerRequest[int]:
    """The request for the maximum context length of a model, which it makes known.

    Args:
        found: What is known about the server.
        model: The model; None for the only one.
        timeout: The timeouts of the call.
    """
    return ServerRequest(
        "/models", partial(_read_length, found, model), checked_timeout(timeout), outside_v1=False
    )


def _read_length(found: Found, model: str | None, reply: Response) -> int:
    models = _read(reply)
    cards = {card.id: card for card in models.data}
    name = model
    if name is None:
        name = found.model = the_only_model(models)
    if name not in cards:
        rule = f"the server does not serve it. It serves {', '.join(cards) or 'no model'}."
        raise InvalidRequestError([Problem("model", repr(name), rule)])
    card = cards[name]
    # An adapter has the length of its base model.
    length = card.max_model_len or getattr(cards.get(card.parent or ""), "max_model_len", None)
    if length is None:
        raise ResponseError(f"the server does not report the max_model_len of {name}: it may not be vLLM")
    found.lengths[name] = length
    return length


def the_only_model(models: ModelList) -> str:
    """The name of the only model that a server serves; the first one if it has several names.

    Raises:
        InvalidRequestError: It serves several, or none; the message lists them.
    """
    if _are_aliases(models.data):
        return models.data[0].id
    names = [f"{card.id} (an adapter of {card.parent})" if card.parent else card.id for card in models.data]
    if len(names) == 1 and names != ["unknown"]:
        return models.data[0].id
    rule = (
        f"the server serves {', '.join(names)}: set model= to one of them"
        if names
        else "the server serves no model"
    )
    if names == ["unknown"]:
        rule = 'the server lists its model as "unknown", as some routers do: set model= to its name'
    raise InvalidRequestError([Problem("model", "None", rule)])


def _are_aliases(cards: list[Model]) -> bool:
    """Whether all are names of one model: vLLM lists each name of `--served-model-name`, with the same root."""
    root = cards[0].root if cards else None
    return bool(root) and all(card.root == root and not card.parent for card in cards)


def _read(reply: Response) -> ModelList:
    return decode(ModelList, reply.body, "a list of models")


OUTSIDE_V1: Final = (
    "Every vLLM server has it, outside /v1: check base_url, and which routes your proxies forward."
)


class _Version(WireModel):
    version: str


def version_request(timeout: float | Timeout | None = None) -> ServerRequest[str]:
    """The request for a server's version."""
    return ServerRequest("/version", _read_version, checked_timeout(timeout), route_hint=OUTSIDE_V1)


def _read_version(reply: Response) -> str:
    return decode(_Version, reply.body, "a version").version


def model_flow(found: Found, timeout: Timeout, target: Target, clock: Clock) -> Flow[str]:
    """Finds the only model that the server serves.

    Raises:
        InvalidRequestError: It serves several, or none.
    """
    models = yield from reply_flow(target, models_request().call(timeout), clock)
    found.model = the_only_model(models)
    return found.model


def version_flow(found: Found, timeout: Timeout, target: Target, clock: Clock) -> Flow[Version]:
    """Finds the server's version, or the one to assume if it reports none.

    Raises:
        APIStatusError: The server may be vLLM, but is unhealthy.
    """
    try:
        text = yield from reply_flow(target, version_request().call(timeout), clock)
    except (APIStatusError, ResponseError) as error:
        if isinstance(error, APIStatusError) and error.status_code >= 500:
            raise
        # It is not vLLM, or there is a proxy in front of it.
        text = ""
    found.version = read_version(text)
    return found.version
