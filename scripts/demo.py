"""Watch the typed client talk to a real vLLM server: `make demo`.

It installs the server where it is missing, starts it, shows five things in one terminal screen, and stops it again,
also on Ctrl-C. It prints colors on a terminal only, and none if `NO_COLOR` is set.
"""

from __future__ import annotations

import asyncio
import os
import sys
import textwrap
from typing import TextIO

from cached_env import InstallError, cache_dir, say_to_stderr
from vllm_server import VLLM_VERSION, Options, Server, ServerError, running
from vllmchat import (
    FunctionTool,
    InvalidRequestError,
    Message,
    ReasoningDelta,
    TextDelta,
    VLLMProvider,
    __version__,
    tool_message,
)

WIDTH = 98
"""Columns; the model's words are wrapped here and not where the terminal ends."""

WEATHER: FunctionTool = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
KNOWN_WEATHER = {"Paris": "21 C, sunny", "Oslo": "4 C, rain"}


class Screen:
    """Writes to a terminal: shades where it has them, lines that break between words."""

    BOLD, DIM, CYAN, RED, PLAIN = "1", "2", "36", "31", ""

    def __init__(self, out: TextIO, *, color: bool) -> None:
        self._out = out
        self._color = color
        self._column = 0
        self._shade = self.PLAIN

    def line(self, text: str = "", shade: str = PLAIN) -> None:
        """Write a line of its own; a long one is broken and indented."""
        self.end()
        for row in textwrap.wrap(text, WIDTH, subsequent_indent="    ") or [""]:
            self._out.write(self._shaded(row, shade) + "\n")

    def heading(self, text: str) -> None:
        """Begin a new part."""
        self.line()
        self.line(text, self.BOLD)

    def code(self, *lines: str) -> None:
        """Show what is run."""
        for number, text in enumerate(lines):
            self.line(f"{'... ' if number else '>>> '}{text}", self.CYAN)

    def piece(self, text: str, shade: str = PLAIN) -> None:
        """Go on with a text, at once; another shade than before begins a new line."""
        if shade != self._shade:
            self.end()
            self._shade = shade
        if not self._column:
            text = text.lstrip()
        if self._column + len(text) > WIDTH and text.startswith(" "):
            self.end()
            text = text[1:]
        self._out.write(self._shaded(text, shade))
        self._out.flush()
        self._column += len(text)

    def end(self) -> None:
        """End the line that `piece` was writing, if there is one."""
        if self._column:
            self._out.write("\n")
            self._column = 0

    def _shaded(self, text: str, shade: str) -> str:
        return f"\033[{shade}m{text}\033[0m" if self._color and shade and text else text


def a_reply(llm: VLLMProvider, screen: Screen) -> None:
    """A whole reply, synchronously."""
    screen.heading("A reply")
    screen.code(
        'reply = llm.chat("What is 17 times 3?", temperature=0)', "print(reply.reasoning, reply.text)"
    )
    reply = llm.chat("What is 17 times 3?", temperature=0)
    screen.line((reply.reasoning or "").strip(), screen.DIM)
    screen.line(reply.text.strip())


async def a_stream(llm: VLLMProvider, screen: Screen) -> None:
    """A stream, token by token, asynchronously."""
    screen.heading("An asynchronous stream, token by token, with the reasoning in another shade")
    screen.code(
        'async with llm.astream("Tell me a story.", temperature=0) as stream:',
        "    async for event in stream.events(): ...",
    )
    async with llm.astream("Tell me a story.", temperature=0) as stream:
        async for event in stream.events():
            match event:
                case ReasoningDelta(text):
                    screen.piece(text.rstrip("\n"), screen.DIM)
                case TextDelta(text):
                    screen.piece(text)
                case _:
                    pass
        if (usage := stream.completion.usage) is not None:
            screen.line(f"({usage.completion_tokens} tokens)", screen.DIM)


def tools(llm: VLLMProvider, screen: Screen) -> None:
    """Two tool calls, and the answer made of their results."""
    screen.heading("Tool calls, and the answer made of their results")
    screen.code(
        'reply = llm.chat("Compare the weather in Paris and Oslo.", tools=[get_weather], temperature=0)'
    )
    history: list[Message] = [{"role": "user", "content": "Compare the weather in Paris and Oslo."}]
    reply = llm.chat(history, tools=[WEATHER], temperature=0)
    results: list[Message] = []
    for call in reply.tool_calls:
        result = KNOWN_WEATHER[str(call.parse()["city"])]
        screen.line(f"{call.name}({call.arguments}) -> {result}", screen.DIM)
        results.append(tool_message(call, result))
    screen.code("llm.chat([*history, reply.message, *results], tools=[get_weather], temperature=0).text")
    answer = llm.chat([*history, reply.message, *results], tools=[WEATHER], temperature=0)
    screen.line(answer.text.strip())


def a_vllm_parameter(llm: VLLMProvider, screen: Screen) -> None:
    """What only vLLM can do, as a typed keyword."""
    screen.heading("What only vLLM can do is a typed keyword, not an extra_body: here the form of the answer")
    screen.code(r'llm.chat("Count from 1 to 100.", structured_outputs={"regex": r"(\d, ){4}\d"}, ...).text')
    reply = llm.chat(
        "Count from 1 to 100.",
        structured_outputs={"regex": r"(\d, ){4}\d"},
        enable_thinking=False,
        temperature=0,
    )
    screen.line(reply.text)


def a_typo(llm: VLLMProvider, screen: Screen) -> None:
    """What a typo gets: vLLM would ignore it and answer 200."""
    screen.heading("A server ignores a wrong name and answers 200. Here nothing is sent")
    screen.code('llm.chat("Hello", temprature=0.2, guided_choice=["yes", "no"])')
    wrong = {"temprature": 0.2, "guided_choice": ["yes", "no"]}
    try:
        llm.chat("Hello", **wrong)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    except InvalidRequestError as error:
        for line in f"InvalidRequestError: {error}".splitlines():
            screen.line(line, screen.RED)


def show(server: Server, screen: Screen) -> None:
    """All five parts."""
    with VLLMProvider(base_url=server.base_url, api_key="EMPTY") as llm:
        screen.line(
            f"vllmchat {__version__} talks to vLLM {VLLM_VERSION}, which serves {server.model} on the CPU"
        )
        a_reply(llm, screen)
        asyncio.run(a_stream(llm, screen))
        tools(llm, screen)
        a_vllm_parameter(llm, screen)
        a_typo(llm, screen)


def without_proxy() -> None:
    """Excepts the servers of this machine from the proxy that the environment names, here and in what is started."""
    excepted = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = f"{excepted},127.0.0.1" if excepted else "127.0.0.1"


def main() -> int:
    """Start, show, stop."""
    without_proxy()
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    options = Options(name=f"demo-{os.getpid()}", log=cache_dir() / "servers" / "demo.log")
    try:
        with running(options) as server:
            show(server, Screen(sys.stdout, color=color))
            sys.stdout.flush()
            say_to_stderr("\nstopping the server ...")
    except (InstallError, ServerError) as error:
        say_to_stderr(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say_to_stderr("\nstopped")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
