"""The versions in the annotations of each endpoint's parameters match vLLM's releases.

The recording has the first release of each field of a request; 0.8.5 stands for 0.8.5 and older.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vllmchat.audio.params import StreamTranslateParams, TranscribeParams, TranslateParams
from vllmchat.chat.params import VLLMChatParams
from vllmchat.checking.rules import fields_of
from vllmchat.checking.since import SINCE
from vllmchat.completions.params import VLLMCompletionParams
from vllmchat.generate.check import OUTSIDE
from vllmchat.generate.params import GenerateParams
from vllmchat.pooling.params import (
    ClassifyParams,
    ClassifyTextParams,
    EmbedTextParams,
    PoolTextParams,
    RerankParams,
    ScoreParams,
)
from vllmchat.responses.params import ResponseParams
from vllmchat.versions import Version, read_version

RELEASES: dict[str, dict[str, str]] = json.loads(
    (Path(__file__).parents[2] / "recorded/vllm-fields-since.json").read_text("utf-8")
)

OURS = {
    "data_parallel_rank",
    "extra_body",
    "extra_headers",
    "extra_sampling_params",
    "max_retry_seconds",
    "timeout",
}
"""Parameters that are not sent under this name."""

ALIASES = {"enable_thinking": "chat_template_kwargs"}
IN_SAMPLING = {"vllm_xargs": "extra_args"}

Case = tuple[type, str, str]

CASES: tuple[Case, ...] = (
    (VLLMChatParams, "ChatCompletionRequest", "0.8.5"),
    (VLLMCompletionParams, "CompletionRequest", "0.8.5"),
    (ResponseParams, "ResponsesRequest", "0.10.0"),
    (GenerateParams, "GenerateRequest", "0.11.1"),
    (TranscribeParams, "TranscriptionRequest", "0.8.5"),
)
"""The parameters of a method, the server's class for them, and the first release with the route."""

OTHERS: list[type] = [
    ClassifyParams,
    ClassifyTextParams,
    EmbedTextParams,
    PoolTextParams,
    RerankParams,
    ScoreParams,
    StreamTranslateParams,
    TranslateParams,
]
"""Parameters that are not in the recording."""


def released(name: str, params: type, model: str) -> Version:
    """Returns the first release that reads a parameter."""
    if params is GenerateParams and name not in OUTSIDE:
        model, name = "SamplingParams", IN_SAMPLING.get(name, name)
    return read_version(RELEASES[model][ALIASES.get(name, name)])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].__name__)
def test_parameters_name_the_release_that_added_them(case: Case) -> None:
    params, model, begin = case
    route = read_version(begin)
    documented: dict[str, Version] = {}
    real: dict[str, Version] = {}
    for name, field in fields_of(params).items():
        if name not in OURS:
            # Parameters that came with the route or earlier have no version of their own.
            documented[name] = max(route, read_version(field.since or begin))
            real[name] = max(route, released(name, params, model))
    assert documented == real


def test_the_table_names_existing_parameters() -> None:
    everything = [params for params, _, _ in CASES] + OTHERS
    taken: dict[str, Any] = {params.__name__: fields_of(params) for params in everything}
    assert set(SINCE) <= set(taken)
    for owner, names in SINCE.items():
        assert set(names) <= set(taken[owner]), owner


def test_the_table_has_no_redundant_entries() -> None:
    """A version that is the same as for chats is only in the annotation."""
    chats = fields_of(VLLMChatParams)
    for owner, names in SINCE.items():
        assert [name for name, since in names.items() if name in chats and chats[name].since == since] == []
        assert list(names) == sorted(names), owner
