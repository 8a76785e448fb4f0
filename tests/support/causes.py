"""Why an outcome of a recording is not the usual one: every exception with its cause.

The usual outcome of a recording is that of `USUAL`, the newest of the old servers; of a stream, that of the reply that
was not streamed. What differs stands here, or fails a test; so does a cause that explains nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from support.recordings import version_of
from vllmchat.versions import read_version

if TYPE_CHECKING:
    from collections.abc import Sequence

USUAL: Final = "0.30.0"


@dataclass(frozen=True, slots=True)
class Cause:
    """Why some outcomes differ.

    Attributes:
        recordings: Patterns of names.
        why: The cause.
        until: The last version that it holds for.
        since: The first one.
        servers: The servers, where it does not depend on the version.
    """

    recordings: tuple[str, ...]
    why: str
    until: str = "9999"
    since: str = "0.8.5"
    servers: tuple[str, ...] = ()

    def explains(self, server: str, recording: str) -> bool:
        """Whether it is the cause of what this recording led to."""
        if not any(fnmatchcase(recording, pattern) for pattern in self.recordings):
            return False
        if self.servers:
            return server in self.servers
        return read_version(self.since) <= version_of(server) <= read_version(self.until)


def cause_of(causes: Sequence[Cause], server: str, recording: str) -> Cause | None:
    """The first cause that explains an outcome: what holds for a server as a whole comes last."""
    return next((cause for cause in causes if cause.explains(server, recording)), None)


_DEFECT = "a defect of the server:"

SERVERS: Final = (
    Cause(
        ("*",),
        "recorded with prompts of its own, and another training of the tiny model",
        servers=("0.32.0", "0.33.0", "0.33.0-token-embed"),
    ),
    Cause(
        ("*",),
        f"{_DEFECT} this build computes wrong numbers on the CPU that it ran on: only the form of its answers counts",
        servers=("0.12.0",),
    ),
    Cause(
        ("*",),
        "the parser deepseek_r1, the only one there, takes a reply without thinking for reasoning, with the tool "
        "calls and the JSON in it",
        servers=("0.8.5",),
    ),
    Cause(
        ("chat_logprobs*", "chat_prompt_logprobs", "guided_bad_regex"),
        f"{_DEFECT} the regex of guided_bad_regex killed the engine; what was asked next met a 500, what came later "
        "no answer, and is not kept",
        servers=("0.8.5-noparser",),
    ),
    Cause(
        ("chat_reasoning", "stream_reasoning", "tool_call_stream"),
        "started without a reasoning parser: the thinking is text",
        servers=("0.8.5-noparser",),
    ),
)
"""What holds for a server as a whole."""

OUTCOMES: Final = (
    Cause(("version", "metrics*"), "each server has its own"),
    # Routes and what they answer.
    Cause(("abort",), "the route came with 0.26", until="0.25.1"),
    Cause(("batch",), "the route came with 0.19", until="0.17.1"),
    Cause(("generate",), "the route came with 0.11.1", until="0.10.2"),
    Cause(("generate",), "of these servers, 0.25 is the first that returns the usage", until="0.22.1"),
    Cause(("is_paused", "pause", "resume"), "the routes came with 0.12", until="0.10.2"),
    Cause(("render*",), "the routes came after 0.14", until="0.14.1"),
    Cause(
        ("render*",), "the first form of the answer has the tokens and no sampling parameters", until="0.17.1"
    ),
    Cause(("render",), "other sampling parameters are returned", until="0.22.1"),
    Cause(("reset_prefix_cache",), "answered nothing before 0.26", until="0.25.1"),
    Cause(("responses*",), "the route came with 0.10", until="0.9.2"),
    Cause(
        ("*_on_chat",),
        "before 0.15 every server had every route, and refused what its model cannot do",
        until="0.14.1",
    ),
    # Chats.
    Cause(
        ("chat_logprobs*", "chat_prompt_logprobs"),
        f"{_DEFECT} tokens stand as the tokenizer writes them: Ġ for a space, Ċ for a line break",
        servers=("0.9.2",),
    ),
    Cause(
        (
            "chat_reasoning_effort_low",
            "chat_reasoning_effort_max",
            "chat_reasoning_length",
            "responses_incomplete",
        ),
        f"{_DEFECT} a reply that is cut while it thinks is text, `<think>` and all; 0.10 calls it completed",
        until="0.14.1",
    ),
    Cause(
        ("chat_reasoning_effort_none",),
        "the parameter came with 0.10.1; before, it is ignored",
        until="0.9.2",
    ),
    Cause(("chat_reasoning_effort_none",), "the word came with 0.18; before, it is rejected", until="0.17.1"),
    Cause(
        ("chat_reasoning_effort_none",),
        f"{_DEFECT} it takes the word and does not switch thinking off, and then drops what was thought",
        servers=("0.19.1",),
    ),
    Cause(("chat_reasoning_effort_max",), "the word came with 0.21; before, it is rejected", until="0.19.1"),
    Cause(("chat_stop5",), "refused since 0.28", until="0.25.1"),
    Cause(("chat_temp3",), "refused since 0.24", until="0.22.1"),
    Cause(("chat_token_ids",), "return_token_ids came with 0.10.2; before, it is ignored", until="0.9.2"),
    Cause(("chat_tools_empty",), "refused since 0.20", until="0.19.1"),
    Cause(
        ("chat_prompt_logprobs_minus1",),
        "-1 was refused, where later it is more than allowed",
        until="0.10.2",
    ),
    Cause(
        ("error_bad_grammar_stream",),
        f"{_DEFECT} the grammar kills the engine; 0.30 ends the stream silently",
        servers=("0.10.2",),
    ),
    Cause(
        ("error_*", "chat_tools_empty", "responses_context"),
        "errors name the parameter more and more often",
        until="0.25.1",
    ),
    # Completions.
    Cause(("completion_guided_json",), "the client's own form for these servers", until="0.10.2"),
    Cause(("completion_response_format",), "not the client's own form for these servers", until="0.10.2"),
    Cause(
        ("completion_stream*",),
        f"{_DEFECT} prompt_token_ids come unasked, and the reason to finish is that of the last token allowed",
        servers=("0.10.2",),
    ),
    Cause(
        ("completion_stream_many",),
        f"{_DEFECT} the reason to finish is that of the last token allowed",
        servers=("0.9.2",),
    ),
    # Constraints.
    Cause(
        ("guided_*",),
        "guided_json and its kind were obeyed before 0.12, and are ignored since; the client sends them to old servers",
        until="0.10.2",
    ),
    Cause(("structured_*",), "structured_outputs came with 0.11; before, they are ignored", until="0.10.2"),
    Cause(
        ("responses_json_object",),
        f"{_DEFECT} json_object is a 500; the client sends a schema",
        until="0.14.1",
    ),
    Cause(
        ("responses_json_object",),
        f"{_DEFECT} json_object is ignored: the blank line would be against it",
        until="0.25.1",
    ),
    # Tools.
    Cause(("responses_tools",), "needs Harmony models in 0.10", until="0.10.2"),
    Cause(
        ("tokenize_chat_tools",), "tools came with 0.9; before, the client refuses to count", until="0.8.5"
    ),
    Cause(("tokenize_strs",), "return_token_strs came with 0.9.1", until="0.8.5"),
    Cause(
        ("tool_auto_length_stream",),
        f"{_DEFECT} the stream ends without a reason to finish",
        until="0.9.2",
    ),
    Cause(("tool_call",), "the blank line before a call is content", until="0.10.2"),
    Cause(
        ("tool_call_stream*", "tool_calls_parallel_stream"),
        "the line break after the arguments is sent with them",
        until="0.17.1",
    ),
    Cause(
        ("tool_named", "tool_named_stream"),
        "the constraint gives the tiny model room for nonsense; streams of 0.9 send it as text, and calls of 0.8.5 "
        "have no id",
        until="0.22.1",
    ),
    Cause(
        ("tool_required*",),
        f"{_DEFECT} nothing keeps the tiny model from calling without end, and what max_tokens truncated is "
        "rejected or dropped",
        until="0.22.1",
    ),
    *SERVERS,
)
"""Why a server's outcome is not that of `USUAL`."""

