"""Jobs that read stdin or write stdout."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, cast

import pytest

from support.chats import answer_any
from support.jobs import reply
from vllmchat import InvalidRequestError, JobStoppedError, run_job

if TYPE_CHECKING:
    from pathlib import Path

    from support.scripted import ScriptedServer
    from vllmchat import ChatCompletion


class Echo:
    """A provider that replies with the prompt, until it has done enough."""

    name = "echo"

    def __init__(self, most: int | None = None) -> None:
        self.seen: list[str] = []
        self._most = most

    async def achat(self, messages: Any, **_params: Any) -> ChatCompletion:
        if len(self.seen) == self._most:
            raise KeyboardInterrupt
        text = messages if isinstance(messages, str) else messages[-1]["content"]
        self.seen.append(text)
        return reply(text)


def texts(data: bytes) -> dict[str, str]:
    lines = [json.loads(line) for line in data.splitlines()]
    found = {
        line["custom_id"]: line["response"]["body"]["choices"][0]["message"]["content"] for line in lines
    }
    assert len(found) == len(lines)
    return found


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch) -> Any:
    def give(content: str | bytes) -> None:
        class Stdin:
            buffer = io.BytesIO(content.encode() if isinstance(content, str) else content)

        monkeypatch.setattr(sys, "stdin", Stdin)

    return give


def go(provider: Any, out: Path | str, **options: Any) -> Any:
    options.setdefault("in_flight", 1)
    return run_job(provider, "-", out, **options)


def numbered(count: int, first: int = 0) -> str:
    return "".join(f"question {number}\n" for number in range(first, count))


def test_from_stdin_to_stdout(give: Any, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    give('{"id": "a", "text": "one"}\n{"id": "b", "text": "two"}\n')
    summary = go(Echo(), "-")
    assert texts(capfdbinary.readouterr().out) == {"a": "one", "b": "two"}
    assert summary.done == 2


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("one\ntwo\n", {"line-1": "one", "line-2": "two"}),
        ('\n\n  \n{"text": "one"}', {"line-4": "one"}),
        ('\ufeff{"text": "one"}', {"line-1": "one"}),
        ("[INST] one", {"line-1": "[INST] one"}),
        ("", {}),
    ],
)
def test_the_format_is_that_of_the_first_line(
    content: str, expected: dict[str, str], give: Any, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    give(content)
    go(Echo(), "-")
    assert texts(capfdbinary.readouterr().out) == expected


def test_csv_from_a_pipe(give: Any, out: Path) -> None:
    give("id,text\na,one\n")
    go(Echo(), out, format="csv")
    assert texts(out.read_bytes()) == {"a": "one"}


def test_parquet_is_not_read_from_a_pipe(out: Path) -> None:
    code = (
        "from vllmchat import VLLMProvider, run_job\n"
        f"run_job(VLLMProvider('m'), '-', {str(out)!r}, format='parquet')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=b"PAR1", capture_output=True, timeout=60, check=False
    )
    assert b"a Parquet file cannot be read from a pipe" in done.stderr


def test_an_id_twice_stops_the_job(give: Any, out: Path) -> None:
    give('{"id": "a", "text": "one"}\n{"id": "b", "text": "2"}\n{"id": "a", "text": "3"}\n')
    with pytest.raises(InvalidRequestError, match="the id 'a' in line 3 of stdin is there twice"):
        go(Echo(), out)
    assert texts(out.read_bytes()) == {"a": "one", "b": "2"}


# Going on


def test_a_job_goes_on_when_it_gets_the_same_again(give: Any, out: Path) -> None:
    give(numbered(20))
    with pytest.raises(KeyboardInterrupt):
        go(Echo(most=7), out)
    assert len(texts(out.read_bytes())) == 7
    give(numbered(20))
    second = Echo()
    summary = go(second, out)
    assert (summary.skipped, summary.done) == (7, 13)
    assert len(second.seen) == 13
    assert texts(out.read_bytes()) == {f"line-{number + 1}": f"question {number}" for number in range(20)}
    assert sorted(each.name for each in out.parent.iterdir()) == [
        *("out.jsonl", "out.jsonl.job", "out.jsonl.stdin"),
    ]


def test_more_may_follow(give: Any, out: Path) -> None:
    """Such as the rest of what a program writes that was stopped too."""
    give(numbered(5))
    go(Echo(), out)
    give(numbered(8))
    llm = Echo()
    go(llm, out)
    assert llm.seen == ["question 5", "question 6", "question 7"]


def test_a_line_that_is_another_is_refused_before_it_is_sent(give: Any, out: Path) -> None:
    give(numbered(10))
    go(Echo(), out)
    before = out.read_bytes()
    give(numbered(4) + "something else\n" + numbered(10, 5))
    llm = Echo()
    with pytest.raises(
        InvalidRequestError,
        match=r"line 5 of the pipe is not what it was when .*out\.jsonl was written.*force=True",
    ):
        go(llm, out)
    assert llm.seen == []
    assert out.read_bytes() == before
    give(numbered(4) + "something else\n" + numbered(12, 5))
    go(llm, out, force=True)
    # Their ids are done.
    assert llm.seen == ["question 10", "question 11"]
    # From then on it is the job of this input.
    give(numbered(4) + "something else\n" + numbered(12, 5))
    assert go(Echo(), out).skipped == 12


def test_an_input_that_was_not_done_is_compared_too(give: Any, out: Path) -> None:
    give(numbered(5))
    with pytest.raises(KeyboardInterrupt):
        go(Echo(most=1), out)
    give("another\n" + numbered(5, 1))
    with pytest.raises(InvalidRequestError, match="line 1 of the pipe"):
        go(Echo(), out)


def test_a_pipe_does_not_go_on_with_the_output_of_a_file(give: Any, out: Path) -> None:
    path = out.parent / "in.txt"
    path.write_text(numbered(2))
    run_job(cast("Any", Echo()), path, out)
    give(numbered(2))
    with pytest.raises(InvalidRequestError, match="has results for another input"):
        go(Echo(), out)


def test_what_is_left_of_an_older_output_does_not_count(give: Any, out: Path) -> None:
    give(numbered(3))
    go(Echo(), out)
    out.unlink()
    give("new\n")
    assert go(Echo(), out).done == 1


def test_a_long_line_is_compared_as_one(give: Any, out: Path) -> None:
    content = b"x" * 3_000_000 + b"\nshort\nend"
    give(content)
    assert go(Echo(), out, max_line_bytes=1000).failed == 1
    give(content)
    assert go(Echo(), out, max_line_bytes=1000).done == 0
    assert (out.parent / "out.jsonl.stdin").stat().st_size == 3 * 8
    give(content.replace(b"xx\n", b"xy\n"))
    with pytest.raises(InvalidRequestError, match="line 1 of the pipe"):
        go(Echo(), out, max_line_bytes=1000)


def test_in_prefix_order(give: Any, out: Path) -> None:
    lines = [f"{letter * 300}{number}\n" for number in range(3) for letter in "ab"]
    give("".join(lines))
    llm = Echo()
    go(llm, out, order="prefix")
    assert [text[0] for text in llm.seen].count("a") == 3
    assert {"".join(text[0] for text in llm.seen[-2:])} <= {"aa", "bb"}


PIPED = """
import sys
from vllmchat import VLLMProvider, run_job

