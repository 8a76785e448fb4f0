"""Jobs from file to file: formats, the journal, and what may be wrong with files."""

from __future__ import annotations

import errno
import gzip
import io
import itertools
import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pydantic
import pytest

from support.chats import answer_any, completion
from support.jobs import reply
from support.scripted import reply as answer
from vllmchat import InvalidRequestError, JobProgress, JobStoppedError, VLLMProvider, run_job
from vllmchat.jobs.journal import IdSet
from vllmchat.jobs.records import format_of, read_records
from vllmchat.jobs.template import Template

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.scripted import Answer, Request, ScriptedServer
    from vllmchat import ChatCompletion


class Echo:
    """A provider that replies with the prompt.

    Attributes:
        seen: The last messages that it got, and the parameters.
        wrong: The prompts that it rejects.
    """

    name = "echo"

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.wrong: set[str] = set()

    async def achat(self, messages: Any, *, model: str | None = None, **params: Any) -> ChatCompletion:
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        text: str = messages[-1]["content"]
        system = "".join(f"[{each['content']}] " for each in messages[:-1])
        self.seen.append((text, {"model": model, **params}))
        if text in self.wrong:
            raise ValueError(f"wrong: {text}")
        return reply(system + text)

    @property
    def texts(self) -> list[str]:
        return sorted(text for text, _ in self.seen)


def rows(path: Path) -> dict[str, Any]:
    """The lines of an output by id; each is there once."""
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    found = {line["custom_id"]: line for line in lines}
    assert len(found) == len(lines)
    return found


def texts(path: Path) -> dict[str, str]:
    """The replies of an output by id."""
    return {
        key: line["response"]["body"]["choices"][0]["message"]["content"]
        for key, line in rows(path).items()
        if line["error"] is None
    }


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def go(provider: Any, source: Path | str, out: Path | str, **options: Any) -> Any:
    options.setdefault("in_flight", 4)
    return run_job(provider, source, out, **options)


# Formats


def test_lines_of_text(write: Any, out: Path) -> None:
    path = write("in.txt", "one\n\ntwo\r\nthree")
    summary = go(Echo(), path, out)
    assert texts(out) == {"line-1": "one", "line-3": "two", "line-4": "three"}
    assert (summary.done, summary.failed, summary.skipped, summary.ok) == (3, 0, 0, True)
    assert str(summary).startswith("3 done in ")


def test_a_template(write: Any, out: Path) -> None:
    llm = Echo()
    path = write("in.jsonl", '{"id": 7, "text": "cat", "to": "German"}\n{"text": "dog"}\n')
    summary = go(llm, path, out, prompt="{text} in {to}", system="Be brief.", model="m", temperature=0)
    assert texts(out) == {"7": "[Be brief.] cat in German"}
    assert llm.seen[0][1] == {"model": "m", "temperature": 0}
    message = rows(out)["line-2"]["error"]["error"]["message"]
    assert message == "the row has no 'to', which the prompt needs; it has text."
    assert summary.failures == {"InvalidRequestError": 1}
    assert "1 failed (1 InvalidRequestError)" in str(summary)


def test_rows_with_messages_or_a_prompt(write: Any, out: Path) -> None:
    llm = Echo()
    content = [
        {"id": "a", "messages": [{"role": "user", "content": "one"}], "max_tokens": 5},
        {"custom_id": "b", "prompt": "two", "temperature": 1},
        {"id": "c", "question": "three"},
    ]
    go(llm, write("in.jsonl", "\n".join(map(json.dumps, content))), out, temperature=0)
    assert texts(out) == {"a": "one", "b": "two"}
    assert dict(llm.seen) == {
        "one": {"model": None, "temperature": 0, "max_tokens": 5},
        "two": {"model": None, "temperature": 1},
    }
    assert "has no messages, prompt or text, but id, question" in rows(out)["c"]["error"]["error"]["message"]


def test_csv(write: Any, out: Path) -> None:
    path = write("in.csv", '\ufeffid,text\nx,"one, with a comma"\ny,"two\nlines"\n')
    go(Echo(), path, out, prompt="<{text}>")
    assert texts(out) == {"x": "<one, with a comma>", "y": "<two\nlines>"}


def test_parquet(tmp_path: Path, out: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"id": [1, 2], "text": ["one", "two"]}), tmp_path / "in.parquet")
    go(Echo(), tmp_path / "in.parquet", out)
    assert texts(out) == {"1": "one", "2": "two"}


def test_parquet_without_its_package(monkeypatch: pytest.MonkeyPatch, write: Any, out: Path) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'vllmchat\[parquet\]'"):
        go(Echo(), write("in.parquet", b"PAR1"), out)


