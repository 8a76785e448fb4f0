"""What runs in the actors: a batch of rows in, the same rows with replies out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast
from uuid import uuid4

import pyarrow as pa

from vllmchat.adapters.ray.columns import column, fitted, type_of
from vllmchat.adapters.ray.job import SharedJob
from vllmchat.client.base import ProviderBase
from vllmchat.errors import InvalidRequestError
from vllmchat.jobs.template import Template
from vllmchat.schemas.types import adapter_of, schema_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pydantic import TypeAdapter

    from vllmchat.jobs.map import AsyncMapResults, InFlight, Inputs
    from vllmchat.jobs.result import Result
    from vllmchat.providers.openai import OpenAIProvider
    from vllmchat.providers.vllm import VLLMProvider

P = TypeVar("P", bound="VLLMProvider | OpenAIProvider")
Row = dict[str, Any]

ERRORS: Final = ("error", "error_type")
REPLY: Final[Mapping[str, pa.DataType]] = {
    "reply": pa.string(),
    "reasoning": pa.string(),
    "finish_reason": pa.string(),
    "prompt_tokens": pa.int64(),
    "completion_tokens": pa.int64(),
}


class Task(Generic[P]):
    """What is done with each row. It travels to the actors."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self,
        llm: P | Callable[[], P],
        *,
        in_flight: InFlight,
        retries: int,
        stop_after_errors: int | None,
        wait: float,
    ) -> None:
        self.llm = llm
        self.options: dict[str, Any] = {
            "in_flight": in_flight,
            "ordered": False,
            "retries": retries,
            "stop_after_errors": stop_after_errors,
            "wait": wait,
        }
        self._id = uuid4()

    def __repr__(self) -> str:
        # Ray tells tasks apart by it, unless they can be hashed.
        return f"<{type(self).__name__} {self._id}>"

    def provider(self) -> P:
        """Returns the provider.

        Raises:
            InvalidRequestError: It lacks its key.
        """
        llm = self.llm if isinstance(self.llm, ProviderBase) else self.llm()
        llm._check_open()  # pyright: ignore[reportPrivateUsage]
        return llm  # pyright: ignore[reportReturnType]

    @property
    def names(self) -> frozenset[str]:
        """The columns that it adds and that must not be there."""
        return frozenset(ERRORS)

    def begin(self, llm: P, inputs: Inputs[Any]) -> AsyncMapResults[Any, Any]:
        """Begins a job."""
        raise NotImplementedError

    def input_of(self, row: Row) -> object:
        """Returns what is sent for a row.

        Raises:
            InvalidRequestError: The row lacks something.
        """
        return row

    def columns(
        self, results: Sequence[Result[Any, Any] | None]
    ) -> tuple[dict[str, pa.Array], dict[int, Exception]]:
        """Returns the columns of results, and what is wrong with some of them. None where a row has no result."""
        raise NotImplementedError


class ChatTask(Task[P]):
    """A chat about each row."""

    def __init__(
        self,
        llm: P | Callable[[], P],
        prompt: str | None,
        system: str | None,
        params: Mapping[str, Any],
        **options: Any,
    ) -> None:
        super().__init__(llm, **options)
        self._template = Template(prompt, system)
        self.params = params

    @property
    def names(self) -> frozenset[str]:
        """The columns of a reply."""
        return frozenset((*REPLY, *ERRORS, *(["value"] if "kind" in self.params else [])))

    def begin(self, llm: P, inputs: Inputs[Any]) -> AsyncMapResults[Any, Any]:
        """Begins a job of chats."""
        return llm.amap(inputs, **self.options, **self.params)

    def input_of(self, row: Row) -> object:
        """Returns the conversation of a row."""
        # Only the messages: other columns are those of the dataset, not parameters.
        return {"messages": _without_nulls(self._template.body(row)["messages"])}

    def columns(
        self, results: Sequence[Result[Any, Any] | None]
    ) -> tuple[dict[str, pa.Array], dict[int, Exception]]:
        """Returns the columns of replies."""
        replies = [None if each is None else each.completion for each in results]
        usages = [None if each is None else each.usage for each in replies]
        found: dict[str, list[object]] = {
            "reply": [each and each.text for each in replies],
            "reasoning": [each and each.reasoning for each in replies],
            "finish_reason": [each and each.finish_reason for each in replies],
            "prompt_tokens": [each and each.prompt_tokens for each in usages],
            "completion_tokens": [each and each.completion_tokens for each in usages],
        }
        columns = {name: pa.array(values, REPLY[name]) for name, values in found.items()}
        if "kind" not in self.params:
            return columns, {}
        adapter: TypeAdapter[Any] = adapter_of(self.params["kind"])
        kind = type_of(schema_of(adapter))
        values = [
            None
            if each is None
            else fitted(adapter.dump_python(each.value, mode="json", by_alias=True), kind)
            for each in results
        ]
        columns["value"], misfits = column(values, kind)
        return columns, misfits


