"""Results read from the output of a job."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Literal

import pydantic
import pytest

from support.chats import completion
from support.scripted import reply as answer
from vllmchat import (
    Embeddings,
    InvalidRequestError,
    RecordedError,
    ResponseError,
    StructuredOutputError,
    VLLMProvider,
    read_results,
    run_job,
)

if TYPE_CHECKING:
    from pathlib import Path

    from support.scripted import Answer, Request, ScriptedServer


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def line(key: str, content: str = "", *, error: Any = None, **response: Any) -> str:
    body = None if error is not None else completion(content)
    return json.dumps(
        {
            "id": "",
            "custom_id": key,
            "response": {"status_code": 200, "body": body, **response},
            "error": error,
        }
    )


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{each}\n" for each in lines), encoding="utf-8")
    return path


def respond(request: Request) -> Answer:
    if request.method == "GET":
        return answer({"status": "ok"})
    body: Any = request.json()
    if request.path == "/v1/embeddings":
        data = [{"object": "embedding", "index": 0, "embedding": [float(len(body["input"])), 0.5]}]
        return answer({"object": "list", "data": data, "model": "m", "id": "embd-1"})
    text = body["messages"][-1]["content"]
    if "bad" in text:
        return answer({"error": {"message": "too bad", "type": "BadRequestError", "code": 400}}, 400)
    return answer(completion(text.upper()))


def test_what_a_job_writes(scripted: ScriptedServer, tmp_path: Path, out: Path) -> None:
    scripted.always(respond)
    llm = VLLMProvider("m", base_url=scripted.base_url)
    source = tmp_path / "in.jsonl"
    rows: list[Any] = [
        {"id": key, "text": text} for key, text in (("a", "one"), ("b", "bad"), ("c", "ü\u2028"))
    ]
    source.write_text("\n".join(map(json.dumps, [*rows, {"id": "d"}])), encoding="utf-8")
    run_job(llm, source, out)
    found = {result.id: result for result in read_results(out)}
    assert len(found) == 4
    assert (found["a"].text, found["c"].text) == ("ONE", "Ü\u2028")
    assert found["a"].completion.model == found["a"].value.model
    error = found["b"].error
    assert isinstance(error, RecordedError)
    assert (error.type, error.status_code, error.message) == ("BadRequestError", 400, "400: too bad")
    wrong = found["d"].error
    assert isinstance(wrong, RecordedError)
    assert (wrong.type, wrong.status_code) == ("InvalidRequestError", 400)
    with pytest.raises(RecordedError, match="too bad"):
        _ = found["b"].text
    # In the order of the input, with its rows.
    joined = list(read_results(out, input=source))
    assert [(result.index, result.id, result.input, result.ok) for result in joined] == [
        (0, "a", rows[0], True),
        (1, "b", rows[1], False),
        (2, "c", rows[2], True),
        (3, "d", {"id": "d"}, False),
    ]


def test_other_replies(scripted: ScriptedServer, tmp_path: Path, out: Path) -> None:
    scripted.always(respond)
    llm = VLLMProvider("m", base_url=scripted.base_url)
    source = tmp_path / "in.txt"
    source.write_text("a\nbcd\n")
    run_job(llm, source, out, url="/v1/embeddings")
    vectors = {
        str(result.input["text"]): list(result.value.vector)
        for result in read_results(out, Embeddings, input=source)
    }
    assert vectors == {"a": [1.0, 0.5], "bcd": [3.0, 0.5]}
    (first, _) = read_results(out)
    assert isinstance(first.error, ResponseError)


class Animal(pydantic.BaseModel):
    legs: int


def test_values_of_a_type(out: Path) -> None:
    write(out, line("a", '{"legs": 4}'), line("b", "many"))
    good, bad = read_results(out, Animal)
    assert good.value == Animal(legs=4)
    assert good.value.legs == 4
    assert isinstance(bad.error, StructuredOutputError)
    write(out, line("a", '"yes"'), line("b", '{"value": "no"}'), line("c", '"maybe"'))
    answers = list(read_results(out, Literal["yes", "no"]))
    assert [result.value for result in answers if result.ok] == ["yes", "no"]
    assert not answers[2].ok


def test_a_reply_that_did_not_match_can_be_seen(out: Path) -> None:
    failed = {"error": {"message": "not an Animal", "type": "StructuredOutputError", "code": 200}}
    write(out, line("a", error=failed, body=completion("many")))
    (result,) = read_results(out)
    assert isinstance(result.error, RecordedError)
    assert result.error.partial is not None
    assert result.error.partial.text == "many"


@pytest.mark.parametrize(
    ("error", "response", "expected"),
    [
        # What vLLM's run-batch writes: a text, the body of an error, that of older versions.
        (
            "Request must not be sent in stream mode",
            {"status_code": 400},
            ("", 400, "Request must not be sent in stream mode"),
        ),
        (
            {"error": {"message": "too long", "type": "BadRequestError", "param": None, "code": 400}},
            {"status_code": 400},
            ("BadRequestError", 400, "too long"),
        ),
        (
            {"object": "error", "message": "old", "type": "NotFoundError", "code": 404},
            {},
            ("NotFoundError", 404, "old"),
        ),
        ({"error": "text"}, {}, ("", 200, "text")),
        ({}, {}, ("", 200, "there is no reply")),
    ],
)
def test_errors_of_run_batch(error: Any, response: Any, expected: tuple[str, int, str], out: Path) -> None:
    write(out, line("a", error=error, **response))
    (result,) = read_results(out)
    assert isinstance(result.error, RecordedError)
    assert (result.error.type, result.error.status_code, result.error.message) == expected


def test_a_line_without_reply_or_error(out: Path) -> None:
    write(out, '{"custom_id": "a", "response": null}')
    (result,) = read_results(out)
    assert str(result.error) == "there is no reply"


def test_half_characters_in_ids_and_errors(out: Path) -> None:
    source = write(out.with_name("in.jsonl"), r'{"id": "\ud800", "text": "x"}', '{"id": "b", "text": "y"}')
    write(out, line("\ud800", "one"), line("b", error={"message": "bad \udc00", "code": 400}))
    one, two = read_results(out, input=source)
    assert (one.id, one.text) == ("\ud800", "one")
    assert "bad" in str(two.error)


def test_a_line_that_is_being_written_is_left_out(out: Path) -> None:
    out.write_text(line("a", "one") + "\n" + line("b", "two"))
    assert [result.id for result in read_results(out)] == ["a"]
    source = out.with_name("in.jsonl")
    source.write_text('{"id": "b", "text": "x"}\n{"id": "a", "text": "y"}\n{"id": "c", "text": "z"}')
    (joined,) = read_results(out, input=source)
    assert (joined.index, joined.id, joined.text) == (1, "a", "one")


def test_rows_of_tables(out: Path) -> None:
    write(out, line("line-2", "one"), line("x", "two"))
    source = out.with_name("in.csv")
    source.write_text("id,question,label\n,a,1\nx,b,2\n")
    assert [(result.text, result.input) for result in read_results(out, input=source)] == [
        ("one", {"id": "", "question": "a", "label": "1"}),
        ("two", {"id": "x", "question": "b", "label": "2"}),
    ]


def test_rows_of_parquet(out: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    write(out, line("line-2", "two"), line("line-1", "one"))
    source = out.with_name("in.parquet")
    parquet.write_table(pyarrow.table({"question": ["a", "b"], "label": [1, 2]}), source)
    assert [(result.text, result.input) for result in read_results(out, input=source)] == [
        ("one", {"question": "a", "label": 1}),
        ("two", {"question": "b", "label": 2}),
    ]


@pytest.mark.parametrize(
    "content", ["precious", '{"text": "a"}', "[1]", '{"custom_id": 5, "response": null}']
)
def test_what_is_not_an_output(content: str, out: Path) -> None:
    write(out, line("a", "one"), content)
    results = read_results(out)
    assert next(results).id == "a"
    with pytest.raises(
        InvalidRequestError, match=rf"has a line that is not a result of a job: '{re.escape(content)}'\."
    ):
        next(results)


def test_a_missing_output(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_results(tmp_path / "none.jsonl")
    with pytest.raises(InvalidRequestError, match="format='xml'"):
        read_results(tmp_path / "none.jsonl", input="x", format="xml")  # type: ignore[call-overload]
