"""What is in files: templates, JSONL, CSV and Parquet as they are found."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from vllmchat import InvalidRequestError
from vllmchat.jobs.records import format_of, read_records
from vllmchat.jobs.routes import CHAT
from vllmchat.jobs.template import Template

if TYPE_CHECKING:
    from pathlib import Path

    from vllmchat.jobs.records import Format, Record


def read(
    content: str | bytes,
    kind: Format | None,
    prompt: str | None = None,
    system: str | None = None,
    **options: Any,
) -> list[Record]:
    raw = content.encode() if isinstance(content, str) else content
    return list(read_records(io.BytesIO(raw), kind, Template(prompt, system), **options))


def text_of(record: Record) -> str:
    """The prompt of a record, or its error."""
    if record.error is not None:
        return f"! {record.error}"
    messages: Any = record.body["messages"]
    return messages if isinstance(messages, str) else messages[-1]["content"]


def texts(records: list[Record]) -> dict[str, str]:
    return {record.id: text_of(record) for record in records}


# Templates


ROW = {
    "text": "cat",
    "n": 7,
    "price": 0.5,
    "yes": True,
    "none": None,
    "list": ["a", {"b": "ä"}],
    "object": {"key": "value", "0": "zero", "deep": {"er": [1, 2]}},
    "a.b": "dotted",
    "0": "first",
    "two words": "spaces",
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("", ""),
        ("no field", "no field"),
        ("{text}, {text}!", "cat, cat!"),
        ("{{{text}}}", "{cat}"),
        ("{n} {price} {yes}", "7 0.5 true"),
        ("{price:.2f} {n:03} {text:>5}", "0.50 007   cat"),
        ("{list}", '["a", {"b": "ä"}]'),
        ("{list[0]} {list[1][b]}", "a ä"),
        ("{object[key]} {object[0]} {object[deep][er][1]}", "value zero 2"),
        ("{a.b} {0} {two words}", "dotted first spaces"),
    ],
)
@pytest.mark.filterwarnings("ignore:prompt=.*has no field")
def test_a_template_is_filled(template: str, expected: str) -> None:
    assert text_of(*read(json.dumps(ROW), "jsonl", template)) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{nothing}", "the row has no 'nothing', which the prompt needs; it has text, n, "),
        ("{none}", "'none' is null, and the prompt needs it."),
        ("{object[other]}", "the row has no 'object[other]', which the prompt needs."),
        ("{list[5]}", "the row has no 'list[5]', which the prompt needs."),
        ("{list[-1]}", "the row has no 'list[-1]', which the prompt needs."),
        ("{text[0]}", "the row has no 'text[0]', which the prompt needs."),
        ("{n[0]}", "the row has no 'n[0]', which the prompt needs."),
        (
            "{text:d}",
            f"'text' is the text {ROW['text']!r}, which cannot be formatted as 'd'. Values in a CSV",
        ),
        ("{list:5}", "'list' cannot be formatted as '5': "),
        # Attributes are those of Python, not of the row.
        ("{text.__class__}", "the row has no 'text.__class__', which the prompt needs"),
        ("{object[deep].__class__}", "the row has no 'object[deep].__class__', which the prompt needs"),
        ("{object[__class__]}", "the row has no 'object[__class__]', which the prompt needs."),
    ],
)
def test_a_row_without_a_field_is_a_failure(template: str, expected: str) -> None:
    assert text_of(*read(json.dumps(ROW), "jsonl", template)).startswith(f"! {expected}")


@pytest.mark.parametrize("template", ["{", "}", "{}", "{:5}", "{text", "{text!r}", "{text:{n}}", "{[a]}"])
def test_a_wrong_template_is_found_first(template: str) -> None:
    for arguments in ((template, None), (None, template)):
        with pytest.raises(InvalidRequestError, match=r"Write {field} for a field, and {{ for a brace\."):
            Template(*arguments)


def test_a_system_message_before_a_conversation() -> None:
    conversation = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    rows = [{"messages": conversation, "who": "cat"}, {"messages": "three", "who": "dog"}]
    found = read("\n".join(map(json.dumps, rows)), "jsonl", system="Be a {who}.")
    system = {"role": "system", "content": "Be a cat."}
    assert found[0].body["messages"] == [system, *conversation]
    assert text_of(found[1]) == "three"


REQUEST = '{"custom_id": "a", "url": "/v1/completions", "body": {"prompt": "p"}}'


def test_with_a_prompt_rows_are_data() -> None:
    """Also if they look like requests: articles have a `url` and a `body`."""
    assert text_of(*read("url,body\nhttp://a,text\n", "csv", "{url}: {body}")) == "http://a: text"
    assert text_of(*read(REQUEST, "jsonl", "{body[prompt]}")) == "p"
    (record,) = read(REQUEST, "jsonl")
    assert (record.url, record.body) == ("/v1/completions", {"prompt": "p"})


def test_a_system_message_for_requests_is_not_left_out_silently() -> None:
    message = "system: the input has requests with messages of their own"
    assert message in text_of(*read(REQUEST, "jsonl", system="s"))
    with pytest.raises(InvalidRequestError, match=message):
        read("url,body\n", "csv", system="s")


def test_what_a_route_cannot_have() -> None:
    with pytest.raises(InvalidRequestError, match="system: /v1/embeddings has no system message"):
        Template(system="s", url="/v1/embeddings")
    with pytest.raises(InvalidRequestError, match="prompt: /score has no prompt"):
        Template("p", url="/score")


# JSONL


def test_lines_end_with_a_line_feed_only() -> None:
    """Also where Python's own lines would end."""
    content = '{"text": "a\u2028b\u2029c\u0085d\\n\\re"}\r\n\r\n   \n{"text": "\\u000b"}\r\n{"text": "end"}'
    assert texts(read(content, "jsonl")) == {
        "line-1": "a\u2028b\u2029c\u0085d\n\re",
        "line-4": "\x0b",
        "line-5": "end",
    }
    assert texts(read("a\u2028b\x0bc\x0cd\u0085e\r\nf", "text")) == {
        "line-1": "a\u2028b\x0bc\x0cd\u0085e",
        "line-2": "f",
    }


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"text": "a", "temperature": NaN}', "line 1 is not JSON: NaN is not a number in JSON."),
        ('{"text": "a", "x": -Infinity}', "line 1 is not JSON: -Infinity is not a number in JSON."),
        ('"text"', "line 1 is not a JSON object, but a str."),
        ("null", "line 1 is not a JSON object, but None."),
        ('{"text": "a"} {"text": "b"}', "line 1 is not JSON: Extra data"),
        ('{"a":' * 100_000, "line 1 is not JSON: "),
        ('{"n": ' + "1" * 5000 + "}", "line 1 is not JSON: Exceeds the limit"),
        ('{"id": ["x"], "text": "a"}', "line 1: an id must be a text or a number, not a list."),
        (
            '{"custom_id": "a", "url": "/v1/completions", "body": []}',
            "line 1: url must be a string and body an object",
        ),
    ],
)
def test_lines_that_are_not_json(line: str, expected: str) -> None:
    found = read(f'{line}\n{{"text": "good"}}', "jsonl")
    assert text_of(found[0]).startswith(f"! {expected}")
    assert text_of(found[1]) == "good"


