from __future__ import annotations

import copy
import inspect
import pickle
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import httpx2
import pytest

import vllmchat
from support.chats import chunk, completion
from support.scripted import ScriptedServer, close, refusing_origin, reply
from vllmchat import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ChatCompletion,
    ContextWindowExceededError,
    InternalServerError,
    InvalidRequestError,
    JobStoppedError,
    MaxTurnsError,
    Problem,
    ResponseError,
    StreamError,
    StreamInterruptedError,
    StructuredOutputError,
    VLLMChatError,
    VLLMProvider,
    errors,
)
from vllmchat.errors import ErrorResponse

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.runners import Runner
    from support.scripted import Answer, Answerer, Request
    from vllmchat import ChatMessage, Message

KEY = "sk-0123456789-secret"


def every_class() -> list[type[VLLMChatError]]:
    found = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, VLLMChatError)]
    assert len(found) == 22
    return found


@pytest.mark.parametrize("tree", ["errors.py", "docs/errors.md"])
def test_every_class_is_drawn_in_the_tree(tree: str) -> None:
    text = errors.__doc__ or ""
    if tree.endswith(".md"):
        page = (Path(__file__).parents[2] / tree).read_text("utf-8")
        text = page.partition("```text\n")[2].partition("\n```")[0]
    drawn = re.findall(r"^[ │]*[├└]── (\w+)", text, re.MULTILINE)
    assert sorted([VLLMChatError.__name__, *drawn]) == sorted(cls.__name__ for cls in every_class())


def partial() -> ChatCompletion:
    made = ChatCompletion.model_validate(completion("so far", of_a_newer_server={"x": [1]}))
    assert made.text == "so far"
    return made


def example(cls: type[VLLMChatError]) -> VLLMChatError:
    """An error with all its fields set."""
    if issubclass(cls, InvalidRequestError):
        return cls(
            [Problem("top_k", "-5", "must be -1 or more.", "Write 0."), Problem("n", "", "is required.")]
        )
    if issubclass(cls, APITimeoutError):
        return cls("m", limit="idle", seconds=1.5, url="http://h", request_id="id-1", partial=partial())
    if issubclass(cls, APIConnectionError):
        return cls("m", url="http://h", request_id="id-1", partial=partial())
    if issubclass(cls, APIStatusError):
        return cls(
            "m",
            status_code=418,
            code="c",
            type="t",
            param="p",
            body={"error": ["ü"]},
            request_id="id-1",
            response=ErrorResponse(418, {"x": "y"}),
            partial=partial(),
        )
    if issubclass(cls, StreamError):
        return cls("m", request_id="id-1", partial=partial())
    if issubclass(cls, ResponseError):
        return cls("m", status_code=200, body="<html>", request_id="id-1", partial=partial())
    if issubclass(cls, StructuredOutputError):
        return cls("m", reason="truncated", completion=partial())
    if issubclass(cls, MaxTurnsError):
        history: list[Message | ChatMessage] = [{"role": "user", "content": "Hello"}, partial().message]
        return cls("m", max_turns=1, messages=history, completions=[partial()])
    if issubclass(cls, JobStoppedError):
        return cls("m", done=3, failed=1, pending=[(3, "an input")])
    return cls("m", partial=partial())


# ------------------------------------------------------------------------------------------------
# The tree
# ------------------------------------------------------------------------------------------------


def test_the_tree_is_as_documented() -> None:
    assert errors.__doc__ is not None
    parents: list[str] = []
    drawn: dict[str, str] = {}
    for line in errors.__doc__.splitlines():
        before, marked, after = line.partition("── ")
        name = after.split()[0] if marked else line.strip()
        if not name.endswith("Error"):
            continue
        depth = len(before) // 4 if marked else 0
        drawn[name] = parents[depth - 1] if depth else "Exception"
        parents[depth:] = [name]
    assert drawn == {cls.__name__: cls.__mro__[1].__name__ for cls in every_class()}


def test_an_invalid_request_is_a_value_error() -> None:
    assert issubclass(InvalidRequestError, ValueError)


@pytest.mark.parametrize("cls", every_class())
def test_each_is_public_and_documented(cls: type[VLLMChatError]) -> None:
    assert getattr(vllmchat, cls.__name__) is cls
    assert cls.__doc__
    init = inspect.signature(cls.__init__).parameters
    described = "".join(each.__doc__ or "" for each in cls.__mro__)
    for name in set(init) - {"self", "problems"}:
        assert f"{name}:" in described, name


# ------------------------------------------------------------------------------------------------
# Messages
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", every_class())
def test_str_is_the_message(cls: type[VLLMChatError]) -> None:
    error = example(cls)
    assert str(error) == error.message == error.args[0]
    assert repr(error) == f"{cls.__name__}({error.message!r})"


def test_all_problems_are_in_the_message() -> None:
    first, second = Problem("a", "1", "must be 2.", "Write 2."), Problem("b", "", "is required.")
    assert str(InvalidRequestError([first])) == "a=1: must be 2. Write 2."
    assert str(InvalidRequestError([first, second])) == (
        "2 problems in this request:\n  - a=1: must be 2. Write 2.\n  - b: is required."
    )
    assert InvalidRequestError([first, second]).problems == (first, second)
    assert (str(InvalidRequestError("said")), InvalidRequestError("said").problems) == ("said", ())


