"""The adapter for Ray Data without a cluster: what runs in the actors is plain Python."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, cast

import pytest
from pydantic import BaseModel

from vllmchat import InvalidRequestError, JobStoppedError, OpenAIProvider, VLLMProvider
from vllmchat.schemas.types import adapter_of, schema_of
from vllmchat.testing import FakeServer, error

pa = pytest.importorskip("pyarrow")
pytest.importorskip("ray.data")

from vllmchat.adapters.ray import chat_rows, map_rows  # noqa: E402
from vllmchat.adapters.ray.actor import Rows  # noqa: E402
from vllmchat.adapters.ray.columns import column, fitted, type_of  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ray.data import ActorPoolStrategy, Dataset

    from vllmchat.testing import Call

KEY = "hunter2-hunter2"


class Recorder:
    """A dataset that keeps what it is asked for, and runs it here."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}

    def map_batches(self, fn: type[Rows], **options: Any) -> Recorder:
        assert fn is Rows
        self.options = options
        return self

    def run(self, *batches: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        """What an actor makes of batches that it gets all at once."""

        async def call() -> list[Any]:
            rows = Rows(*self.options["fn_constructor_args"])
            return await asyncio.gather(*(rows(pa.Table.from_pylist(batch)) for batch in batches))

        return [table.to_pylist() for table in asyncio.run(call())]


@pytest.fixture
def dataset() -> Iterator[Recorder]:
    yield Recorder()
    gc.collect()  # an error and the frames that it keeps refer to each other
    for thread in threading.enumerate():
        if thread.name == "vllmchat-rows":
            thread.join(10)
            assert not thread.is_alive()


def chats(dataset: Recorder, *arguments: Any, **options: Any) -> Recorder:
    chat_rows(cast("Dataset", dataset), *arguments, **options)
    return dataset


def calls(dataset: Recorder, *arguments: Any, **options: Any) -> Recorder:
    map_rows(cast("Dataset", dataset), *arguments, **options)
    return dataset


def provider(server: FakeServer) -> VLLMProvider:
    return VLLMProvider(server.model, base_url=server.base_url, max_retries=0)


# ------------------------------------------------------------------------------------------------
# Chats
# ------------------------------------------------------------------------------------------------


def echo(call: Call) -> Any:
    return error(400, "not this one") if "bad" in call.text else f"You said {call.text}"


def test_rows_come_back_with_replies(dataset: Recorder) -> None:
    with FakeServer(echo) as server:
        rows = chats(dataset, provider(server), prompt="Say {word}", system="In {language}", temperature=0)
        [[row]] = rows.run([{"word": "Hello", "language": "French", "label": 1}])
        [call] = server.calls
    assert row.pop("prompt_tokens") > 0 < row.pop("completion_tokens")
    assert row == {
        "word": "Hello",
        "language": "French",
        "label": 1,
        "reply": "You said Say Hello",
        "reasoning": None,
        "finish_reason": "stop",
        "error": None,
        "error_type": None,
    }
    assert call.messages == [
        {"role": "system", "content": "In French"},
        {"role": "user", "content": "Say Hello"},
    ]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "Hi"}], "temperature": "warm"},
        {"prompt": "Hi", "id": 3},
        {"text": "Hi", "seed": None},
    ],
)
def test_other_columns_are_not_parameters(dataset: Recorder, row: dict[str, Any]) -> None:
    with FakeServer(echo) as server:
        [[found]] = chats(dataset, provider(server)).run([row])
        [call] = server.calls
    assert found["reply"] == "You said Hi"
    assert {name: found[name] for name in row} == row
    assert {"temperature", "seed", "id"}.isdisjoint(call.params)