def test_ids_are_texts() -> None:
    ids = (
        '"id": 1',
        '"id": "1a"',
        '"id": 1.5',
        '"id": 0',
        '"id": null',
        '"custom_id": "c", "id": 3',
        '"id": ""',
    )
    found = read("\n".join(f'{{{each}, "text": "t"}}' for each in ids), "jsonl")
    assert [record.id for record in found] == ["1", "1a", "1.5", "0", "line-5", "c", ""]


def test_the_last_of_equal_keys_counts() -> None:
    assert texts(read('{"text": "first", "text": "last"}', "jsonl")) == {"line-1": "last"}


def test_a_byte_order_mark() -> None:
    assert texts(read(b'\xef\xbb\xbf{"text": "a"}\n', "jsonl")) == {"line-1": "a"}
    assert texts(read(b"\xef\xbb\xbfa\n", "text")) == {"line-1": "a"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}'.encode("utf-16"), r"UTF-16, not UTF-8\. Convert it: iconv"),
        (b"\xfe\xff\0{", r"UTF-16, not UTF-8"),
        (b"\x28\xb5\x2f\xfdabc", "not text, but zstd. Decompress it first"),
        (gzip.compress(b"abc", mtime=0), "not text, but gzip"),
        (b"PK\x03\x04abc", "a ZIP archive or a spreadsheet"),
        (b"PAR1abc", r'Parquet\. Name it \.parquet, or pass format="parquet"'),
    ],
)
@pytest.mark.parametrize("kind", ["jsonl", "text", "csv", None])
def test_what_is_not_text(content: bytes, message: str, kind: Format | None) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        read(content, kind)


def test_one_json_array() -> None:
    for content in ('[{"text": "a"}]', '\n[\n  {"text": "a"}\n]'):
        with pytest.raises(InvalidRequestError, match=r"one JSON array\. .* jq -c"):
            read(content, "jsonl")


def test_names_of_files() -> None:
    names = ("a.jsonl.gz", "a.CSV.GZ", "a.tsv", "a.gz", "/dev/fd/63", "dir.jsonl/a")
    assert [format_of(name) for name in names] == ["jsonl", "csv", "csv", "text", None, "text"]