STREAMS: Final = (
    Cause(
        ("stream", "stream_nousage", "tool_*"),
        f"{_DEFECT} this build computes wrong numbers, and its parsers read them in streams in another way",
        servers=("0.12.0",),
    ),
    Cause(
        ("chat_n2_stream",),
        f"{_DEFECT} the last token of each choice is lost",
        servers=("0.8.5",),
    ),
    Cause(
        ("tool_auto_length_stream", "responses_cut_call_*_stream"),
        "parsers of streams have begun a call that parsers of whole replies leave as text, and the blank line before a "
        "whole call is a message of its own in streams of responses",
    ),
    Cause(("generate_derender_stream",), "the server refuses to stream this mode"),
    Cause(
        ("tool_named_stream",),
        f"{_DEFECT} the stream has a call as text, or without an id, where the whole reply is another or refused",
        until="0.9.2",
    ),
    Cause(("tool_named_stream",), "the reason to finish is another", servers=("0.10.2",)),
    Cause(
        ("tool_required_stream",),
        f"{_DEFECT} calls without end are streamed, and refused or dropped in whole replies",
        until="0.22.1",
    ),
    Cause(
        ("tool_call_stream*", "tool_calls_parallel_stream"),
        "the line break after the arguments is sent with them, and the blank line before a call, content of the whole "
        "reply until 0.10, is not in the stream",
        until="0.17.1",
    ),
)
"""Why a stream adds up to another outcome than the reply that was not streamed."""