def test_a_batch_of_all_routes(write: Any, out: Path) -> None:
    """Each body goes to its method; what is sent is what the method makes of it."""
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    class Server:
        name = "all"

        def __getattr__(self, name: str) -> Any:
            if name not in ("achat", "acomplete", "aembed", "ascore", "arerank", "arespond"):
                raise AttributeError(name)

            async def call(*args: Any, **params: Any) -> ChatCompletion:
                calls.append((name, args, params))
                return reply(name)

            return call

    bodies: list[tuple[str, dict[str, Any]]] = [
        ("/v1/chat/completions", {"model": "m", "messages": [], "stream": False}),
        ("/v1/completions", {"prompt": "p"}),
        ("/v1/responses", {"input": "i"}),
        ("/v1/embeddings", {"input": ["e"], "dimensions": 8}),
        ("/v1/score", {"text_1": "a", "text_2": ["b"]}),
        ("/score", {"queries": "a", "documents": ["b"]}),
        ("/v2/rerank", {"query": "q", "documents": ["d"]}),
        ("/v1/nothing", {}),
        ("/v1/completions", {"prompts": "p"}),
        ("/v1/chat/completions", {"messages": [], "stream": True}),
    ]
    lines = [
        json.dumps({"custom_id": str(number), "method": "POST", "url": url, "body": body})
        for number, (url, body) in enumerate(bodies)
    ]
    lines.append('{"custom_id": "get", "method": "GET", "url": "/v1/completions", "body": {}}')
    go(Server(), write("in.jsonl", "\n".join(lines)), out, in_flight=1)
    assert calls == [
        ("achat", ([],), {"model": "m"}),
        ("acomplete", ("p",), {}),
        ("arespond", ("i",), {}),
        ("aembed", (["e"],), {"dimensions": 8}),
        ("ascore", ("a", ["b"]), {}),
        ("ascore", ("a", ["b"]), {}),
        ("arerank", ("q", ["d"]), {}),
    ]
    errors = {key: line["error"]["error"]["message"] for key, line in rows(out).items() if line["error"]}
    assert errors["7"].startswith("url='/v1/nothing': must be one of /v1/chat/completions, ")
    assert errors["8"] == "prompt: is required for /v1/completions."
    assert errors["9"] == "stream=True: a batch has no streams. Leave it out."
    assert errors["get"] == "line 11: method='GET': must be POST."


def test_the_output_is_that_of_run_batch(scripted: ScriptedServer, write: Any, out: Path) -> None:
    def respond(request: Request) -> Answer:
        if request.path == "/v1/embeddings":
            data = [{"object": "embedding", "index": 0, "embedding": [0.5, -1.0]}]
            return answer({"object": "list", "data": data, "model": "m", "id": "embd-1", "new": {"a": [1]}})
        if b"bad" in request.body:
            return answer({"error": {"message": "too bad", "type": "BadRequestError", "code": 400}}, 400)
        return answer({**completion("hi"), "of_a_newer_server": 1})

    scripted.always(respond)
    llm = VLLMProvider("m", base_url=scripted.base_url)
    bodies = {
        "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hello"}]}),
        "embed": ("/v1/embeddings", {"input": "hello"}),
        "bad": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "bad"}]}),
    }
    lines = [json.dumps({"custom_id": key, "url": url, "body": body}) for key, (url, body) in bodies.items()]
    summary = go(llm, write("in.jsonl", "\n".join(lines)), out)
    found = rows(out)
    assert found["chat"]["response"]["status_code"] == 200
    assert found["chat"]["response"]["body"] == {**completion("hi"), "of_a_newer_server": 1}
    assert found["embed"]["response"]["body"]["data"][0]["embedding"] == [0.5, -1.0]
    assert found["embed"]["response"]["body"]["new"] == {"a": [1]}
    assert set(found["bad"]) == {"id", "custom_id", "response", "error"}
    assert found["bad"]["response"]["status_code"] == 400
    assert found["bad"]["response"]["body"] is None
    assert found["bad"]["error"]["error"] == {
        "message": "400: too bad",
        "type": "BadRequestError",
        "param": None,
        "code": 400,
    }
    assert summary.failures == {"BadRequestError": 1}


def test_the_format_is_told_by_the_name() -> None:
    names = ("a.jsonl", "a.NDJSON", "a.csv", "a.parquet", "a.txt", "a", "-", "x.unknown")
    assert [format_of(name) for name in names] == [
        "jsonl",
        "jsonl",
        "csv",
        "parquet",
        "text",
        "text",
        None,
        "text",
    ]


# What is wrong with a record is its result


