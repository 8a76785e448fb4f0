"""Keys that a server echoes, in any form, are in no error; nor in tracebacks that show variables."""

from __future__ import annotations

import html
import json
import pickle
import traceback
from base64 import b64encode
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from support.scripted import ScriptedServer, close, head, refusing_origin
from vllmchat import VLLMChatError, VLLMProvider
from vllmchat.http import plain_key
from vllmchat.http.secrets import Mask, is_secret_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.runners import Runner

KEY = 'abcd/"1234"&efgh<5678>+ijkl='

FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "lower case": str.lower,
    "upper case": str.upper,
    "JSON": lambda key: json.dumps(key)[1:-1],
    "JSON of PHP": lambda key: json.dumps(key)[1:-1].replace("/", "\\/"),
    "JSON of Go": lambda key: json.dumps(key)[1:-1].replace("&", "\\u0026").replace("<", "\\u003c"),
    "HTML": html.escape,
    "HTML in numbers": lambda key: key.replace("&", "&#38;").replace("<", "&#x3C;"),
    "a URL": lambda key: quote(key, safe=""),
    "base64": lambda key: b64encode(key.encode()).decode(),
    "UTF-16": lambda key: key.encode("utf-16-le").decode("latin-1"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_masked(form: str) -> None:
    mask = Mask([("authorization", f"Bearer {KEY}")])
    shown = FORMS[form](KEY)
    assert shown not in mask.text(f"<{shown}>")
    assert "5678" not in mask.data(f"<{shown}>".encode("latin-1")).decode("latin-1")
    assert mask.text("nothing to hide") == "nothing to hide"


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("authorization", "Bearer s3cr3t!", "s3cr3t!"),
        ("authorization", "Bearer abc,def;ghi=jkl,mno;pqr=stu", "abc,def;ghi=jkl,mno;pqr=stu"),
        ("authorization", "raw-token-without-a-scheme", "raw-token-without-a-scheme"),
        ("authorization", "Basic " + b64encode(b"user:password").decode(), "password"),
        ("x-session", "SESSIONSESSION", "SESSIONSESSION"),
        ("x-goog-iap-jwt-assertion", "eyJhbGciOiJ", "eyJhbGciOiJ"),
        ("cookie", "a=1; session=0123456789", "0123456789"),
        ("x-gateway", "9f8e7d6c5b4a39281706", "9f8e7d6c5b4a39281706"),
    ],
)
def test_what_counts_as_a_secret(name: str, value: str, secret: str) -> None:
    assert secret not in Mask([(name, value)]).text(f"bad {secret}!")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("authorization", "Bearer EMPTY"),
        ("x-team", "production"),
        ("x-request-id", "0123456789abcdef0123456789abcdef"),
        ("user-agent", "vllmchat/0.1.0-something-long"),
        ("accept", "application/json"),
    ],
)
def test_what_is_no_secret(name: str, value: str) -> None:
    text = f"the {value} of production: EMPTY"
    assert Mask([(name, value)]).text(text) == text


@pytest.mark.parametrize("name", ["api_key", "hf_token", "auth", "Authorization", "client-secret", "jwt"])
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)
    assert "0123456789" not in Mask([(name, "0123456789")]).text("0123456789")


@pytest.mark.parametrize("name", ["max_tokens", "stop_token_ids", "session_id", "author", "model"])
def test_names_of_no_secrets(name: str) -> None:
    assert not is_secret_name(name)


def test_a_secret_that_is_cut() -> None:
    mask = Mask([("x-key", "0123456789")])
    assert b"01234" not in mask.data(b"x" * 1000 + b"01234", cut=True)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 401 U\r\nx-request-id: KEY\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nBearer KEY\r\n\r\n",
        b"authorization: Bearer KEY\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nBearer KEY\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: KEY\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: KEY\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nlocation: KEY\r\n\r\n{KEY",
        b'HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: {"KEY"\n\n',
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n<p>KEY</p>",
    ],
)
@pytest.mark.parametrize("method", ["chat", "stream"])
def test_no_error_holds_the_key(answer: bytes, method: str, scripted: ScriptedServer, runner: Runner) -> None:
    key = "sk-live-SECRET0123456789"
    scripted.script(answer.replace(b"KEY", key.encode()), close)
    llm = VLLMProvider("m", base_url=scripted.base_url, api_key=key, max_retries=0)
    with pytest.raises(VLLMChatError) as caught:
        runner.chat(llm) if method == "chat" else runner.stream(llm).until_done()
    each: BaseException | None = caught.value
    while each is not None:
        assert "SECRET0123456789" not in f"{each} {each!r} {vars(each)!r}"
        each = each.__cause__
    assert b"SECRET0123456789" not in pickle.dumps(caught.value)


def hidden_key() -> str:
    """No variable of this module holds it in one piece."""
    return "".join(("sk-live-", "SECRET", "0123456789"))


@pytest.mark.parametrize("how", ["500", "closed", "not JSON", "refused"])
def test_tracebacks_with_variables_do_not_show_the_key(
    how: str, scripted: ScriptedServer, runner: Runner
) -> None:
    answers = {
        "500": head(500, {"content-length": "2"}) + b"{}",
        "not JSON": head(200, {"content-length": "1"}) + b"{",
    }
    scripted.script(answers.get(how, b""), close)
    with refusing_origin() as refused:
        url = refused if how == "refused" else scripted.base_url
        llm = VLLMProvider("m", base_url=url, api_key=hidden_key(), max_retries=0)
        with pytest.raises(VLLMChatError) as caught:
            runner.chat(llm)
    shown: traceback.TracebackException | None
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    while shown is not None:
        for frame in shown.stack:
            assert "SECRET0123456789" not in str(frame.locals), f"{frame.filename}:{frame.name}"
        shown = shown.__cause__ or shown.__context__


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    hosts: set[str] = set()
    monkeypatch.setattr(plain_key, "_warned", hosts)
    return hosts


def test_a_key_over_plain_http_warns_once(warned: set[str]) -> None:
    with pytest.warns(
        UserWarning, match=r"the key for http://llm\.example:8000 goes over plain http"
    ) as caught:
        VLLMProvider("m", base_url="http://llm.example:8000", api_key="sk-live")
    VLLMProvider("m", base_url="http://llm.example:8000", api_key="sk-live")
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match=r"10\.0\.0\.1"):
        VLLMProvider("m", base_url="http://10.0.0.1", headers={"Authorization": "Basic x"})
    assert warned == {"llm.example", "10.0.0.1"}


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("https://llm.example", "sk-live"),
        ("http://localhost:8000", "sk-live"),
        ("http://vllm.localhost", "sk-live"),
        ("http://127.0.0.2:8000", "sk-live"),
        ("http://[::1]:8000", "sk-live"),
        ("http://llm.example", None),
    ],
)
def test_where_a_key_does_not_warn(url: str, key: str | None, warned: set[str]) -> None:
    VLLMProvider("m", base_url=url, api_key=key)
    assert warned == set()