def test_nulls_that_arrow_adds_are_not_sent(dataset: Recorder) -> None:
    conversations: list[list[dict[str, Any]]] = [
        [{"role": "user", "content": "Hi", "name": "Ann"}, {"role": "assistant", "content": "Yes?"}],
        [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    ]
    with FakeServer(echo) as server:
        for messages in conversations:
            table = [
                {"messages": messages},
                {"messages": [*messages, {"role": "user", "content": messages[0]["content"]}]},
            ]
            for row in chats(dataset, provider(server)).run(table)[0]:
                assert row["error"] is None
        assert all(None not in message.values() for call in server.calls for message in call.messages)


def test_a_wrong_row_is_an_error_row(dataset: Recorder) -> None:
    with FakeServer(echo) as server:
        found = chats(dataset, provider(server)).run(
            [{"text": "Hi"}, {"text": "bad"}, {"text": None}, {"text": "Bye"}],
            [{"text": "bad"}],
            [{"other": 1}],
        )
    first, second, third = found
    assert [row["reply"] for row in first] == ["You said Hi", None, None, "You said Bye"]
    assert [row["error_type"] for row in first] == [None, "BadRequestError", "InvalidRequestError", None]
    assert first[1]["error"] == "400: not this one"
    assert "the row has no messages, prompt or text" in first[2]["error"]
    assert (second[0]["reply"], second[0]["error_type"]) == (None, "BadRequestError")
    assert "the row has no messages, prompt or text, but other" in third[0]["error"]


def test_columns_have_their_types_without_a_single_reply(dataset: Recorder) -> None:
    with FakeServer(echo) as server:
        rows = Rows(*chats(dataset, provider(server), kind=int).options["fn_constructor_args"])
        table = asyncio.run(rows(pa.Table.from_pylist([{"text": "bad"}])))
    types = {name: str(table.schema.field(name).type) for name in table.column_names}
    assert types == {
        "text": "string",
        "reply": "string",
        "reasoning": "string",
        "finish_reason": "string",
        "prompt_tokens": "int64",
        "completion_tokens": "int64",
        "value": "int64",
        "error": "string",
        "error_type": "string",
    }


class Verdict(BaseModel):
    label: Literal["good", "bad"]
    score: int | None = None


def test_values_are_parsed(dataset: Recorder) -> None:
    answers = ['{"label": "good", "score": 3}', '{"label": "so-so"}', '{"label": "bad"}']
    with FakeServer(answers) as server:
        [rows] = chats(dataset, provider(server), kind=Verdict, in_flight=1).run([{"text": "a"}] * 3)
    assert [row["value"] for row in rows] == [
        {"label": "good", "score": 3},
        None,
        {"label": "bad", "score": None},
    ]
    assert [row["error_type"] for row in rows] == [None, "StructuredOutputError", None]


def test_a_value_that_does_not_fit_is_an_error(dataset: Recorder) -> None:
    with FakeServer(["1", str(2**70), "3"]) as server:
        [rows] = chats(dataset, provider(server), kind=int, in_flight=1).run([{"text": "a"}] * 3)
    assert [row["value"] for row in rows] == [1, None, 3]
    assert [row["error_type"] for row in rows] == [None, "OverflowError", None]


def test_a_column_of_the_dataset_is_never_replaced(dataset: Recorder) -> None:
    with (
        FakeServer(echo) as server,
        pytest.raises(InvalidRequestError, match="the dataset has the column 'error' already"),
    ):
        chats(dataset, provider(server)).run([{"text": "Hi", "error": None}])


def test_an_empty_batch(dataset: Recorder) -> None:
    with FakeServer(echo) as server:
        rows = Rows(*chats(dataset, provider(server)).options["fn_constructor_args"])
        table = asyncio.run(rows(pa.table({"text": pa.array([], pa.string())})))
    assert table.num_rows == 0
    assert "reply" in table.column_names


# ------------------------------------------------------------------------------------------------
# Other calls
# ------------------------------------------------------------------------------------------------


async def complete(llm: VLLMProvider, row: dict[str, Any]) -> dict[str, object]:
    reply = await llm.acomplete(row["text"], max_tokens=5)
    return {"text": reply.text.upper(), **({"long": True} if len(row["text"]) > 2 else {})}


def test_any_call(dataset: Recorder) -> None:
    with FakeServer(echo) as server:
        [rows] = calls(dataset, provider(server), complete).run(
            [{"text": "Hi"}, {"text": "bad"}, {"text": "Ciao"}]
        )
    assert [row["text"] for row in rows] == ["YOU SAID HI", None, "YOU SAID CIAO"]
    assert [row["long"] for row in rows] == [None, None, True]
    assert [row["error_type"] for row in rows] == [None, "BadRequestError", None]


async def strange(llm: VLLMProvider, row: dict[str, Any]) -> Any:
    if row["n"] == 0:
        raise KeyError("nothing")
    return (
        row["n"]
        if row["n"] == 1
        else {"value": [1] if row["n"] == 2 else "text" if row["n"] == 3 else [4, 5]}
    )


def test_a_call_that_fails_is_an_error_row(dataset: Recorder) -> None:
    [rows] = calls(dataset, VLLMProvider("m"), strange).run([{"n": n} for n in range(5)])
    assert [row["value"] for row in rows] == [None, None, [1], None, [4, 5]]
    assert [row["error_type"] for row in rows] == ["KeyError", "TypeError", None, "ArrowInvalid", None]
    assert rows[1]["error"] == "the call must return a mapping of columns, not int"


# ------------------------------------------------------------------------------------------------
# One job for all batches
# ------------------------------------------------------------------------------------------------


def test_batches_share_a_job(dataset: Recorder) -> None:
    """Rows of four batches are in flight at once, though each batch alone has only two."""
    begun = asyncio.Semaphore(0)
    together = 0

    async def wait(llm: VLLMProvider, row: dict[str, Any]) -> dict[str, object]:
        nonlocal together
        together += 1
        if together == 8:
            for _ in range(8):
                begun.release()
        await begun.acquire()
        return {"thread": threading.current_thread().ident}

    found = calls(dataset, VLLMProvider("m"), wait, in_flight=8).run(
        *[[{"n": n}, {"n": -n}] for n in range(4)]
    )
    assert [[row["n"] for row in batch] for batch in found] == [[n, -n] for n in range(4)]
    [thread] = {row["thread"] for batch in found for row in batch}
    assert thread != threading.get_ident(), "Ray's own event loop may be blocked"


def test_a_job_that_stops_ends_all_batches_and_the_next_one_begins_again(dataset: Recorder) -> None:
    answers = [error(401, "no")] * 2

    def script(call: Call) -> Any:
        return answers.pop() if answers else "Hello!"

    with FakeServer(script) as server:
        rows = Rows(*chats(dataset, provider(server), in_flight=1).options["fn_constructor_args"])
        batch = pa.Table.from_pylist([{"text": "Hi"}] * 3)

        async def both() -> list[Any]:
            return list(await asyncio.gather(rows(batch), rows(batch), return_exceptions=True))

        stopped = asyncio.run(both())
        assert [type(each) for each in stopped] == [JobStoppedError] * 2
        assert [each.pending or each.results for each in stopped] == [()] * 2, "rows do not travel in errors"
        assert "401" in str(stopped[0])
        answers.clear()
        table = asyncio.run(rows(batch))
    assert table.to_pylist()[2]["reply"] == "Hello!"


# ------------------------------------------------------------------------------------------------
# What Ray is asked for
# ------------------------------------------------------------------------------------------------


def test_what_ray_gets(dataset: Recorder) -> None:
    options = chats(
        dataset, VLLMProvider("m"), actors=3, batch_size=9, ray_options={"runtime_env": {}}
    ).options
    pool: ActorPoolStrategy = options.pop("compute")
    assert (pool.min_size, pool.max_size) == (3, 3)  # type: ignore[attr-defined] # pyright: ignore
    del options["fn_constructor_args"]
    assert options == {"batch_size": 9, "batch_format": "pyarrow", "num_cpus": 0, "runtime_env": {}}
    assert chats(dataset, VLLMProvider("m"), ray_options={"num_cpus": 2}).options["num_cpus"] == 2
    pool = chats(dataset, VLLMProvider("m"), actors=(1, 8)).options["compute"]
    assert (pool.min_size, pool.max_size) == (1, 8)  # type: ignore[attr-defined] # pyright: ignore


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"actors": 0}, "actors=0: must be a number of actors"),
        ({"actors": (3, 2)}, r"actors=\(3, 2\): must be"),
        ({"temperature": -1}, "temperature=-1"),
        ({"retries": -1}, "retries=-1"),
        ({"in_flight": 0}, "in_flight=0"),
        ({"kind": "text"}, "kind: must be a type"),
        ({"top_n": 1}, "top_n"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    dataset: Recorder, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        chats(dataset, VLLMProvider("m"), **arguments)
    assert not dataset.options


def test_a_provider_that_cannot_travel(dataset: Recorder) -> None:
    llm = VLLMProvider("m", on_request=lambda request: None)
    with pytest.raises(TypeError, match=r"on_request=.* cannot be pickled"):
        chats(dataset, llm)


def test_a_provider_that_is_made_in_the_actor(dataset: Recorder) -> None:
    with FakeServer(echo) as server:
        rows = chats(
            dataset, lambda: VLLMProvider(server.model, base_url=server.base_url, on_request=lambda _: None)
        )
        assert rows.run([{"text": "Hi"}])[0][0]["reply"] == "You said Hi"


def test_any_server(dataset: Recorder) -> None:
    with FakeServer(echo) as server:
        llm = OpenAIProvider(server.model, base_url=server.base_url)
        assert chats(dataset, llm, temperature=0).run([{"text": "Hi"}])[0][0]["reply"] == "You said Hi"


def test_no_key_travels(dataset: Recorder) -> None:
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    llm = VLLMProvider("m", api_key=KEY)
    [task] = chats(dataset, llm).options["fn_constructor_args"]
    data: bytes = cloudpickle.dumps(task)
    assert KEY.encode() not in data
    with pytest.raises(InvalidRequestError, match=r"Set \$VLLM_API_KEY in this process"):
        Rows(cloudpickle.loads(data))


@pytest.mark.parametrize(
    "params",
    [
        {"extra_headers": {"X-Api-Key": KEY}},
        {"extra_headers": {"x-team": f"sk1-{KEY}"}},
        {"extra_body": {"server": {"password": KEY}}},
    ],
)
def test_keys_among_the_parameters_do_not_travel_either(dataset: Recorder, params: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match=r"holds a key, .*pickle_secrets=True") as caught:
        chats(dataset, VLLMProvider("m"), **params)
    assert KEY not in str(caught.value)
    assert chats(dataset, VLLMProvider("m", pickle_secrets=True), **params).options
    assert chats(dataset, VLLMProvider("m"), extra_headers={"x-team": "blue"}, extra_body={"a": 1}).options


def test_two_tasks_differ_for_ray(dataset: Recorder) -> None:
    """Ray finds the object of a class by its arguments: if they cannot be hashed, by their `repr`."""
    tasks = [chats(dataset, VLLMProvider("m")).options["fn_constructor_args"][0] for _ in range(2)]
    with pytest.raises(TypeError, match="unhashable"):
        hash(tasks[0])
    assert repr(tasks[0]) != repr(tasks[1])
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    assert repr(cloudpickle.loads(cloudpickle.dumps(tasks[0]))) == repr(tasks[0])


def test_without_ray() -> None:
    code = "import sys; sys.modules['ray'] = None; import vllmchat.adapters.ray"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: vllmchat.adapters.ray needs Ray Data: pip install 'vllmchat[ray]'" in done.stderr


# ------------------------------------------------------------------------------------------------
# Columns
# ------------------------------------------------------------------------------------------------


class Color(Enum):
    RED = "red"


class Node(BaseModel):
    name: str
    children: list[Node] = []


class Everything(BaseModel):
    a: list[float]
    b: dict[str, int]
    c: int | str
    d: Color
    e: tuple[int, ...] = ()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (str, "string"),
        (int, "int64"),
        (float, "double"),
        (bool, "bool"),
        (list[int], "list<item: int64>"),
        (Literal["a", "b"], "string"),
        (Literal[1, 2], "int64"),
        (Literal[1, "b"], "string"),
        (int | None, "int64"),
        (int | str, "string"),
        (Color, "string"),
        (dict[str, int], "string"),
        (Verdict, "struct<label: string, score: int64>"),
        (list[Verdict], "list<item: struct<label: string, score: int64>>"),
        (Node, "struct<name: string, children: list<item: string>>"),
        (Everything, "struct<a: list<item: double>, b: string, c: string, d: string, e: list<item: int64>>"),
    ],
    ids=str,
)
def test_types_of_columns(kind: Any, expected: str) -> None:
    assert str(type_of(schema_of(adapter_of(kind)))) == expected


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (int | str, 3, "3"),
        (int | str, "3", "3"),
        (dict[str, int], {"a": 1}, '{"a": 1}'),
        (
            Everything,
            {"a": [1], "b": {"x": 1}, "c": 2, "d": "red", "e": [1]},
            {"a": [1.0], "b": '{"x": 1}', "c": "2", "d": "red", "e": [1]},
        ),
        (Node, {"name": "a", "children": [{"name": "b"}]}, {"name": "a", "children": ['{"name": "b"}']}),
        (Verdict, None, None),
    ],
)
def test_values_of_columns(kind: Any, value: object, expected: object) -> None:
    wanted = type_of(schema_of(adapter_of(kind)))
    found, misfits = column([fitted(value, wanted)], wanted)
    assert (found.to_pylist(), misfits) == ([expected], {})


@pytest.mark.parametrize("make", [lambda: pytest.importorskip("numpy").array([1.0, 2.0]), lambda: [1.0, 2.0]])
def test_vectors(make: Callable[[], object]) -> None:
    found, misfits = column([make(), None])
    assert (found.to_pylist(), misfits) == ([[1.0, 2.0], None], {})