llm = VLLMProvider("m", base_url=sys.argv[1])
run_job(llm, "-", sys.argv[2], in_flight=4, temperature=0)
"""


def test_killed_in_between(scripted: ScriptedServer, out: Path) -> None:
    scripted.always(answer_any)
    command = [sys.executable, "-c", PIPED, scripted.base_url, str(out)]
    for kill in range(4):
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdin is not None
            # The pipe is still open: more would follow.
            process.stdin.write(numbered(20 * (kill + 1)).encode())
            process.stdin.flush()
            scripted.wait_requests(len(scripted.requests) + 3, 20)
            process.send_signal(signal.SIGKILL)
            process.stdin.close()
            assert process.wait(20) == -signal.SIGKILL
    subprocess.run(command, input=numbered(200).encode(), check=True, timeout=60)
    assert texts(out.read_bytes()) == {f"line-{number + 1}": f"question {number}" for number in range(200)}


# Stdout


HEAD = """
import sys
from vllmchat import VLLMProvider, run_job

llm = VLLMProvider("m", base_url=sys.argv[1])
summary = run_job(llm, sys.argv[2], "-", in_flight=4)
print(summary.done, file=sys.stderr)
"""


def test_a_reader_that_has_enough_ends_the_job(scripted: ScriptedServer, tmp_path: Path) -> None:
    scripted.always(answer_any)
    path = tmp_path / "in.txt"
    path.write_text(numbered(5000))
    command = [sys.executable, "-c", HEAD, scripted.base_url, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"custom_id" in process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(60) == 0, said
    assert 0 < int(said) < 5000
    assert len(scripted.requests) < 5000


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_an_output_that_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text(numbered(3))
    assert run_job(cast("Any", Echo()), path, "/dev/null").done == 3
    with pytest.raises(JobStoppedError, match="cannot write to /dev/full: No space left on device"):
        run_job(cast("Any", Echo()), path, "/dev/full")
    assert not os.path.exists("/dev/null.job")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_an_input_that_is_a_named_pipe(tmp_path: Path, out: Path) -> None:
    """As <(zcat in.jsonl.gz) is in a shell."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen(["sh", "-c", f"printf 'one\\ntwo\\n' > {fifo}"]):
        assert run_job(cast("Any", Echo()), fifo, out).done == 2
    assert texts(out.read_bytes()) == {"line-1": "one", "line-2": "two"}
