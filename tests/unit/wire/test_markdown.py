"""What a notebook shows of replies and streams."""

from __future__ import annotations

import re
from time import process_time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, strategies as st

from support.chats import answer_any
from vllmchat import ChatCompletion, Generation, ModelResponse, TextCompletion, Transcription, VLLMProvider
from vllmchat.testing import ScriptedProvider, tool_call
from vllmchat.wire import markdown

if TYPE_CHECKING:
    from support.runners import Runner
    from support.scripted import ScriptedServer
    from vllmchat import ToolCall

# The names of notebooks begin with an underscore.
# pyright: reportPrivateUsage=false


def reply(**message: object) -> ChatCompletion:
    return ChatCompletion.model_validate({"choices": [{"message": message}]})


def test_reasoning_text_and_calls() -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": '{"a": "<b>```"}'}}
    shown = reply(content="\n\n**Hi**\n", reasoning="Hm.\n\n- so", tool_calls=[call])._repr_markdown_()
    assert shown == (
        "> *Reasoning*\n>\n> Hm.\n>\n> - so\n\n"
        "**Hi**\n\n"
        '````\nf({"a": "<b>```"})\n````'
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("A & B, AT&T and R&D;", "A & B, AT&amp;T and R&amp;D;"),
        ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>"),
        (r"\<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)>"),
        (r"\\<img>", r"\\&lt;img>"),
        ("[x](javascript:alert(1))", "[x](javascript :alert(1))"),
        (r"[x](JavaScript\:alert(1))", r"[x](JavaScript \:alert(1))"),
        ("[x](javascript&colon;alert(1))", "[x](javascript&amp;colon;alert(1))"),
        ("In JavaScript: yes", "In JavaScript: yes"),
        ("`a` and ``b`c``", "`a` and ``b`c``"),
        ("`List<int>`", "<code>List&#60;int&#62;</code>"),
        ("`a\n<b>`", "`a\n&lt;b>`"),
        ("```html\n<b>\n```", "```html\n<b>\n```"),
        ("~~~\n<b>\n```\n~~~", "````\n<b>\n```\n````"),
        ("a\n```py\n<b>\n```\nb", "a\n\n```py\n<b>\n```\n\nb"),
        ("1. a\n   ```\n   <b>\n     c\n d\n   ```\n2. b", "1. a\n\n```\n<b>\n  c\nd\n```\n\n2. b"),
        ("- ```\n  <b>\n  ```\n<i>", "-\n\n```\n<b>\n```\n\n&lt;i>"),
        ("> ```\n> <b>\n<i>", "> <pre><code>&#60;b&#62;\n> </code></pre>\n\n&lt;i>"),
        ("> ```py\n> a\n> ```", "> ```py\n> a\n> ```"),
        ("```py\ncut <", "```py\ncut <\n```"),
        ("```a`b\n<b>", "```a`b\n&lt;b>"),
        ("```\r<b>\r\n```\r<i>", "```\n<b>\n```\n\n&lt;i>"),
        (r"\(a<b\) \[ c & d &lt; \]", r"$a\lt b$ $$ c & d & lt; $$"),
        ("$a<b$ and $$\na<b\n$$", "$a\\lt b$ and $$\na\\lt b\n$$"),
        ("$5 < $6", "$5 &lt; $6"),
    ],
)
def test_the_text_of_a_model(text: str, shown: str) -> None:
    assert reply(content=text)._repr_markdown_() == shown


def test_a_block_that_was_cut_does_not_hide_what_follows() -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": "{}"}}
    shown = reply(content="```py\nx = ", reasoning="~~~\ny", tool_calls=[call])._repr_markdown_()
    assert (
        shown
        == "> *Reasoning*\n>\n> ```\n> y\n> ```\n\n```py\nx = \n```\n\n```\nf({})\n```"
    )  # fmt: skip


PIECES = [
    "`",
    "```",
    "~~~",
    "\n",
    "\n\n",
    "  ",
    "\t",
    "> ",
    "- ",
    "1. ",
    "\\",
    "$",
    "$$",
    "\\(",
    "\\)",
    "|",
    "a",
    "\r",
]
HTML = ["<script>", "</code>", "<img onerror=x>", "<!--", "&lt;", "&", " javascript:x"]