def test_a_response_can_have_only_a_status() -> None:
    assert APIStatusError("m", status_code=400).response == ErrorResponse(400, {})


# ------------------------------------------------------------------------------------------------
# Pickling and copying
# ------------------------------------------------------------------------------------------------

COPIES: dict[str, Callable[[VLLMChatError], VLLMChatError]] = {
    "pickle": lambda error: pickle.loads(pickle.dumps(error)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("cls", every_class())
def test_every_error_is_copied_completely(cls: type[VLLMChatError], how: str) -> None:
    error = example(cls)
    error.add_note("a note")
    try:
        raise error from OSError(5, "cause")
    except VLLMChatError as raised:
        copied = COPIES[how](raised)
    assert type(copied) is cls
    assert copied is not error
    assert vars(copied) == vars(error)
    assert copied.args == error.args
    assert (str(copied), repr(copied)) == (str(error), repr(error))
    assert isinstance(copied.__cause__, OSError)
    assert copied.__cause__.args == (5, "cause")


def test_a_partial_reply_is_copied_with_its_unknown_fields() -> None:
    copied: VLLMChatError = pickle.loads(pickle.dumps(example(StreamInterruptedError)))
    assert copied.partial == partial()
    assert copied.partial is not None
    assert copied.partial.model_extra == {"of_a_newer_server": {"x": [1]}}


def test_a_job_over_anything_stops_with_an_error_that_pickles() -> None:
    error = JobStoppedError("m", done=3, failed=1, pending=[(3, threading.Lock())])
    copied: JobStoppedError = pickle.loads(pickle.dumps(error))
    assert (str(copied), copied.done, copied.failed, copied.pending) == ("m", 3, 1, ())


class Locked(Exception):  # noqa: N818 - the name is enough here
    """Does not pickle."""

    def __init__(self) -> None:
        super().__init__(threading.Lock())


class Demanding(Exception):  # noqa: N818 - the name is enough here
    """Pickles, but cannot be unpickled."""

    def __init__(self, *, needed: int) -> None:
        super().__init__(f"needed {needed}")


class Absent(Exception):  # noqa: N818 - the name is enough here
    """Pickles; its module is missing when it is unpickled."""


class Turned(Exception):  # noqa: N818 - the name is enough here
    """Pickles, but unpickles as something else."""

    def __reduce__(self) -> tuple[object, ...]:
        return str, ("no error",)


@pytest.mark.parametrize("cause", [Locked(), Demanding(needed=1), Turned()])
@pytest.mark.parametrize("how", COPIES)
def test_a_cause_that_cannot_be_pickled_is_harmless(cause: Exception, how: str) -> None:
    error = example(APIConnectionError)
    error.__cause__ = cause
    copied = COPIES[how](error)
    assert copied.__cause__ is None
    assert vars(copied) == vars(error)


def test_a_cause_whose_module_is_missing_when_unpickled(monkeypatch: pytest.MonkeyPatch) -> None:
    error = example(APIConnectionError)
    error.__cause__ = Absent("x")
    pickled = pickle.dumps(error)
    monkeypatch.delattr(inspect.getmodule(Absent) or object, "Absent")
    copied: VLLMChatError = pickle.loads(pickled)
    assert copied.__cause__ is None
    assert str(copied) == "m"


def test_a_cause_of_our_own_keeps_its_cause() -> None:
    inner, outer = example(StreamError), example(ResponseError)
    inner.__cause__, outer.__cause__ = KeyError("k"), inner
    copied: VLLMChatError = pickle.loads(pickle.dumps(outer))
    assert isinstance(copied.__cause__, StreamError)
    assert isinstance(copied.__cause__.__cause__, KeyError)


# ------------------------------------------------------------------------------------------------
# Over HTTP: the request ID, and never the key
# ------------------------------------------------------------------------------------------------


def caught(runner: Runner, llm: VLLMProvider, *, stream: bool = False) -> VLLMChatError:
    ask = runner.stream(llm).until_done if stream else lambda: runner.chat(llm)
    with pytest.raises(VLLMChatError) as caught:
        ask()
    return caught.value


def holds_key(error: BaseException) -> bool:
    # The pickle contains everything that an error holds, including its cause.
    shown = f"{error} {error!r} {vars(error)} {error.__cause__!r}"
    return KEY in shown or KEY.encode() in pickle.dumps(error)


def echo(status: int, content_type: str = "application/json", *, flat: bool = False) -> Answerer:
    """Echoes what was sent, including the headers."""

    def answer(request: Request) -> Answer:
        text = f"you sent {request.headers['authorization']}"
        body: object = text if flat else {"headers": dict(request.headers), "error": {"message": text}}
        headers = {"content-type": content_type, "x-echo": request.headers["authorization"]}
        return reply(body, status, headers)

    return answer


ECHOES = {
    "an error": echo(400),
    "an error of a proxy": echo(502, "text/plain", flat=True),
    "a good status": echo(200),
    "no protocol": echo(200, flat=True),
    "a page": echo(200, "text/html", flat=True),
}


@pytest.mark.parametrize("what", ECHOES)
@pytest.mark.parametrize("stream", [False, True])
def test_a_server_that_echoes_the_key(
    scripted: ScriptedServer, runner: Runner, what: str, stream: bool
) -> None:
    llm = VLLMProvider("m", base_url=scripted.base_url, api_key=KEY, max_retries=0)
    scripted.add(ECHOES[what])
    error = caught(runner, llm, stream=stream)
    assert isinstance(error, APIStatusError | ResponseError)
    assert KEY in scripted.requests[0].headers["authorization"]
    assert "***" in str(error)
    assert not holds_key(error)


def test_a_short_key_is_not_a_secret(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.reply({"error": {"message": "EMPTY is not what I want"}}, 401)
    error = caught(runner, VLLMProvider("m", base_url=scripted.base_url))
    assert type(error) is AuthenticationError
    assert "EMPTY is not" in str(error)


def test_no_connection_error_contains_the_key(scripted: ScriptedServer, runner: Runner) -> None:
    with refusing_origin() as origin:
        assert not holds_key(caught(runner, VLLMProvider("m", base_url=origin, api_key=KEY, max_retries=0)))
    llm = VLLMProvider("m", base_url=scripted.base_url, api_key=KEY)
    scripted.script(close)
    assert not holds_key(caught(runner, llm))
    scripted.stream([chunk("a")], done=False)
    assert not holds_key(caught(runner, llm, stream=True))
    scripted.stream([chunk("a"), close])
    assert not holds_key(caught(runner, llm, stream=True))


@pytest.mark.parametrize("client", [httpx.Client(trust_env=False), httpx2.Client(trust_env=False)])
def test_no_error_of_a_callers_client_contains_the_key(client: httpx.Client | httpx2.Client) -> None:
    with refusing_origin() as origin, client:
        llm = VLLMProvider("m", base_url=origin, api_key=KEY, max_retries=0, http_client=client)
        with pytest.raises(APIConnectionError) as refused:
            llm.chat("Hi")
    assert type(refused.value.__cause__).__name__ == "ConnectError"
    assert not holds_key(refused.value)


@pytest.mark.parametrize("stream", [False, True])
def test_the_request_id_is_the_responses_else_the_one_sent(
    scripted: ScriptedServer, runner: Runner, stream: bool
) -> None:
    llm = VLLMProvider("m", base_url=scripted.base_url)
    scripted.reply({"error": "x"}, 400, {"X-Request-Id": "from-server"})
    scripted.reply({"error": "x"}, 400)
    first, second = (caught(runner, llm, stream=stream) for _ in range(2))
    assert isinstance(first, BadRequestError)
    assert isinstance(second, BadRequestError)
    assert first.request_id == "from-server"
    assert second.request_id == scripted.requests[1].headers["x-request-id"]
    assert second.response.headers["content-type"] == "application/json"


# ------------------------------------------------------------------------------------------------
# Whole responses that are not replies
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"<html>hello", b"[]", b'{"object": "list"}', b"\xff"])
def test_a_reply_that_is_not_a_completion(scripted: ScriptedServer, runner: Runner, content: bytes) -> None:
    scripted.reply(content, headers={"x-request-id": "from-server"})
    error = caught(runner, VLLMProvider("m", base_url=scripted.base_url))
    assert isinstance(error, ResponseError)
    assert (error.status_code, error.request_id) == (200, "from-server")
    assert error.body == content.decode("utf-8", "replace")


def test_an_error_under_a_good_status(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.reply({"error": {"message": "longer than the maximum model length", "code": 400}})
    error = caught(runner, VLLMProvider("m", base_url=scripted.base_url))
    assert type(error) is ContextWindowExceededError


def test_a_reply_that_stops(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.reply(completion("hi"), headers={"content-length": "9999"}, then=[close])
    error = caught(runner, VLLMProvider("m", base_url=scripted.base_url))
    assert type(error) is APIConnectionError
    assert str(error).startswith(f"the connection to {scripted.base_url}/chat/completions broke")
    assert error.url == f"{scripted.base_url}/chat/completions"
    assert error.__cause__ is not None
    assert len(scripted.requests) == 1


def test_an_error_that_stops(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.reply({"error": "x"}, 500, {"content-length": "9999"}, then=[close])
    error = caught(runner, VLLMProvider("m", base_url=scripted.base_url))
    assert type(error) is InternalServerError
    assert error.body is None


def test_a_huge_error(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.reply(b"x" * (3 * 1024 * 1024), 500)
    error = caught(runner, VLLMProvider("m", base_url=scripted.base_url))
    assert isinstance(error, InternalServerError)
    assert isinstance(error.body, str)
    assert len(error.body) == 1024 * 1024
    assert len(str(error)) < 400
    assert scripted.wait_client_closed()