# CSV


def test_csv_with_quotes_and_line_breaks() -> None:
    content = '\ufefftext,id\r\n"one, ""two""",a\r\n"three\r\nfour",b\r\n\r\n,c\r\nfive,\r\n'
    assert texts(read(content, "csv", "<{text}>")) == {
        "a": '<one, "two">',
        "b": "<three\r\nfour>",
        "c": "<>",
        "line-7": "<five>",
    }


def test_numbers_in_csv_are_texts() -> None:
    (record,) = read("id,text,n\n007,1e3,0.10\n", "csv", "{text} {n}")
    assert (record.id, text_of(record)) == ("007", "1e3 0.10")


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators(separator: str) -> None:
    content = f'text{separator}note\n"a{separator}b, c"{separator}x\n'
    assert texts(read(content, "csv", "{text}-{note}")) == {"line-2": f"a{separator}b, c-x"}


def test_the_other_columns_of_a_table_are_data() -> None:
    (record,) = read("text,temperature,label\na,hot,5\n", "csv")
    assert record.body == {"messages": "a"}


def test_rows_that_do_not_fit_the_header() -> None:
    content = "text,note\na,1\nb\nc,1,2\nd,2\n"
    found = texts(read(content, "csv", "{text}"))
    assert found["line-2"] == "a"
    assert found["line-3"].startswith("! line 3 has 1 field, and the header 2. Put a field that has commas")
    assert found["line-4"].startswith("! line 4 has 3 fields, and the header 2.")
    assert found["line-5"] == "d"


def test_csv_that_is_broken_in_the_middle() -> None:
    content = b'text\na\nb\xe4\n"c" d\n"e\0f"\n' + b"x" * 3000 + b"\ng\n"
    found = texts(read(content, "csv", "{text}", limit=1000))
    assert found["line-2"] == "a"
    assert found["line-3"] == "! line 3 is not UTF-8: invalid continuation byte at byte 1."
    assert found["line-4"].startswith("! line 4 is not CSV: ")
    assert found["line-5"] == "e\0f"
    assert found["line-6"] == "! line 6 is longer than 1,000 bytes."
    assert found["line-7"] == "g"
    open_quote = texts(read('text\na\n"b\nc\n', "csv"))
    assert open_quote["line-2"] == "a"
    assert open_quote["line-3"].startswith("! line 3 is not CSV: ")


def test_a_quote_that_stays_open_is_bounded() -> None:
    content = 'text\n"' + "a line\n" * 100_000
    found = read(content, "csv", limit=1 << 18)
    assert any(record.error is not None and "is not CSV" in str(record.error) for record in found)


def test_a_long_field() -> None:
    long = "x" * 300_000
    assert text_of(*read(f"text\n{long}\n", "csv")) == long
    assert csv.field_size_limit() >= 300_000


@pytest.mark.parametrize("content", ["", "\n\n", "text", "text\n", "\ufefftext\r\n"])
def test_csv_without_rows(content: str) -> None:
    assert read(content, "csv") == []


@pytest.mark.parametrize(
    ("content", "prompt", "message"),
    [
        ("text,a,text\n1,2,3\n", "{text}", "the input has the column 'text' twice: text, a, text"),
        (
            "text,a\n1,2\n",
            "{txt} {other}",
            "the input has no column 'txt', 'other', which the prompt needs; it has text, a",
        ),
        (
            "question,a\n1,2\n",
            None,
            r"the input has no messages, prompt or text, but question, a\. Pass prompt=",
        ),
        (b"t\xe4xt,a\n1,2\n", None, "line 1 is not UTF-8"),
    ],
)
def test_wrong_columns_are_found_first(content: str | bytes, prompt: str | None, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        read(content, "csv", prompt)


# Parquet


@pytest.fixture
def parquet(tmp_path: Path) -> Any:
    """Writes a table, and reads its records."""
    pyarrow = pytest.importorskip("pyarrow")
    writer = pytest.importorskip("pyarrow.parquet")

    def parquet(columns: dict[str, Any], prompt: str | None = None, **options: Any) -> list[Record]:
        path = tmp_path / "in.parquet"
        writer.write_table(pyarrow.table(columns), path, **options)
        with path.open("rb") as file:
            return list(read_records(file, "parquet", Template(prompt)))

    return parquet


def test_parquet_with_all_kinds_of_columns(parquet: Any) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    found = parquet(
        {
            "id": pyarrow.array([10, None, 30], pyarrow.int64()),
            "text": pyarrow.array(["a", "b", None]).dictionary_encode(),
            "at": pyarrow.array([moment] * 3, pyarrow.timestamp("ns", tz="UTC")),
            "took": pyarrow.array([1_500_000_001] * 3, pyarrow.duration("ns")),
            "cost": pyarrow.array([1.5, 2.5, 3.5], pyarrow.float32()),
            "tags": [["x"], [], ["y", "z"]],
        },
        "{text} {at} {took} {cost} {tags}",
    )
    assert texts(found) == {
        "10": 'a 2026-01-02 03:04:05+00:00 0:00:01.500000 1.5 ["x"]',
        "line-2": "b 2026-01-02 03:04:05+00:00 0:00:01.500000 2.5 []",
        "30": "! the row has no 'text', which the prompt needs; it has id, at, took, cost, tags.",
    }


def test_conversations_in_parquet(parquet: Any) -> None:
    """What a message lacks is null there."""
    conversation = [
        {"role": "user", "content": "one", "name": None},
        {"role": "assistant", "content": "two", "name": "bot"},
    ]
    (record,) = parquet({"messages": [conversation], "score": [0.5]})
    assert record.body == {
        "messages": [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "two", "name": "bot"},
        ]
    }