def test_lines_that_cannot_be_read(write: Any, out: Path) -> None:
    long = b'{"text": "' + b"x" * 3_000_000 + b'"}'
    lines = [b'{"text": "good"}', b'{"text": "torn', b"[1]", b'{"text": "\xff"}', long, b'{"text": "end"}']
    llm = Echo()
    summary = go(llm, write("in.jsonl", b"\n".join(lines)), out, max_line_bytes=1000)
    assert texts(out) == {"line-1": "good", "line-6": "end"}
    errors = {key: line["error"]["error"]["message"] for key, line in rows(out).items() if line["error"]}
    assert errors["line-2"].startswith("line 2 is not JSON: Unterminated string")
    assert errors["line-3"] == "line 3 is not a JSON object, but a list."
    assert errors["line-4"] == "line 4 is not UTF-8: invalid start byte at byte 10."
    assert errors["line-5"] == "line 5 is longer than 1,000 bytes."
    assert (summary.done, summary.failed) == (6, 4)
    assert llm.texts == ["end", "good"]


def test_a_long_line_is_never_held_whole() -> None:
    class Endless(io.RawIOBase):
        """A line of 2 GB, then a short one."""

        def __init__(self) -> None:
            self.left = 2_000_000_000
            self.most = 0

        def readline(self, size: int | None = -1, /) -> bytes:
            assert size is not None
            assert size > 0
            self.most = max(self.most, size)
            if self.left > 0:
                self.left -= size
                return bytes(size) if self.left > 0 else bytes(size - 1) + b"\n"
            self.left -= 1
            return b"short\n" if self.left > -(1 << 30) and self.left % 2 == 0 else b""

    file: Any = Endless()
    records = list(read_records(file, "text", Template(), limit=1 << 20))
    assert "longer than 1,048,576 bytes" in str(records[0].error)
    assert file.most <= (1 << 20) + 1


# What is wrong with the whole is found first


def test_parameters_of_other_routes_are_checked_first(write: Any, out: Path) -> None:
    llm = VLLMProvider("m", base_url="http://127.0.0.1:9")
    path = write("in.txt", "a")
    for url, params, message in (
        ("/v1/embeddings", {"dimension": 8}, "dimension"),
        ("/v1/completions", {"temperature": -1}, "temperature=-1"),
        ("/v1/responses", {"temperature": -1}, "temperature=-1"),
        ("/rerank", {"top": 1}, "top"),
        ("/score", {"temperature": 1}, "temperature"),
    ):
        with pytest.raises(InvalidRequestError, match=message):
            go(llm, path, out, url=url, **params)
    with pytest.raises(InvalidRequestError, match="url='/v1/chat': must be one of /v1/chat/completions, "):
        go(llm, path, out, url="/v1/chat")
    options = {"in_flight": 0, "retries": -1, "wait": "long", "max_line_bytes": 0, "prompt": 5}
    for option, value in options.items():
        with pytest.raises(InvalidRequestError, match=f"{option}="):
            go(llm, path, out, **{option: value})
    with pytest.raises(InvalidRequestError, match="order='random': must be one of given, prefix"):
        go(llm, path, out, order="random")
    with pytest.raises(InvalidRequestError, match=r"kind: replies of /v1/embeddings have no type"):
        go(llm, path, out, url="/v1/embeddings", kind=int)
    with pytest.raises(InvalidRequestError, match="kind: a Echo has no parse"):
        go(Echo(), path, out, kind=int)
    with pytest.raises(InvalidRequestError, match="response_format"):
        go(llm, path, out, kind=int, response_format={"type": "json_object"})
    assert not out.exists()


def test_wrong_parameters_are_found_before_anything_is_sent(write: Any, out: Path) -> None:
    llm = VLLMProvider("m", base_url="http://127.0.0.1:9")
    with pytest.raises(InvalidRequestError, match="temperature=-1"):
        go(llm, write("in.txt", "a"), out, temperature=-1)
    with pytest.raises(InvalidRequestError, match="format='xml': must be one of jsonl, text, csv, parquet"):
        go(llm, write("in.txt", "a"), out, format="xml")
    assert not out.exists()


def test_an_id_that_is_there_twice(write: Any, out: Path) -> None:
    llm = Echo()
    path = write("in.jsonl", '{"id": "a", "text": "1"}\n{"id": "b", "text": "2"}\n{"id": "a", "text": "3"}\n')
    with pytest.raises(InvalidRequestError, match=r"the id 'a' in line 3 of .* is there twice"):
        go(llm, path, out)
    assert llm.seen == []


def test_a_missing_input(tmp_path: Path, out: Path) -> None:
    with pytest.raises(FileNotFoundError):
        go(Echo(), tmp_path / "none.txt", out)
    assert not out.exists()


# Other routes, and replies of a type


