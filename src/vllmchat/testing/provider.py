"""A provider that answers by a script."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NoReturn

from vllmchat.http.client import AsyncClient, SyncClient
from vllmchat.providers.vllm import VLLMProvider
from vllmchat.testing.memory import AsyncMemoryTransport, SyncMemoryTransport
from vllmchat.testing.model import NEWEST, FakeModel
from vllmchat.testing.script import Script

if TYPE_CHECKING:
    from vllmchat.http.timeout import Timeout
    from vllmchat.testing.call import Call
    from vllmchat.testing.model import RouteAnswer
    from vllmchat.testing.script import Answer, ScriptLike


class ScriptedProvider(VLLMProvider):
    """A `VLLMProvider` that answers by a script, without a network.

    It has all methods of a `VLLMProvider`, sync and async, and checks, sends and reads the same; only the server is
    missing. `parse`, `choose` and `run_tools` work unchanged.

        llm = ScriptedProvider(["Hello!", tool_call("get_weather", {"city": "Paris"})])
        assert llm.chat("Hi").text == "Hello!"
        assert llm.calls[0].text == "Hi"

    Args:
        script: What it answers to chats and completions: a list of answers, each for one call; a function that receives
            the `Call` and returns an answer; or one answer for all calls. See `Answer`.
        model: The name of its default model; calls may name any other.
        version: The version of vLLM that it stands for, as far as requests are concerned.
        chunk: Characters per streamed piece, at least 1. By default a piece is a word or a punctuation mark.
        max_retries: The number of retries after `error(429)`, `error(503)` and the like. By default none, so that each
            answer is for one call.
        timeout: See `VLLMProvider`.

    Raises:
        TypeError: An answer has the wrong type.
        ValueError: `chunk` is below 1.
    """

    def __init__(
        self,
        script: ScriptLike | None = None,
        *,
        model: str = "scripted",
        version: str = NEWEST,
        chunk: int | None = None,
        max_retries: int = 0,
        timeout: float | Timeout | None = None,
    ) -> None:
        super().__init__(
            model,
            base_url="http://scripted.invalid/v1",
            api_key="EMPTY",
            max_retries=max_retries,
            timeout=timeout,
        )
        self._script = Script(script)
        self._served = FakeModel(self._script, model=[model], any_model=True, version=version, chunk=chunk)
        self._clients.sync_client = SyncClient(partial(SyncMemoryTransport, self._served))
        self._clients.async_client = AsyncClient(partial(AsyncMemoryTransport, self._served))

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} answers in this process and cannot be pickled. For tests with several processes, "
            "use a FakeServer"
        )

    @property
    def calls(self) -> list[Call]:
        """The calls so far, in order. An invalid call, which is not sent, is not among them."""
        return self._served.calls

    def answer(self, *answers: Answer) -> None:
        """Adds answers to the script, each for one call.

        Raises:
            TypeError: An answer has the wrong type.
        """
        self._script.add(*answers)

    def on(self, path: str, answer: RouteAnswer) -> None:
        """Sets the response of a path, such as `/v1/rerank`; see `FakeServer.on`."""
        self._served.on(path, answer)

    def assert_done(self) -> None:
        """Checks that each answer of the list was used, and that each call had one.

        Raises:
            ScriptError: That is not the case.
        """
        self._script.assert_done()
