"""Decisions need a newer server than the oldest ones, and a model that can make them: the tiny model cannot.

vLLM 0.33 asks with the words yes and no as one token each, and these are several tokens of the tiny model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vllmchat import InternalServerError, NotFoundError, VLLMProvider

if TYPE_CHECKING:
    from support.vllm import LiveServer

pytestmark = pytest.mark.server


def test_a_server_that_makes_no_decisions_says_what_they_need(vllm_server: LiveServer) -> None:
    kind = InternalServerError if vllm_server.since("0.33") else NotFoundError
    with (
        VLLMProvider(base_url=vllm_server.base_url, max_retries=0) as llm,
        pytest.raises(kind, match=r"Decisions need vLLM 0\.33 or newer and a model that can make them"),
    ):
        llm.decide("Hello", [{"type": "predicate", "instructions": "Is it a greeting?"}])