@given(st.lists(st.sampled_from(PIECES + HTML)).map("".join))
def test_html_is_escaped_outside_of_code(text: str) -> None:
    inside = ""
    for line in markdown.safe(text).split("\n"):
        content = re.sub("^(> )+|^>+$", "", line)
        fence = re.fullmatch("(`{3,})[^`]*", content)
        if inside:
            inside = "" if content == inside else inside
        elif fence is not None:
            inside = fence[1]
        else:
            assert "<" not in re.sub("<code>[^<`]*</code>|<pre><code>|</code></pre>", "", line)
            assert "javascript:x" not in line
    assert not inside


@pytest.mark.parametrize(
    "piece",
    ["`", "$", "\\(", "\\[ \n", "> ", "\n> ", "``` `", "\n- ```", "- ", "`a``b", "&", "\\", "$$a\n", " "],
)
def test_the_time_grows_with_the_length(piece: str) -> None:
    start = process_time()
    assert markdown.reply("x" + piece * 30_000)
    assert process_time() - start < 3


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        (reply(content=None), None),
        (TextCompletion.model_validate({"choices": [{"text": "a <"}, {"text": "b"}]}), "a &lt;\n\nb"),
        (Transcription.model_validate({"text": "a <"}), "a &lt;"),
        (Generation.model_validate({"choices": [{"token_ids": [1]}]}), None),
        (Generation.model_validate({"choices": [{"text": "a"}, {"message": {"content": "b"}}]}), "a\n\nb"),
        (
            ModelResponse.model_validate({"output": [
                {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm"}]},
                {"type": "message", "content": [{"type": "output_text", "text": "a <"}]},
                {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c"},
            ]}),
            "> *Reasoning*\n>\n> Hm\n\na &lt;\n\n```\nf({})\n```",
        ),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_other_results(result: Any, shown: str | None) -> None:
    assert result._repr_markdown_() == shown
    assert not hasattr(result, "_repr_html_")


def test_a_stream_shows_what_has_arrived_and_its_state(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.always(answer_any)
    llm = VLLMProvider("m", base_url=scripted.base_url)
    stream = runner.stream(llm)
    name = type(stream.inner).__name__
    assert stream.inner._repr_markdown_() == f"*{name}: not started*"
    with stream:
        next(iter(stream))
        assert stream.inner._repr_markdown_().endswith(f"*{name}: open*")
        list(stream)
        text = stream.inner.completion.text
        assert stream.inner._repr_markdown_() == f"{text}\n\n*{name}: complete*"
    runner.close(llm)


def weather(city: str) -> str:
    """Returns the weather."""
    return f"<sunny> in {city}"


def test_a_tool_run_shows_replies_and_results() -> None:
    answers: list[ToolCall | str] = [tool_call("weather", {"city": "Paris"}), "**Sunny**"]
    call = '```\nweather({"city":"Paris"})\n```'
    run = ScriptedProvider(answers).run_tools("Weather?", tools=[weather])
    assert run._repr_markdown_() == f"{call}\n\n```\n<sunny> in Paris\n```\n\n**Sunny**"
    stream = ScriptedProvider(answers).stream_run_tools("Weather?", tools=[weather])
    assert stream._repr_markdown_() == "*ToolRunStream: open*"
    stream.until_done()
    assert stream._repr_markdown_() == f"{run._repr_markdown_()}\n\n*ToolRunStream: complete*"
    with ScriptedProvider(answers).stream_run_tools("Weather?", tools=[weather]) as left:
        next(left)
    assert left._repr_markdown_().endswith("*ToolRunStream: closed before its end*")


def test_a_parsed_stream_shows_the_reply_so_far() -> None:
    with ScriptedProvider(["[1, 2]"]).stream_parse("x", list[int]) as stream:
        list(stream)
        assert stream._repr_markdown_() == "[1, 2]\n\n*ChatStream: complete*"
