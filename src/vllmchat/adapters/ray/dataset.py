"""Calls for the rows of a Ray dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from vllmchat.checking.describe import format_value
from vllmchat.checking.secrets import hide_secrets, holds_secret
from vllmchat.client.base import ProviderBase
from vllmchat.errors import InvalidRequestError, Problem
from vllmchat.http.secrets import is_secret_header
from vllmchat.jobs.map import RETRIES, WAIT

try:
    import pyarrow as _  # noqa: F401
    from ray import cloudpickle
    from ray.data import ActorPoolStrategy
except ImportError as error:
    raise ImportError("vllmchat.adapters.ray needs Ray Data: pip install 'vllmchat[ray]'") from error

from vllmchat.adapters.ray.actor import CallTask, ChatTask, Rows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ray.data import Dataset
    from typing_extensions import TypeForm, Unpack

    from vllmchat.adapters.ray.actor import Task
    from vllmchat.chat.params import ChatParams, VLLMChatParams
    from vllmchat.jobs.map import InFlight
    from vllmchat.providers.openai import OpenAIProvider
    from vllmchat.providers.vllm import VLLMProvider

P = TypeVar("P", bound="VLLMProvider | OpenAIProvider")


@overload
def chat_rows(
    dataset: Dataset,
    llm: VLLMProvider | Callable[[], VLLMProvider],
    *,
    prompt: str | None = None,
    system: str | None = None,
    kind: TypeForm[object] | None = None,
    model: str | None = None,
    actors: int | tuple[int, int] = 1,
    batch_size: int = 256,
    ray_options: Mapping[str, object] | None = None,
    in_flight: InFlight = "auto",
    retries: int = RETRIES,
    stop_after_errors: int | None = None,
    wait: float = WAIT,
    **params: Unpack[VLLMChatParams],
) -> Dataset: ...


@overload
def chat_rows(
    dataset: Dataset,
    llm: OpenAIProvider | Callable[[], OpenAIProvider],
    *,
    prompt: str | None = None,
    system: str | None = None,
    kind: TypeForm[object] | None = None,
    model: str | None = None,
    actors: int | tuple[int, int] = 1,
    batch_size: int = 256,
    ray_options: Mapping[str, object] | None = None,
    in_flight: InFlight = "auto",
    retries: int = RETRIES,
    stop_after_errors: int | None = None,
    wait: float = WAIT,
    **params: Unpack[ChatParams],
) -> Dataset: ...


def chat_rows(
    dataset: Dataset,
    llm: VLLMProvider | OpenAIProvider | Callable[[], VLLMProvider | OpenAIProvider],
    *,
    prompt: str | None = None,
    system: str | None = None,
    kind: TypeForm[object] | None = None,
    model: str | None = None,
    actors: int | tuple[int, int] = 1,
    batch_size: int = 256,
    ray_options: Mapping[str, object] | None = None,
    in_flight: InFlight = "auto",
    retries: int = RETRIES,
    stop_after_errors: int | None = None,
    wait: float = WAIT,
    **params: Any,
) -> Dataset:
    """Chats about each row of a dataset, on a Ray cluster. Nothing is sent before the dataset is read or written.

    The rows come back with these columns: `reply`, `reasoning`, `finish_reason`, `prompt_tokens`, `completion_tokens`,
    with `kind` also `value`, and `error` and `error_type`, which are null if there is a reply. A row that fails does
    not end the job. While the server is down, the actors wait. If an actor dies, Ray sends its rows again.

        rows = chat_rows(ray.data.read_parquet("in"), llm, prompt="Translate: {text}", max_tokens=200)
        rows.write_parquet("out")

    Args:
        dataset: The rows.
        llm: The provider, which is pickled, or a function that makes it in each actor.
        prompt: How a row becomes a prompt, such as `"Translate: {text}"`. Without it, the column `messages`, `prompt`
            or `text`.
        system: The system message, likewise.
        kind: The type to parse replies into, see `VLLMProvider.parse`; `value` holds it as JSON does. What has no type
            in Arrow, such as a union, is text.
        model: The model or LoRA adapter.
        actors: How many actors, or the least and the most.
        batch_size: How many rows an actor takes at once. It works on up to four batches at a time.
        ray_options: Further arguments for `Dataset.map_batches`, such as `{"runtime_env": ...}`. By default actors take
            no CPUs from others (`num_cpus=0`).
        in_flight: How many rows may be in flight at once in each actor, see `VLLMProvider.map`.
        retries: See `VLLMProvider.map`.
        stop_after_errors: After how many errors in a row an actor stops the job; None for never.
        wait: How long to wait for a server that is down, in seconds. After that, the job ends with a `JobStoppedError`.
        **params: See `VLLMChatParams`.

    Raises:
        InvalidRequestError: An argument is invalid.
        TypeError: The provider cannot be pickled.
    """
    chosen = hide_secrets({"model": model, **params})
    _check_secrets(llm, params)
    task: ChatTask[Any] = ChatTask(
        llm,
        prompt,
        system,
        chosen if kind is None else {"kind": kind, **chosen},
        in_flight=in_flight,
        retries=retries,
        stop_after_errors=stop_after_errors,
        wait=wait,
    )
    return _mapped(dataset, task, actors, batch_size, ray_options)


def map_rows(
    dataset: Dataset,
    llm: P | Callable[[], P],
    call: Callable[[P, dict[str, Any]], Awaitable[Mapping[str, object]]],
    *,
    actors: int | tuple[int, int] = 1,
    batch_size: int = 256,
    ray_options: Mapping[str, object] | None = None,
    in_flight: InFlight = "auto",
    retries: int = RETRIES,
    stop_after_errors: int | None = None,
    wait: float = WAIT,
) -> Dataset:
    """Calls a function with each row of a dataset, on a Ray cluster: for embeddings, scores, or several calls a row.

        async def embed(llm: VLLMProvider, row: dict[str, Any]) -> dict[str, object]:
            return {"embedding": (await llm.aembed(row["text"])).vector}

        rows = map_rows(dataset, llm, embed)

    Args:
        dataset: The rows.
        llm: The provider, which is pickled, or a function that makes it in each actor.
        call: Called with the provider and a row. It returns columns for this row; those that are there already are
            replaced. What it raises is in the columns `error` and `error_type`.
        actors: See `chat_rows`, as for all others.
        batch_size: How many rows an actor takes at once.
        ray_options: Further arguments for `Dataset.map_batches`.
        in_flight: How many rows may be in flight at once in each actor.
        retries: How often the function is called again.
        stop_after_errors: After how many errors in a row an actor stops the job.
        wait: How long to wait for a server that is down, in seconds.

    Raises:
        InvalidRequestError: An argument is invalid.
        TypeError: The provider cannot be pickled.
    """
    task: CallTask[P] = CallTask(
        llm, call, in_flight=in_flight, retries=retries, stop_after_errors=stop_after_errors, wait=wait
    )
    return _mapped(dataset, task, actors, batch_size, ray_options)


def _mapped(
    dataset: Dataset,
    task: Task[Any],
    actors: int | tuple[int, int],
    batch_size: int,
    ray_options: Mapping[str, object] | None,
) -> Dataset:
    if isinstance(task.llm, ProviderBase):
        # Both say what is wrong before anything runs.
        task.begin(task.llm, ())
        cloudpickle.dumps(task.llm)
    options: dict[str, Any] = {"num_cpus": 0, **(ray_options or {})}
    return dataset.map_batches(
        Rows,
        fn_constructor_args=(task,),
        compute=_pool(actors),
        batch_size=batch_size,
        batch_format="pyarrow",
        **options,
    )


def _check_secrets(llm: object, params: Mapping[str, Any]) -> None:
    """Parameters travel as the provider does, whose secrets stay behind unless `pickle_secrets` is set."""
    if isinstance(llm, ProviderBase) and llm._pickle_secrets:  # pyright: ignore[reportPrivateUsage]
        return
    headers: Mapping[str, str] = params.get("extra_headers") or {}
    names = ["extra_headers"] * any(is_secret_header(name.lower(), value) for name, value in headers.items())
    names += [name for name in ("extra_body", "tools") if holds_secret(name, params.get(name))]
    if names:
        hint = "Write llm.with_options(pickle_secrets=True) to send it along."
        rule = "holds a key, which anybody who reads the job could see."
        raise InvalidRequestError([Problem(name, "", rule, hint) for name in names])


def _pool(actors: object) -> ActorPoolStrategy:
    match actors:
        case int() if actors >= 1:
            return ActorPoolStrategy(size=actors)
        case (int(least), int(most)) if 1 <= least <= most:
            return ActorPoolStrategy(min_size=least, max_size=most)
        case _:
            rule = "must be a number of actors, or the least and the most."
            raise InvalidRequestError(
                [Problem("actors", format_value(actors), rule, "Write actors=4 or actors=(1, 8).")]
            )
