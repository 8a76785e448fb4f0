"""Methods for decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllmchat.client.base import ProviderBase
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Unpack

    from vllmchat.decisions import decide as requests
    from vllmchat.decisions.decision import Decision
    from vllmchat.decisions.params import DecideParams, DecisionInput, DecisionQuestion
else:
    requests = LazyModule("vllmchat.decisions.decide")


class DecisionMethods(ProviderBase):
    """Decisions by a vLLM server."""

    def decide(
        self,
        input: DecisionInput,  # noqa: A002 - the API's name
        questions: Sequence[DecisionQuestion],
        *,
        model: str | None = None,
        **params: Unpack[DecideParams],
    ) -> Decision:
        """Answers questions about a text with probabilities. No text is generated. Since vLLM 0.33.

        Args:
            input: The text that the questions are about, or messages of the user.
            questions: The questions: predicates (yes or no), choices (one of several options) and scores (a place on a
                scale).
            model: The model or LoRA adapter for this call.
            **params: See `DecideParams`.

        Returns:
            One answer to each question, in their order.

        Raises:
            InvalidRequestError: The input, a question or a parameter is invalid; nothing was sent.
            NotFoundError: The server is older than vLLM 0.33.
            InternalServerError: Status 501: the server's model makes no decisions.
            APIStatusError: The server returned another error.
            APIConnectionError: No response arrived.
            ResponseError: The response does not have one answer to each question.
        """
        return self._run(requests.decide_request(input, questions, params), model)

    async def adecide(
        self,
        input: DecisionInput,  # noqa: A002 - the API's name
        questions: Sequence[DecisionQuestion],
        *,
        model: str | None = None,
        **params: Unpack[DecideParams],
    ) -> Decision:
        """Async version of `decide`."""
        return await self._arun(requests.decide_request(input, questions, params), model)