def test_texts_for_another_route(scripted: ScriptedServer, write: Any, out: Path) -> None:
    def respond(request: Request) -> Answer:
        texts: Any = request.json()
        assert texts["dimensions"] == 2
        data = [{"object": "embedding", "index": 0, "embedding": [float(len(texts["input"])), 0.5]}]
        return answer({"object": "list", "data": data, "model": "m", "id": "embd-1"})

    scripted.always(respond)
    llm = VLLMProvider("m", base_url=scripted.base_url)
    path = write("in.csv", "id,title,note\na,cat,1\nb,horse,2\n")
    assert go(llm, path, out, url="/v1/embeddings", prompt="the {title}", dimensions=2).ok
    found = {key: line["response"]["body"]["data"][0]["embedding"] for key, line in rows(out).items()}
    assert found == {"a": [7.0, 0.5], "b": [9.0, 0.5]}


def test_replies_of_a_type(scripted: ScriptedServer, write: Any, out: Path) -> None:
    class Animal(pydantic.BaseModel):
        legs: int

    def respond(request: Request) -> Answer:
        body: Any = request.json()
        assert body["response_format"]["json_schema"]["schema"]["required"] == ["legs"]
        return answer(completion('{"legs": 4}' if "cat" in body["messages"][-1]["content"] else "many"))

    scripted.always(respond)
    llm = VLLMProvider("m", base_url=scripted.base_url)
    path = write("in.txt", "cat\ncentipede")
    summary = go(llm, path, out, kind=Animal)
    assert summary.failures == {"StructuredOutputError": 1}
    assert texts(out) == {"line-1": '{"legs": 4}'}
    wrong = rows(out)["line-2"]
    assert wrong["error"]["error"]["type"] == "StructuredOutputError"
    assert wrong["response"]["body"]["choices"][0]["message"]["content"] == "many"
    assert go(llm, path, out, kind=Animal).skipped == 2
    assert go(llm, path, out, kind=Animal, retry_failed=True).done == 1

    other = pydantic.create_model("Animal", wings=(int, ...))
    with pytest.raises(InvalidRequestError, match="has results for other parameters"):
        go(llm, path, out, kind=other)


@pytest.mark.parametrize(
    "constraint",
    [
        {"structured_outputs": {"json": {"type": "object"}}},
        {"structured_outputs": {"regex": "a+"}},
        {"response_format": {"type": "json_object"}},
    ],
)
def test_a_constraint_is_sent_and_is_part_of_the_job(
    constraint: dict[str, Any], scripted: ScriptedServer, write: Any, out: Path
) -> None:
    def respond(request: Request) -> Answer:
        return answer({"version": "0.32.0"}) if request.path == "/version" else answer_any(request)

    scripted.always(respond)
    llm = VLLMProvider("m", base_url=scripted.base_url)
    path = write("in.txt", "a")
    go(llm, path, out, **constraint)
    sent: Any = scripted.requests[-1].json()
    assert {name: sent[name] for name in constraint} == constraint
    assert go(llm, path, out, **constraint).done == 0
    with pytest.raises(InvalidRequestError, match="has results for other parameters"):
        go(llm, path, out)


def test_what_replies_do_not_depend_on_may_change(scripted: ScriptedServer, write: Any, out: Path) -> None:
    scripted.always(answer_any)
    path = write("in.txt", "a")
    llm = VLLMProvider("m", base_url=scripted.base_url)
    go(llm, path, out, timeout=5.0)
    assert go(llm, path, out, timeout=60.0, max_retry_seconds=5).done == 0
    other = VLLMProvider("another", base_url=scripted.base_url)
    with pytest.raises(InvalidRequestError, match="has results for other parameters"):
        go(other, path, out)
    assert go(other, path, out, model="m").done == 0


# The order


def test_inputs_that_begin_alike_are_sent_together(write: Any, out: Path) -> None:
    llm = Echo()
    texts = [f"{letter * 400} {number}" for number in range(3) for letter in "abcdef"]
    path = write("in.txt", "\n".join(texts))
    go(llm, path, out, order="prefix", in_flight=1)
    sent = [f"{text[0]}{text[-1]}" for text, _ in llm.seen]
    assert sorted(sent) == sorted(f"{text[0]}{text[-1]}" for text in texts)
    letters = "".join(each[0] for each in sent)
    # The first of each group is ahead of the rest of the one before.
    order = list(dict.fromkeys(letters))
    firsts = [letters.index(letter) for letter in order]
    assert firsts == [0, 1, 4, 7, 10, 13]
    assert len(rows(out)) == 18
    assert sorted(each.name for each in out.parent.iterdir()) == ["in.txt", "out.jsonl", "out.jsonl.job"]