class CallTask(Task[P]):
    """Any call for each row."""

    def __init__(
        self,
        llm: P | Callable[[], P],
        call: Callable[[P, Row], Awaitable[Mapping[str, object]]],
        **options: Any,
    ) -> None:
        super().__init__(llm, **options)
        self._call = call

    def begin(self, llm: P, inputs: Inputs[Any]) -> AsyncMapResults[Any, Any]:
        """Begins a job of calls."""
        return llm.amap(inputs, call=partial(self._call, llm), **self.options)

    def columns(
        self, results: Sequence[Result[Any, Any] | None]
    ) -> tuple[dict[str, pa.Array], dict[int, Exception]]:
        """Returns the columns of what the calls returned."""
        misfits: dict[int, Exception] = {}
        rows: list[Mapping[str, object]] = [{} for _ in results]
        for place, result in enumerate(results):
            if result is None:
                continue
            value: object = result.value
            if isinstance(value, Mapping):
                rows[place] = cast("Mapping[str, object]", value)
            else:
                misfits[place] = TypeError(
                    f"the call must return a mapping of columns, not {type(value).__name__}"
                )
        columns: dict[str, pa.Array] = {}
        for name in dict.fromkeys(name for row in rows for name in row):
            columns[name], wrong = column([row.get(name) for row in rows])
            misfits.update(wrong)
        return columns, misfits


class Rows:
    """The class of the actors. Ray calls it with one batch after the other, several at a time.

    Args:
        task: What to do with each row.
    """

    def __init__(self, task: Task[Any]) -> None:
        self._task = task
        self._job: SharedJob[Any, Any] = SharedJob(partial(task.begin, task.provider()))

    async def __call__(self, batch: pa.Table) -> pa.Table:
        """Returns a batch with the columns of its results."""
        task = self._task
        there = task.names & set(batch.column_names)
        if there:
            raise InvalidRequestError(
                f"the dataset has the column {min(there)!r} already. "
                "Drop or rename it: drop_columns(), rename_columns()"
            )
        errors: dict[int, Exception] = {}
        inputs: dict[int, object] = {}
        for place, row in enumerate(batch.to_pylist()):
            try:
                inputs[place] = task.input_of(row)
            except InvalidRequestError as error:
                errors[place] = error
        done = await asyncio.wrap_future(self._job.send(list(inputs.values())))
        results: list[Result[Any, Any] | None] = [None] * batch.num_rows
        for place, result in zip(inputs, done, strict=True):
            if result.error is None:
                results[place] = result
            else:
                errors[place] = result.error
        columns, misfits = task.columns(results)
        return _with_columns(batch, columns, {**misfits, **errors})

    def __del__(self) -> None:
        if hasattr(self, "_job"):
            self._job.close()


def _with_columns(
    batch: pa.Table, columns: Mapping[str, pa.Array], errors: Mapping[int, Exception]
) -> pa.Table:
    found = [errors.get(place) for place in range(batch.num_rows)]
    texts = [None if each is None else str(each) for each in found]
    types = [None if each is None else type(each).__name__ for each in found]
    for name, values in {
        **columns,
        "error": pa.array(texts, pa.string()),
        "error_type": pa.array(types, pa.string()),
    }.items():
        if name in batch.column_names:
            batch = batch.set_column(batch.column_names.index(name), name, values)
        else:
            batch = batch.append_column(name, values)
    return batch


def _without_nulls(value: object) -> object:
    """Returns messages without the fields that Arrow adds because other rows have them."""
    if isinstance(value, dict):
        fields = cast("dict[str, object]", value)
        return {name: _without_nulls(each) for name, each in fields.items() if each is not None}
    if isinstance(value, list):
        return [_without_nulls(each) for each in cast("list[object]", value)]
    return value