def test_requests_in_parquet(parquet: Any) -> None:
    body = {"input": "text", "dimensions": 8}
    (record,) = parquet({"custom_id": ["a"], "url": ["/v1/embeddings"], "body": [body]})
    assert (record.id, record.url, record.body) == ("a", "/v1/embeddings", body)


def test_only_the_columns_that_are_needed_are_read(parquet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = pytest.importorskip("pyarrow.parquet").ParquetFile
    real = reader.iter_batches
    seen: list[Any] = []

    def iter_batches(self: Any, *args: Any, **options: Any) -> Any:
        seen.append(options["columns"])
        return real(self, *args, **options)

    monkeypatch.setattr(reader, "iter_batches", iter_batches)
    image = [b"x" * 1000]
    parquet({"image": image, "text": ["a"], "id": [1]}, "{text}")
    parquet({"image": image, "text": ["a"], "id": [1]})
    assert seen == [["text", "id"], ["text", "id"]]


def test_wrong_columns_of_parquet_are_found_first(parquet: Any) -> None:
    with pytest.raises(
        InvalidRequestError, match="the input has no column 'txt', which the prompt needs; it has text"
    ):
        parquet({"text": ["a"]}, "{txt}")
    with pytest.raises(InvalidRequestError, match="the input has no messages, prompt or text, but question"):
        parquet({"question": ["a"]})
    assert parquet({"text": []}) == []


def test_parquet_that_is_broken(parquet: Any, tmp_path: Path) -> None:
    parquet({"text": [f"{number} " * 100 for number in range(5000)]}, compression="snappy")
    path = tmp_path / "in.parquet"
    whole = path.read_bytes()
    wrong = bytearray(whole)
    wrong[1000:2000] = b"\xff" * 1000
    for content in (b"", b"PAR1", b"text\n", whole[: len(whole) // 2], bytes(wrong)):
        with pytest.raises(InvalidRequestError, match="the input is not a whole Parquet file"):
            read(content, "parquet")


def test_a_large_parquet_file_is_read_by_and_by(parquet: Any, tmp_path: Path) -> None:
    """Also if it has one row group."""
    pyarrow = pytest.importorskip("pyarrow")
    rows = 40_000
    text = "x" * 1000
    parquet(
        {"text": [f"{number} {text}" for number in range(rows)]}, compression="none", use_dictionary=False
    )
    count, most = 0, 0
    tracemalloc.start()
    start = pyarrow.total_allocated_bytes()
    with (tmp_path / "in.parquet").open("rb") as file:
        for record in read_records(file, "parquet", Template()):
            count += record.error is None
            most = max(most, pyarrow.total_allocated_bytes() - start)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == rows
    assert most < 8_000_000
    assert peak < 8_000_000


def test_each_route_has_its_field() -> None:
    bodies = {
        CHAT: {"messages": "a"},
        "/v1/completions": {"prompt": "a"},
        "/v1/responses": {"input": "a"},
        "/v1/embeddings": {"input": "a"},
    }
    for url, body in bodies.items():
        for kind, content in (("text", "a"), ("jsonl", '{"text": "a"}'), ("csv", "text\na\n")):
            (record,) = read_records(io.BytesIO(content.encode()), kind, Template(url=url))  # type: ignore[arg-type]
            assert (record.url, record.body) == (url, body)
    (record,) = read_records(
        io.BytesIO(b'{"id": 1, "query": "q", "documents": ["d"]}'), "jsonl", Template(url="/rerank")
    )
    assert record.body == {"query": "q", "documents": ["d"]}
    (record,) = read_records(
        io.BytesIO(b'{"input": ["a", "b"], "dimensions": 2}'), "jsonl", Template(url="/v1/embeddings")
    )
    assert record.body == {"input": ["a", "b"], "dimensions": 2}