def test_documents_after_a_shared_system_message_are_told_apart(write: Any, out: Path) -> None:
    llm = Echo()
    documents = [f"{letter * 2000} {number}" for number in range(4) for letter in "abc"]
    go(llm, write("in.txt", "\n".join(documents)), out, order="prefix", in_flight=1, system="s" * 600)
    letters = [text[0] for text, _ in llm.seen]
    assert sum(one != other for one, other in itertools.pairwise(letters)) <= 4


def test_the_order_of_a_job_that_goes_on(write: Any, out: Path) -> None:
    """And of one with inputs that cannot be sent, in a format of which places mean nothing."""
    content = "id,text\n" + "".join(
        f'{number},"{"ab"[number % 2] * 300}\n{number}"\n' for number in range(10)
    )
    path = write("in.csv", content + "broken\n")
    go(Echo(), path, out, order="prefix")
    lines = out.read_bytes().splitlines(keepends=True)
    assert "has 1 field, and the header 2" in rows(out)["line-22"]["error"]["error"]["message"]
    out.write_bytes(b"".join(lines[:5]))
    llm = Echo()
    summary = go(llm, path, out, order="prefix", in_flight=1)
    assert (summary.done, summary.skipped) == (6, 5)
    assert len(rows(out)) == 11


def test_no_room_for_the_copy(write: Any, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_options: object) -> object:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("vllmchat.jobs.inputs.TemporaryFile", full)
    with pytest.raises(JobStoppedError, match=r"cannot keep a copy of the inputs in .*: No space left"):
        go(Echo(), write("in.txt", "one"), out, order="prefix")


# The journal


def test_a_job_goes_on_where_it_was(write: Any, out: Path) -> None:
    path = write("in.txt", "\n".join(map(str, range(50))))
    stop = threading.Event()

    class Interrupted(Echo):
        async def achat(self, messages: Any, *, model: str | None = None, **params: Any) -> ChatCompletion:
            if len(self.seen) == 20:
                stop.set()
                raise KeyboardInterrupt
            return await super().achat(messages, model=model, **params)

    first, second = Interrupted(), Echo()
    with pytest.raises(KeyboardInterrupt):
        go(first, path, out)
    done = texts(out)
    assert 0 < len(done) <= 20
    summary = go(second, path, out)
    assert (summary.skipped, summary.done) == (len(done), 50 - len(done))
    assert texts(out) == {f"line-{number + 1}": str(number) for number in range(50)}
    assert not {int(text) for text in second.texts} & {int(text) for text in done.values()}
    third = Echo()
    assert go(third, path, out).skipped == 50
    assert third.seen == []


def test_a_torn_last_line_is_done_again(write: Any, out: Path) -> None:
    path = write("in.txt", "one\ntwo\nthree")
    go(Echo(), path, out, in_flight=1)
    whole = out.read_bytes()
    for cut in (2, 10, len(whole.splitlines()[-1])):
        out.write_bytes(whole[:-cut])
        llm = Echo()
        go(llm, path, out)
        assert llm.texts == ["three"]
        assert texts(out) == {"line-1": "one", "line-2": "two", "line-3": "three"}


def test_a_last_line_without_its_line_break_is_whole(write: Any, out: Path) -> None:
    path = write("in.txt", "one\ntwo\nthree")
    go(Echo(), path, out, in_flight=1)
    whole = out.read_bytes()
    out.write_bytes(whole.removesuffix(b"\n"))
    assert go(Echo(), path, out).skipped == 3
    assert out.read_bytes() == whole


def test_another_input_or_other_parameters_are_noticed(write: Any, out: Path) -> None:
    path = write("in.txt", "one\ntwo")
    go(Echo(), path, out, temperature=0)
    llm = Echo()
    with pytest.raises(InvalidRequestError, match=r"has results for other parameters\. .* force=True"):
        go(llm, path, out, temperature=1)
    write("in.txt", "one\ntwo\nthree")
    with pytest.raises(InvalidRequestError, match="has results for another input"):
        go(llm, path, out, temperature=0)
    with pytest.raises(InvalidRequestError, match="has results for another input and other parameters"):
        go(llm, path, out, prompt="{text}!")
    assert llm.seen == []
    go(llm, path, out, temperature=0, force=True)
    assert llm.texts == ["three"]
    # From then on it is the job of the new input.
    assert go(llm, path, out, temperature=0).done == 0


@pytest.mark.parametrize("end", ["\n", ""])
def test_a_file_that_is_not_a_journal_is_kept(end: str, write: Any, out: Path) -> None:
    out.write_text(f"precious{end}")
    with pytest.raises(InvalidRequestError, match="exists and is not the output of a job"):
        go(Echo(), write("in.txt", "one"), out)
    assert out.read_text() == f"precious{end}"
    go(Echo(), write("in.txt", "one"), out, force=True)
    assert out.read_text().startswith("precious\n{")


