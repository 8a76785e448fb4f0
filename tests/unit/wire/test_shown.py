"""What a REPL and a notebook show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from support import recordings
from support.chats import answer_any
from vllmchat import ChatCompletion, Classifications, Embeddings, Ranking, Scores, VLLMProvider
from vllmchat.chat.completion import decode_completion
from vllmchat.server.metrics import MetricFamily, Metrics, MetricSample

if TYPE_CHECKING:
    from support.runners import Runner
    from support.scripted import ScriptedServer

# The names of notebooks begin with an underscore.
# pyright: reportPrivateUsage=false

EVIL = "<script>alert(1)</script>"


BUCKET = MetricSample("a_bucket", {}, 1.0)


def reply(**message: object) -> ChatCompletion:
    return ChatCompletion.model_validate({"choices": [{"message": message}], "a_new_field": 5})


def test_a_reply_shows_what_it_has() -> None:
    shown = repr(reply(content="Hello"))
    assert shown == str(reply(content="Hello"))
    assert shown.startswith("ChatCompletion(")
    assert "content='Hello'" in shown
    assert "a_new_field=5" in shown
    assert "=None" not in shown
    assert "=[]" not in shown


def test_nothing_that_is_set_is_lost() -> None:
    completion = decode_completion(recordings.load("chat_tool_calls_parallel").body)
    shown = repr(completion)
    assert "None" not in shown
    for each in completion.tool_calls:
        assert each.id in shown
        assert repr(each.arguments) in shown
    assert len(shown) < 1000


@pytest.mark.parametrize(
    ("result", "rows"),
    [
        (Embeddings.model_validate({"data": [{"index": 0, "embedding": [0.5, 1, 2, 3, 4]}]}),
         "<td>0</td><td>5</td><td>0.5, 1, 2, 3</td>"),
        (Scores.model_validate({"data": [{"index": 1, "score": 0.25}]}), "<td>1</td><td>0.25</td>"),
        (Ranking.model_validate({"results": [{"index": 1, "relevance_score": 0.5, "document": {"text": EVIL}}]}),
         "<td>1</td><td>0.5</td><td>&lt;script&gt;alert(1)&lt;/script&gt;</td>"),
        (Classifications.model_validate({"data": [{"index": 0, "label": EVIL, "probs": [0.25, 0.75]}]}),
         "<td>0</td><td>&lt;script&gt;alert(1)&lt;/script&gt;</td><td>0.75</td>"),
        (Metrics([MetricFamily("a", "gauge", "", (MetricSample("a", {"k": EVIL}, 2.0), BUCKET))]),
         "<tbody><tr><td>a</td><td>k=&lt;script&gt;alert(1)&lt;/script&gt;</td><td>2</td></tr></tbody>"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_tables(result: Any, rows: str) -> None:
    shown = result._repr_html_()
    assert rows in shown
    assert "<script>" not in shown


def test_a_long_table_is_cut() -> None:
    scores = Scores.model_validate({"data": [{"index": index, "score": 0.5} for index in range(100)]})
    shown = scores._repr_html_()
    assert shown.count("<tr>") == 61
    assert shown.endswith("<div>and 40 more</div>")


def test_old_names_of_pydantic_are_not_offered() -> None:
    names = dir(reply(content="x"))
    assert {"text", "message", "model_dump", "choices"} <= set(names)
    assert not {"dict", "json", "parse_raw", "construct", "copy"} & set(names)


def test_a_stream_shows_its_state(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.always(answer_any)
    llm = VLLMProvider("m", base_url=scripted.base_url)
    stream = runner.stream(llm)
    name = type(stream.inner).__name__
    assert repr(stream.inner) == f"<{name}: not started>"
    with stream:
        next(iter(stream))
        assert repr(stream.inner) == f"<{name}: open>"
        list(stream)
        assert repr(stream.inner) == f"<{name}: complete>"
    with runner.stream(llm) as left:
        pass
    assert repr(left.inner) == f"<{name}: closed before its end>"
    runner.close(llm)


def test_a_reply_is_compared_with_anything() -> None:
    reply = ChatCompletion()
    assert reply == ChatCompletion()
    assert reply not in ([], "reply", None)
