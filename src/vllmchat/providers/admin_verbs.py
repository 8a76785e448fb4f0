"""The verbs that run a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllmchat.later import LaterModule
from vllmchat.providers.base import ProviderBase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vllmchat import admin
    from vllmchat.admin import PauseMode, WakeTag
    from vllmchat.http.timeout import Timeout
else:
    admin = LaterModule("vllmchat.admin")


class AdminVerbs(ProviderBase):
    """What only those may do who run the server."""

    # Sleep.

    def sleep(
        self, level: int = 1, *, mode: PauseMode | None = None, timeout: float | Timeout | None = None
    ) -> None:
        """Puts the engine to sleep, so that others can use the accelerator's memory. `wake_up` ends it.

        Requests that come meanwhile wait. The server needs `VLLM_SERVER_DEV_MODE=1`, and `--enable-sleep-mode` to
        free memory.

        Args:
            level: 0 only stops generation, 1 moves the weights to the host's memory and drops the KV cache, 2 drops
                both. From 0 to 2.
            mode: What becomes of requests that run: `abort` ends them (the server's default), `wait` waits for them,
                `keep` lets them stand still. Older servers ignore it and abort.
            timeout: Limits for this call; a number of seconds sets `Timeout.total`.

        Raises:
            InvalidRequestError: A parameter is wrong; nothing was sent.
            NotFoundError: The server was started without `VLLM_SERVER_DEV_MODE=1`.
            APIStatusError: The server answered with another error.
            APIConnectionError: No answer came.
        """
        self._run(admin.sleep_request(level, mode, timeout))

    async def asleep(
        self, level: int = 1, *, mode: PauseMode | None = None, timeout: float | Timeout | None = None
    ) -> None:
        """Puts the engine to sleep, awaiting. See `sleep`."""
        await self._arun(admin.sleep_request(level, mode, timeout))

    def wake_up(
        self, tags: WakeTag | Sequence[WakeTag] | None = None, *, timeout: float | Timeout | None = None
    ) -> bool | None:
        """Wakes the engine up, all of it or a part. The server needs `VLLM_SERVER_DEV_MODE=1`.

        Args:
            tags: The parts: `weights`, `kv_cache`, and `scheduling` after a sleep of level 0. Without it, all.
            timeout: Limits for this call; a number of seconds sets `Timeout.total`.

        Returns:
            Whether all of it is awake now. None from servers before vLLM 0.32, which do not say; ask `is_sleeping`.

        Raises:
            InvalidRequestError: A parameter is wrong; nothing was sent.
            NotFoundError: The server was started without `VLLM_SERVER_DEV_MODE=1`.
            APIStatusError: The server answered with another error.
            APIConnectionError: No answer came.
        """
        return self._run(admin.wake_up_request(tags, timeout))

    async def awake_up(
        self, tags: WakeTag | Sequence[WakeTag] | None = None, *, timeout: float | Timeout | None = None
    ) -> bool | None:
        """Wakes the engine up, awaiting. See `wake_up`."""
        return await self._arun(admin.wake_up_request(tags, timeout))

    def is_sleeping(self, *, timeout: float | Timeout | None = None) -> bool:
        """Asks whether the engine sleeps, or a part of it. The server needs `VLLM_SERVER_DEV_MODE=1`.

        Args:
            timeout: Limits for this call; a number of seconds sets `Timeout.total`.

        Raises:
            NotFoundError: The server was started without `VLLM_SERVER_DEV_MODE=1`.
            APIStatusError: The server answered with another error.
            APIConnectionError: No answer came.
        """
        return self._run(admin.is_sleeping_request(timeout))

    async def ais_sleeping(self, *, timeout: float | Timeout | None = None) -> bool:
        """Asks whether the engine sleeps, awaiting. See `is_sleeping`."""
        return await self._arun(admin.is_sleeping_request(timeout))

    # Caches.

    def reset_prefix_cache(
        self,
        *,
        reset_running_requests: bool | None = None,
        reset_external: bool | None = None,
        timeout: float | Timeout | None = None,
    ) -> bool | None:
        """Empties the prefix cache, after new weights or before a measurement.

        The server needs `VLLM_SERVER_DEV_MODE=1`.

        Args:
            reset_running_requests: Whether running requests give up their cached prefixes too, and are computed anew.
            reset_external: Whether the cache behind a connector is emptied too.
            timeout: Limits for this call; a number of seconds sets `Timeout.total`.

        Returns:
            Whether it is empty now: running requests may hold on to it. None from servers before vLLM 0.26, which do
            not say.

        Raises:
            InvalidRequestError: A parameter is wrong; nothing was sent.
            NotFoundError: The server was started without `VLLM_SERVER_DEV_MODE=1`.
            APIStatusError: The server answered with another error.
            APIConnectionError: No answer came.
        """
        return self._run(admin.reset_prefix_cache_request(reset_running_requests, reset_external, timeout))

    async def areset_prefix_cache(
        self,
        *,
        reset_running_requests: bool | None = None,
        reset_external: bool | None = None,
        timeout: float | Timeout | None = None,
    ) -> bool | None:
        """Empties the prefix cache, awaiting. See `reset_prefix_cache`."""
        return await self._arun(
            admin.reset_prefix_cache_request(reset_running_requests, reset_external, timeout)
        )

    # Generation.

    def pause(
        self,
        *,
        mode: PauseMode | None = None,
        clear_cache: bool | None = None,
        timeout: float | Timeout | None = None,
    ) -> None:
        """Stops generation, for new weights. Requests that come meanwhile wait for `resume`.

        The server must be vLLM 0.12 or newer and needs `VLLM_SERVER_DEV_MODE=1`.

        Args:
            mode: What becomes of requests that run: `abort` ends them (the server's default), `wait` waits for them,
                `keep` lets them stand still (since vLLM 0.16; older servers abort them).
            clear_cache: Whether the prefix cache is emptied. The server's default is True, and with `keep` it does
                not.
            timeout: Limits for this call; a number of seconds sets `Timeout.total`. Waiting can take long.

        Raises:
            InvalidRequestError: A parameter is wrong; nothing was sent.
            NotFoundError: The server is older, or was started without `VLLM_SERVER_DEV_MODE=1`.
            APIStatusError: The server answered with another error.
            APIConnectionError: No answer came.
        """
        self._run(admin.pause_request(mode, clear_cache, timeout))

    async def apause(
        self,
        *,
        mode: PauseMode | None = None,
        clear_cache: bool | None = None,
        timeout: float | Timeout | None = None,
    ) -> None:
        """Stops generation, awaiting. See `pause`."""
        await self._arun(admin.pause_request(mode, clear_cache, timeout))

    def resume(self, *, timeout: float | Timeout | None = None) -> None:
        """Lets generation go on after `pause`. It does no harm where nothing stands still.

        The server must be vLLM 0.12 or newer and needs `VLLM_SERVER_DEV_MODE=1`.

        Args:
            timeout: Limits for this call; a number of seconds sets `Timeout.total`.

        Raises:
            NotFoundError: The server is older, or was started without `VLLM_SERVER_DEV_MODE=1`.
            APIStatusError: The server answered with another error.
            APIConnectionError: No answer came.
        """
        self._run(admin.resume_request(timeout))

    async def aresume(self, *, timeout: float | Timeout | None = None) -> None:
        """Lets generation go on, awaiting. See `resume`."""
        await self._arun(admin.resume_request(timeout))

    def is_paused(self, *, timeout: float | Timeout | None = None) -> bool:
        """Asks whether generation stands still; it does in sleep too.

        The server must be vLLM 0.12 or newer and needs `VLLM_SERVER_DEV_MODE=1`.

        Args:
            timeout: Limits for this call; a number of seconds sets `Timeout.total`.

        Raises:
            NotFoundError: The server is older, or was started without `VLLM_SERVER_DEV_MODE=1`.
            APIStatusError: The server answered with another error.
            APIConnectionError: No answer came.
        """
        return self._run(admin.is_paused_request(timeout))

    async def ais_paused(self, *, timeout: float | Timeout | None = None) -> bool:
        """Asks whether generation stands still, awaiting. See `is_paused`."""
        return await self._arun(admin.is_paused_request(timeout))

    def abort(
        self, request_ids: str | Sequence[str], *, timeout: float | Timeout | None = None
    ) -> int | None:
        """Ends requests, also those of other clients. Their replies end with the finish reason `abort`.

        To end a stream of your own, leave it. The server must be vLLM 0.26 or newer and needs
        `VLLM_SERVER_DEV_MODE=1`.

        Args:
            request_ids: Which: the `id` of their replies or chunks. At least one.
            timeout: Limits for this call; a number of seconds sets `Timeout.total`.

        Returns:
            How many ids the server took, whether or not it knows them. None from servers that do not say.

        Raises:
            InvalidRequestError: No id, or none that is text; nothing was sent.
            NotFoundError: The server is older, or was started without `VLLM_SERVER_DEV_MODE=1`.
            APIStatusError: The server answered with another error.
            APIConnectionError: No answer came.
        """
        return self._run(admin.abort_request(request_ids, timeout))

    async def aabort(
        self, request_ids: str | Sequence[str], *, timeout: float | Timeout | None = None
    ) -> int | None:
        """Ends requests, awaiting. See `abort`."""
        return await self._arun(admin.abort_request(request_ids, timeout))

    def abort_all(self, *, timeout: float | Timeout | None = None) -> int | None:
        """Ends all requests of all clients.

        The server must be vLLM 0.26 or newer and needs `VLLM_SERVER_DEV_MODE=1`.

        Args:
            timeout: Limits for this call; a number of seconds sets `Timeout.total`.

        Returns:
            How many there were. None from servers that do not say.

        Raises:
            NotFoundError: The server is older, or was started without `VLLM_SERVER_DEV_MODE=1`.
            APIStatusError: The server answered with another error.
            APIConnectionError: No answer came.
        """
        return self._run(admin.abort_all_request(timeout))

    async def aabort_all(self, *, timeout: float | Timeout | None = None) -> int | None:
        """Ends all requests of all clients, awaiting. See `abort_all`."""
        return await self._arun(admin.abort_all_request(timeout))

    # LoRA adapters.

    def load_lora(
        self,
        name: str,
        path: str,
        *,
        load_inplace: bool | None = None,
        is_3d_lora_weight: bool | None = None,
        timeout: float | Timeout | None = None,
    ) -> None:
        """Loads a LoRA adapter. From then on, `model=name` selects it.

        The server needs `--enable-lora` and `VLLM_ALLOW_RUNTIME_LORA_UPDATING=1`.

        Args:
            name: What requests will call it.
            path: Where the server finds it: a folder on its own disk, or a hub's name.
            load_inplace: Whether it may replace one of that name. Since vLLM 0.15.
            is_3d_lora_weight: Whether its weights for experts lie in one tensor of three dimensions. Since vLLM 0.22.
            timeout: Limits for this call; a number of seconds sets `Timeout.total`.

        Raises:
            InvalidRequestError: A parameter is wrong; nothing was sent.
            BadRequestError: There is one of that name, or a model.
            NotFoundError: There is no adapter at that path, or the server does not load adapters; the message says
                which.
            APIStatusError: The server answered with another error.
            APIConnectionError: No answer came.
        """
        self._run(admin.load_lora_request(name, path, load_inplace, is_3d_lora_weight, timeout))

    async def aload_lora(
        self,
        name: str,
        path: str,
        *,
        load_inplace: bool | None = None,
        is_3d_lora_weight: bool | None = None,
        timeout: float | Timeout | None = None,
    ) -> None:
        """Loads a LoRA adapter, awaiting. See `load_lora`."""
        await self._arun(admin.load_lora_request(name, path, load_inplace, is_3d_lora_weight, timeout))

    def unload_lora(self, name: str, *, timeout: float | Timeout | None = None) -> None:
        """Unloads a LoRA adapter. The server needs what `load_lora` needs.

        Args:
            name: What requests call it.
            timeout: Limits for this call; a number of seconds sets `Timeout.total`.

        Raises:
            InvalidRequestError: A parameter is wrong; nothing was sent.
            NotFoundError: There is none of that name, or the server does not load adapters; the message says which.
            APIStatusError: The server answered with another error.
            APIConnectionError: No answer came.
        """
        self._run(admin.unload_lora_request(name, timeout))

    async def aunload_lora(self, name: str, *, timeout: float | Timeout | None = None) -> None:
        """Unloads a LoRA adapter, awaiting. See `unload_lora`."""
        await self._arun(admin.unload_lora_request(name, timeout))