def test_failures_are_tried_again_on_request(write: Any, out: Path) -> None:
    path = write("in.txt", "one\ntwo\nthree")
    llm = Echo()
    llm.wrong = {"two"}
    assert go(llm, path, out).failed == 1
    llm.seen.clear()
    assert go(llm, path, out).done == 0
    assert go(llm, path, out, retry_failed=True).failed == 1
    assert llm.texts == ["two"]
    llm.wrong.clear()
    assert go(llm, path, out, retry_failed=True).ok
    assert texts(out) == {"line-1": "one", "line-2": "two", "line-3": "three"}
    assert sorted(each.name for each in out.parent.iterdir()) == ["in.txt", "out.jsonl", "out.jsonl.job"]


def test_failures_are_kept_if_there_is_no_room_to_leave_them_out(
    write: Any, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("in.txt", "one\ntwo")
    llm = Echo()
    llm.wrong = {"two"}
    go(llm, path, out)
    before = out.read_bytes()

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        JobStoppedError, match=r"without its failures: No space left on device\. It is as it was\."
    ):
        go(llm, path, out, retry_failed=True)
    monkeypatch.undo()
    assert out.read_bytes() == before
    llm.wrong.clear()
    assert go(llm, path, out, retry_failed=True).done == 1
    assert sorted(each.name for each in out.parent.iterdir()) == ["in.txt", "out.jsonl", "out.jsonl.job"]


def test_two_jobs_do_not_write_to_one_file(write: Any, out: Path) -> None:
    path = write("in.txt", "one")

    class Slow(Echo):
        async def achat(self, messages: Any, *, model: str | None = None, **params: Any) -> ChatCompletion:
            with pytest.raises(JobStoppedError, match="another job is writing to"):
                go(Echo(), path, out)
            return await super().achat(messages, model=model, **params)

    assert go(Slow(), path, out).ok
    assert texts(out) == {"line-1": "one"}


