"""A local server that answers by a script."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllmchat.errors import APIStatusError
from vllmchat.testing.errors import error, error_of
from vllmchat.testing.exchange import steps
from vllmchat.testing.listener import Listener
from vllmchat.testing.model import NEWEST, FakeModel
from vllmchat.testing.script import Script, ScriptError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

    from vllmchat.testing.call import Call
    from vllmchat.testing.exchange import Request, Response, Step
    from vllmchat.testing.model import RouteAnswer
    from vllmchat.testing.script import Answer, ScriptLike


class FakeServer:
    """A local server that speaks like vLLM and answers by a script. It needs no other package.

    It listens on 127.0.0.1, in a thread of its own. As a context manager it starts and closes:

        with FakeServer(["Hello!"]) as server:
            llm = VLLMProvider(base_url=server.base_url)
            assert llm.chat("Hi").text == "Hello!"
            assert server.calls[0].text == "Hi"

    It has `/v1/chat/completions` and `/v1/completions`, whole and streamed, `/v1/embeddings`, `/v1/models`,
    `/tokenize`, `/detokenize`, `/health`, `/ping`, `/version`, `/load` and `/metrics`. `on` sets any other.

    Args:
        script: What it answers to chats and completions: a list of answers, each for one call; a function that receives
            the `Call` and returns an answer; or one answer for all calls. See `Answer`. Functions run on the server's
            event loop and must not block.
        model: The name of its model, or several names. Requests for another model get a 404. None: it accepts every
            name, and lists its model as `fake-model`.
        version: The version of vLLM that it reports.
        api_key: The key that it requires, or None.
        max_model_len: The length of its context, in tokens. A token is a word or a punctuation mark.
        dimensions: The length of its embeddings, which depend only on the text.
        chunk: Characters per streamed piece, at least 1. By default a piece is a word or a punctuation mark.
        port: The port; 0 for any free one.

    Raises:
        TypeError: An answer has the wrong type.
        ValueError: `chunk` is below 1.
    """

    def __init__(
        self,
        script: ScriptLike | None = None,
        *,
        model: str | Sequence[str] | None = None,
        version: str = NEWEST,
        api_key: str | None = None,
        max_model_len: int = 32_768,
        dimensions: int = 16,
        chunk: int | None = None,
        port: int = 0,
    ) -> None:
        names = ["fake-model"] if model is None else [model] if isinstance(model, str) else list(model)
        self._script = Script(script)
        self._model = FakeModel(
            self._script,
            model=names,
            any_model=model is None,
            version=version,
            api_key=api_key,
            max_model_len=max_model_len,
            dimensions=dimensions,
            chunk=chunk,
        )
        self._failures: list[str] = []
        self._listener = Listener(self._respond, port)

    @property
    def url(self) -> str:
        """The root, such as `http://127.0.0.1:40001`."""
        return self._listener.url

    @property
    def base_url(self) -> str:
        """The `base_url` for a provider."""
        return f"{self.url}/v1"

    @property
    def model(self) -> str:
        """The name of its model."""
        return self._model.names[0]

    @property
    def requests(self) -> list[Request]:
        """All requests so far, in order of arrival."""
        return self._listener.requests

    @property
    def calls(self) -> list[Call]:
        """The chats and completions so far, in order."""
        return self._model.calls

    @property
    def abandoned(self) -> list[Request]:
        """The requests whose client closed the connection before the response was complete."""
        return self._listener.abandoned

    def wait_abandoned(self, count: int = 1, timeout: float = 5.0) -> list[Request]:
        """Waits until clients have closed so many connections early, and returns their requests.

        Args:
            count: How many.
            timeout: How long to wait, in seconds.

        Raises:
            AssertionError: They did not in time.
        """
        return self._listener.wait_abandoned(count, timeout)

    def answer(self, *answers: Answer) -> None:
        """Adds answers to the script, each for one chat or completion.

        Raises:
            TypeError: An answer has the wrong type.
        """
        self._script.add(*answers)

    def on(self, path: str, answer: RouteAnswer) -> None:
        """Answers all requests of a path so, whatever their method.

        Args:
            path: The path with its `/v1`, such as `/v1/rerank`, without a query.
            answer: A mapping or a list, sent as JSON; a `str`, sent as text; bytes; `error(...)`; a `Response`; or a
                function that receives the `Request` and returns one of these.

        Raises:
            ValueError: The path does not begin with a slash.
        """
        self._model.on(path, answer)

    def assert_done(self) -> None:
        """Checks that each answer of the list was used, and that each call had one.

        Raises:
            ScriptError: That is not the case.
        """
        if self._failures:
            raise ScriptError(f"the script failed: {'; '.join(self._failures)}")
        self._script.assert_done()

    def start(self) -> Self:
        """Starts the server, without a `with` block. `close` ends it.

        Raises:
            OSError: The port is in use.
        """
        self._listener.start()
        return self

    def close(self) -> None:
        """Closes all connections and ends the server's thread."""
        self._listener.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"FakeServer({self.url!r})"

    def _respond(self, request: Request) -> Iterator[Step]:
        self._model.running = self._listener.open
        return steps(self._response(request))

    def _response(self, request: Request) -> Response:
        try:
            return self._model.handle(request)
        except ScriptError as wrong:
            return error(500, str(wrong), type="ScriptError").response()
        except APIStatusError as scripted:
            return error_of(scripted).response()
        except Exception as failure:
            # A client cannot see it: assert_done reports it.
            message = f"{type(failure).__name__}: {failure}"
            self._failures.append(message)
            return error(
                500,
                f"{message}. An exception cannot cross HTTP: write error(...) or drop(...)",
                type="ScriptError",
            ).response()
