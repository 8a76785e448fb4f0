"""Answers of real servers with something wrong in them, read by every method: only errors of the library are raised."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from support import recordings
from support.mutations import mutated
from support.replay import EVERY, Call, Replay, route_of
from vllmchat import InvalidRequestError, VLLMChatError

if TYPE_CHECKING:
    from support.outcomes import Facts
    from support.recordings import Recording
    from support.runners import Runner
    from support.scripted import ScriptedServer

SERVERS = ("0.33.0", "0.33.0-token-embed", "0.32.0", "0.10.2", "0.10.2-pooling")


class Reader(Replay):
    """Calls the methods, and lets no error through but those of the library."""

    def read(self, recording: Recording) -> None:
        """Reads an answer by each method that it belongs to."""
        route = route_of(recording)
        assert route is not None
        with self._answering(recording):
            self._exact(recording, EVERY[route])
            for _, call in self._further(recording):
                self._outcome(call)

    def _outcome(self, call: Call) -> Facts:
        try:
            if call.method.startswith("stream"):
                self._read_stream(call)
            else:
                repr(self.runner.do(self.llm, call.method, *call.arguments, **call.params))
        except InvalidRequestError:
            if call.exact:
                raise
        except VLLMChatError as error:
            repr(error.partial)
        return {}

    def _read_stream(self, call: Call) -> None:
        with self.runner.open(self.llm, call.method, *call.arguments, **call.params) as opened:
            for item in opened:
                repr(item)
            result = opened.until_done()
        repr(result)
        if call.method == "stream":
            with self.runner.open(self.llm, call.method, *call.arguments, **call.params) as opened:
                repr(list(opened.events()))


def answers(server: str) -> list[Recording]:
    """The answers whose content is read."""
    every = [recordings.load(name, server) for name in recordings.names(server=server)]
    return [each for each in every if each.status == 200 and each.body and route_of(each) is not None]


@pytest.mark.slow
@pytest.mark.parametrize("server", SERVERS)
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_only_errors_of_the_library_are_raised(
    server: str, scripted: ScriptedServer, runner: Runner, data: st.DataObject
) -> None:
    reader = Reader(server, scripted, runner)
    recording = data.draw(st.sampled_from(answers(server)))
    body = data.draw(mutated(recording))
    reader.read(dataclasses.replace(recording, body=body, length=len(body)))
    runner.close(reader.llm)
