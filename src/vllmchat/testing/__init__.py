"""Doubles for tests of programs that use this library: a provider and a server that answer by a script.

    from vllmchat.testing import ScriptedProvider, reply, tool_call

    llm = ScriptedProvider(["42", reply("Hello", reasoning="A greeting."), tool_call("get_weather", {"city": "Paris"})])

Nothing here is imported by `import vllmchat`, and each name is loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllmchat.testing.call import Call as Call
    from vllmchat.testing.cassette import CassetteError as CassetteError
    from vllmchat.testing.delivery import (
        Delivery as Delivery,
        drip as drip,
        drop as drop,
        fail as fail,
        garbage as garbage,
        hang_up as hang_up,
        slow as slow,
        stall as stall,
    )
    from vllmchat.testing.errors import ErrorReply as ErrorReply, error as error
    from vllmchat.testing.exchange import (
        Drip as Drip,
        Fault as Fault,
        Request as Request,
        Response as Response,
    )
    from vllmchat.testing.model import RouteAnswer as RouteAnswer
    from vllmchat.testing.provider import ScriptedProvider as ScriptedProvider
    from vllmchat.testing.recorder import Recorder as Recorder, record as record
    from vllmchat.testing.replayer import Replayer as Replayer, replay as replay
    from vllmchat.testing.replies import Reply as Reply, reply as reply, tool_call as tool_call
    from vllmchat.testing.script import (
        Answer as Answer,
        AnswerFunction as AnswerFunction,
        ScriptError as ScriptError,
        ScriptLike as ScriptLike,
    )
    from vllmchat.testing.server import FakeServer as FakeServer
else:
    _HOMES = {
        "call": "Call",
        "cassette": "CassetteError",
        "delivery": "Delivery drip drop fail garbage hang_up slow stall",
        "errors": "ErrorReply error",
        "exchange": "Drip Fault Request Response",
        "model": "RouteAnswer",
        "provider": "ScriptedProvider",
        "recorder": "Recorder record",
        "replayer": "Replayer replay",
        "replies": "Reply reply tool_call",
        "script": "Answer AnswerFunction ScriptError ScriptLike",
        "server": "FakeServer",
    }
    _HOME_OF = {name: f"vllmchat.testing.{home}" for home, names in _HOMES.items() for name in names.split()}
    __all__ = sorted(_HOME_OF)

    def __getattr__(name: str) -> object:
        home = _HOME_OF.get(name)
        if home is None:
            raise AttributeError(f"module 'vllmchat.testing' has no attribute {name!r}")
        return getattr(import_module(home), name)

    def __dir__() -> list[str]:
        return __all__