def test_a_file_that_is_replaced_before_it_is_locked_is_that_of_another_job(
    write: Any, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("in.txt", "one")

    def lock(fd: int, flags: int) -> None:
        os.replace(write("new", ""), out)

    monkeypatch.setattr("vllmchat.jobs.journal._lock", (lock, 0))
    with pytest.raises(JobStoppedError, match="another job is writing to"):
        go(Echo(), path, out)
    assert out.read_bytes() == b""


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_a_broken_note_on_what_a_file_is_about(content: str, write: Any, out: Path) -> None:
    path = write("in.txt", "one")
    go(Echo(), path, out)
    write("out.jsonl.job", content)
    with pytest.raises(InvalidRequestError, match=r"out\.jsonl\.job cannot be read\. Pass force=True"):
        go(Echo(), path, out)
    assert go(Echo(), path, out, force=True).skipped == 1


def test_results_reach_the_disk_within_a_second(write: Any, out: Path) -> None:
    """Also if no other result follows."""
    path = write("in.txt", "first\nsecond")

    class Slow(Echo):
        async def achat(self, messages: Any, *, model: str | None = None, **params: Any) -> ChatCompletion:
            if messages == "second":
                with anyio.fail_after(5):
                    while not await anyio.Path(out).read_bytes():  # noqa: ASYNC110 - a file has no event
                        await anyio.sleep(0.01)
            return await super().achat(messages, model=model, **params)

    assert go(Slow(), path, out, in_flight=2).ok


def test_a_full_disk_keeps_what_is_written(write: Any, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("in.txt", "\n".join(map(str, range(200))))
    room = 5000
    real = os.write

    def limited(fd: int, data: Any) -> int:
        nonlocal room
        if not os.path.samestat(os.fstat(fd), out.stat()):
            return real(fd, data)
        if room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = real(fd, data[:room])
        room -= count
        return count

    monkeypatch.setattr(os, "write", limited)
    monkeypatch.setattr("vllmchat.jobs.journal.FLUSH_BYTES", 1000)
    with pytest.raises(JobStoppedError, match=r"No space left on device\. What is in it is kept"):
        go(Echo(), path, out)
    kept = texts(out)
    assert 10 < len(kept) < 100
    assert out.read_bytes().endswith(b"\n")
    monkeypatch.undo()
    assert go(Echo(), path, out).skipped == len(kept)
    assert len(texts(out)) == 200


def test_ctrl_c_while_results_are_written_doubles_none(
    write: Any, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("in.txt", "\n".join(map(str, range(50))))
    real, is_interrupted = os.write, False

    def interrupted(fd: int, data: Any) -> int:
        nonlocal is_interrupted
        count = real(fd, data)
        if not is_interrupted and os.path.samestat(os.fstat(fd), out.stat()):
            is_interrupted = True
            raise KeyboardInterrupt
        return count

    monkeypatch.setattr(os, "write", interrupted)
    monkeypatch.setattr("vllmchat.jobs.journal.FLUSH_BYTES", 1)
    monkeypatch.setattr("vllmchat.jobs.journal.FLUSH_SECONDS", 60)
    with pytest.raises(KeyboardInterrupt):
        go(Echo(), path, out)
    assert 0 < len(texts(out)) <= 50
    go(Echo(), path, out)
    assert len(texts(out)) == 50


def test_an_input_that_is_deleted_meanwhile(write: Any, out: Path) -> None:
    path = write("in.txt", "\n".join(map(str, range(2000))))

    class Deleting(Echo):
        async def achat(self, messages: Any, *, model: str | None = None, **params: Any) -> ChatCompletion:
            path.unlink(missing_ok=True)
            return await super().achat(messages, model=model, **params)

    assert go(Deleting(), path, out).done == 2000
    with pytest.raises(FileNotFoundError):
        go(Echo(), path, out)
    assert len(texts(out)) == 2000


class Changing(Echo):
    """Does something to a file while the job runs."""

    def __init__(self, change: Callable[[], object]) -> None:
        super().__init__()
        self._change: Callable[[], object] | None = change

    async def achat(self, messages: Any, *, model: str | None = None, **params: Any) -> ChatCompletion:
        change, self._change = self._change, None
        if change is not None:
            change()
        return await super().achat(messages, model=model, **params)


@pytest.mark.parametrize("order", ["given", "prefix"])
def test_an_input_that_grows_meanwhile(order: str, write: Any, out: Path) -> None:
    """What was there at first is done; then it is another input."""
    path = write("in.txt", "".join(f"{number}\n" for number in range(5000)) + "the la")

    def grow() -> None:
        with path.open("a") as file:
            file.write("st\nmore\n")

    assert go(Changing(grow), path, out, order=order).done == 5001
    assert texts(out)["line-5001"] == "the la"
    with pytest.raises(InvalidRequestError, match="has results for another input"):
        go(Echo(), path, out, order=order)
    llm = Echo()
    go(llm, path, out, order=order, force=True)
    assert llm.texts == ["more"]


@pytest.mark.parametrize("change", ["", "".join(f"{number:04}!\n" for number in range(20_000))])
def test_an_input_that_is_overwritten_meanwhile(change: str, write: Any, out: Path) -> None:
    path = write("in.txt", "".join(f"{number:05}\n" for number in range(20_000)))
    llm = Changing(lambda: write("in.txt", change))
    with pytest.raises(
        JobStoppedError, match=r"in\.txt has changed while the job ran, .* What is done is kept"
    ) as caught:
        go(llm, path, out)
    done = len(rows(out))
    assert caught.value.done == done
    assert done == len(llm.seen)
    assert done > 0


def test_a_compressed_input(write: Any, out: Path) -> None:
    content = gzip.compress(b'{"id": "a", "text": "one"}\n{"id": "b", "text": "two"}\n')
    path = write("in.jsonl.gz", content)
    assert go(Echo(), path, out).done == 2
    assert texts(out) == {"a": "one", "b": "two"}
    # By what is in it: it is the same input after it is compressed anew, or not at all.
    assert go(Echo(), write("in.jsonl", gzip.decompress(content)), out).done == 0
    other = out.with_name("other.jsonl")
    for broken in (content[:-10], content[:30] + b"?" + content[31:], content + b"x"):
        llm = Echo()
        with pytest.raises(InvalidRequestError, match=r"in\.jsonl\.gz is not a whole gzip file: "):
            go(llm, write("in.jsonl.gz", broken), other)
        assert llm.seen == []


def test_outputs_that_cannot_be_written(write: Any, tmp_path: Path) -> None:
    path = write("in.txt", "one")
    llm = Echo()
    with pytest.raises(FileNotFoundError, match=r"missing.*out\.jsonl"):
        go(llm, path, tmp_path / "missing" / "out.jsonl")
    with pytest.raises(IsADirectoryError):
        go(llm, path, tmp_path)
    link = tmp_path / "link.txt"
    link.symlink_to(path)
    for other in (path, link, f"{tmp_path}/../{tmp_path.name}/in.txt"):
        with pytest.raises(InvalidRequestError, match="is the input, and cannot be the output too"):
            go(llm, path, other, force=True)
    assert llm.seen == []
    assert path.read_text() == "one"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["in.txt", "link.txt"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_that_is_read_only(write: Any, out: Path) -> None:
    out.write_text("")
    out.chmod(0o400)
    with pytest.raises(PermissionError):
        go(Echo(), write("in.txt", "one"), out)


def test_an_output_behind_a_symbolic_link(write: Any, out: Path, tmp_path: Path) -> None:
    path = write("in.txt", "one\ntwo")
    (tmp_path / "disk").mkdir()
    real = tmp_path / "disk" / "real.jsonl"
    real.touch(0o600)
    out.symlink_to(real)
    llm = Echo()
    llm.wrong = {"two"}
    go(llm, path, out)
    llm.wrong.clear()
    assert go(llm, path, out, retry_failed=True).done == 1
    assert out.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o600
    assert texts(real) == {"line-1": "one", "line-2": "two"}
    # By either name it is the same job.
    assert go(llm, path, real).skipped == 2


def test_a_job_that_stops_keeps_its_results(write: Any, out: Path) -> None:
    path = write("in.txt", "\n".join(map(str, range(20))))
    llm = Echo()
    llm.wrong = {str(number) for number in range(5, 20)}
    with pytest.raises(JobStoppedError, match="3 errors in a row"):
        go(llm, path, out, stop_after_errors=3, in_flight=1)
    assert len(texts(out)) == 5
    assert len(rows(out)) == 8


def test_progress_counts_what_is_left(write: Any, out: Path) -> None:
    path = write("in.txt", "one\ntwo\nthree")
    seen: list[JobProgress] = []
    go(Echo(), path, out, progress=seen.append)
    assert (seen[-1].total, seen[-1].done) == (3, 3)
    out.write_bytes(b"".join(out.read_bytes().splitlines(keepends=True)[:1]))
    go(Echo(), path, out, progress=seen.append)
    assert (seen[-1].total, seen[-1].done) == (2, 2)


def test_a_set_of_ids() -> None:
    ids = IdSet()
    texts = [f"id-{number}" for number in range(5000)]
    assert all(ids.add(text) for text in texts)
    assert not any(ids.add(text) for text in texts)
    assert all(text in ids for text in texts)
    assert "id-5000" not in ids
    assert len(ids) == 5000


# kill -9


KILLED = """
import sys
from vllmchat import VLLMProvider, run_job

llm = VLLMProvider("m", base_url=sys.argv[1])
run_job(llm, sys.argv[2], sys.argv[3], in_flight=8, temperature=0)
"""


@pytest.mark.slow
def test_killed_fifty_times_each_input_is_done_once(scripted: ScriptedServer, write: Any, out: Path) -> None:
    """And its content is what it would have been."""
    count, kills = 2000, 50
    seen: dict[str, int] = {}

    def respond(request: Request) -> Answer:
        body: Any = request.json()
        text: str = body["messages"][0]["content"]
        seen[text] = seen.get(text, 0) + 1
        return answer_any(request)

    scripted.always(respond)
    path = write("in.txt", "\n".join(f"question {number}" for number in range(count)))
    script = write("job.py", textwrap.dedent(KILLED))
    command = [sys.executable, str(script), scripted.base_url, str(path), str(out)]
    killed, asked = 0, 0
    for number in range(kills):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        # After some more requests, at a different moment of the work each time.
        asked = len(scripted.requests) + 1 + (number * 7) % 40
        scripted.wait_requests(asked, 20)
        process.send_signal(signal.SIGKILL)
        killed += process.wait(20) == -signal.SIGKILL
        if out.exists():
            tail = out.read_bytes().rpartition(b"\n")[2]
            assert b"\n" not in tail
    assert killed == kills
    subprocess.run(command, check=True, timeout=120)
    assert texts(out) == {f"line-{number + 1}": f"question {number}" for number in range(count)}
    # What was in flight or not yet on disk was asked for again, and nothing else.
    assert sum(seen.values()) - count < kills * 60


@pytest.mark.parametrize(
    ("written", "meant"), [("retry_faild", "retry_failed"), ("promt", "prompt"), ("urll", "url")]
)
def test_a_misspelled_option_is_explained(tmp_path: Path, written: str, meant: str) -> None:
    options: Any = {written: "x"}
    with VLLMProvider("m") as llm, pytest.raises(InvalidRequestError) as raised:
        run_job(llm, tmp_path / "in.txt", tmp_path / "out.jsonl", **options)
    assert str(raised.value) == f"{written}='x': is not an argument of run_job. Did you mean `{meant}`?"
    assert not list(tmp_path.iterdir())


def test_a_prompt_without_a_field_is_a_warning(write: Any, out: Path) -> None:
    path = write("in.txt", "one\ntwo\n")
    with pytest.warns(UserWarning, match=r"^prompt='Translate': has no field, so every input") as caught:
        go(Echo(), path, out, prompt="Translate")
    assert caught[0].filename == __file__
    # A system message may tell the inputs apart.
    go(Echo(), path, out.with_name("other.jsonl"), prompt="Who are you?", system="You are {text}.")
