"""The methods for running a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllmchat.client.base import ProviderBase
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vllmchat.http.timeout import Timeout
    from vllmchat.server import admin
    from vllmchat.server.admin import PauseMode, WakeTag
else:
    admin = LazyModule("vllmchat.server.admin")


class AdminMethods(ProviderBase):
    """The methods for whoever runs the server."""

    # Sleep.

    def sleep(
        self, level: int = 1, *, mode: PauseMode | None = None, timeout: float | Timeout | None = None
    ) -> None:
        """Puts the engine to sleep, so that others can use the accelerator's memory. `wake_up` wakes it.

        Requests wait in the meantime. The server needs `VLLM_SERVER_DEV_MODE=1`, and `--enable-sleep-mode` to
        free memory.

        Args:
            level: 0 only stops generation, 1 moves the weights to host memory and drops the KV cache, 2 drops both.
                From 0 to 2.
            mode: What happens to running requests: `abort` ends them (the server's default), `wait` waits for them,
                `keep` suspends them. Older servers ignore it and abort.
            timeout: The timeouts of this call; a number of seconds sets `Timeout.total`.

        Raises:
            InvalidRequestError: A parameter is wrong; nothing was sent.
            NotFoundError: The server was started without `VLLM_SERVER_DEV_MODE=1`.
            APIStatusError: The server returned another error.
            APIConnectionError: No response arrived.
        """
        self._run(admin.sleep_request(level, mode, timeout))

    async def asleep(
        self, level: int = 1, *, mode: PauseMode | None = None, timeout: float | Timeout | None = None
    ) -> None:
        """Async version of `sleep`."""
        await self._arun(admin.sleep_request(level, mode, timeout))

    def wake_up(
        self, tags: WakeTag | Sequence[WakeTag] | None = None, *, timeout: float | Timeout | None = None
    ) -> bool | None:
        """Wakes the engine up, completely or in part. The server needs `VLLM_SERVER_DEV_MODE=1`.

        Args:
            tags: The parts: `weights`, `kv_cache`, and `scheduling` after a sleep of level 0. Without it, all.
            timeout: The timeouts of this call; a number of seconds sets `Timeout.total`.

        Returns:
            Whether all of it is awake now. None from servers before vLLM 0.32, which do not report it; call
            `is_sleeping`.

        Raises:
            InvalidRequestError: A parameter is wrong; nothing was sent.
            NotFoundError: The server was started without `VLLM_SERVER_DEV_MODE=1`.
            APIStatusError: The server returned another error.
            APIConnectionError: No response arrived.
        """
        return self._run(admin.wake_up_request(tags, timeout))

    async def awake_up(
        self, tags: WakeTag | Sequence[WakeTag] | None = None, *, timeout: float | Timeout | None = None
    ) -> bool | None:
        """Async version of `wake_up`."""
        return await self._arun(admin.wake_up_request(tags, timeout))

    def is_sleeping(self, *, timeout: float | Timeout | None = None) -> bool:
        """Checks whether the engine, or a part of it, sleeps. The server needs `VLLM_SERVER_DEV_MODE=1`.

        Args:
            timeout: The timeouts of this call; a number of seconds sets `Timeout.total`.

        Raises:
            NotFoundError: The server was started without `VLLM_SERVER_DEV_MODE=1`.
            APIStatusError: The server returned another error.
            APIConnectionError: No response arrived.
        """
        return self._run(admin.is_sleeping_request(timeout))

    async def ais_sleeping(self, *, timeout: float | Timeout | None = None) -> bool:
        """Async version of `is_sleeping`."""
        return await self._arun(admin.is_sleeping_request(timeout))

    # Caches.

    def reset_prefix_cache(
        self,
        *,
        reset_running_requests: bool | None = None,
        reset_external: bool | None = None,
        timeout: float | Timeout | None = None,
    ) -> bool | None:
        """Clears the prefix cache, for example after a weight update or before a measurement.

        The server needs `VLLM_SERVER_DEV_MODE=1`.

        Args:
            reset_running_requests: Whether running requests also give up their cached prefixes, and are recomputed.
            reset_external: Whether to clear the cache of a connector too.
            timeout: The timeouts of this call; a number of seconds sets `Timeout.total`.

        Returns:
            Whether the cache is empty now: running requests may keep it in use. None from servers before vLLM 0.26,
            which do not report it.

        Raises:
            InvalidRequestError: A parameter is wrong; nothing was sent.
            NotFoundError: The server was started without `VLLM_SERVER_DEV_MODE=1`.
            APIStatusError: The server returned another error.
            APIConnectionError: No response arrived.
        """
        return self._run(admin.reset_prefix_cache_request(reset_running_requests, reset_external, timeout))

    async def areset_prefix_cache(
        self,
        *,
        reset_running_requests: bool | None = None,
        reset_external: bool | None = None,
        timeout: float | Timeout | None = None,
    ) -> bool | None:
        """Async version of `reset_prefix_cache`."""
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
        """Pauses generation, for example for a weight update. Requests wait until `resume` is called.

        Since vLLM 0.33, they do so only with `keep`; otherwise, a new one raises a `ServiceUnavailableError`.

        The server must be vLLM 0.12 or newer and needs `VLLM_SERVER_DEV_MODE=1`.

        Args:
            mode: What happens to running requests: `abort` ends them (the server's default), `wait` waits for them,
                `keep` suspends them (since vLLM 0.16; older servers abort them).
            clear_cache: Whether to clear the prefix cache. The server's default is True; with `keep` it is never
                cleared.
            timeout: The timeouts of this call; a number of seconds sets `Timeout.total`. Waiting can take long.

        Raises:
            InvalidRequestError: A parameter is wrong; nothing was sent.
            NotFoundError: The server is older, or was started without `VLLM_SERVER_DEV_MODE=1`.
            APIStatusError: The server returned another error.
            APIConnectionError: No response arrived.
        """
        self._run(admin.pause_request(mode, clear_cache, timeout))

    async def apause(
        self,
        *,
        mode: PauseMode | None = None,
        clear_cache: bool | None = None,
        timeout: float | Timeout | None = None,
    ) -> None:
        """Async version of `pause`."""
        await self._arun(admin.pause_request(mode, clear_cache, timeout))

    def resume(self, *, timeout: float | Timeout | None = None) -> None:
        """Resumes generation after `pause`. Harmless if generation is not paused.

        The server must be vLLM 0.12 or newer and needs `VLLM_SERVER_DEV_MODE=1`.

        Args:
            timeout: The timeouts of this call; a number of seconds sets `Timeout.total`.

        Raises:
            NotFoundError: The server is older, or was started without `VLLM_SERVER_DEV_MODE=1`.
            APIStatusError: The server returned another error.
            APIConnectionError: No response arrived.
        """
        self._run(admin.resume_request(timeout))

    async def aresume(self, *, timeout: float | Timeout | None = None) -> None:
        """Async version of `resume`."""
        await self._arun(admin.resume_request(timeout))

    def is_paused(self, *, timeout: float | Timeout | None = None) -> bool:
        """Checks whether generation is paused; it is also during sleep.

        The server must be vLLM 0.12 or newer and needs `VLLM_SERVER_DEV_MODE=1`.

        Args:
            timeout: The timeouts of this call; a number of seconds sets `Timeout.total`.

        Raises:
            NotFoundError: The server is older, or was started without `VLLM_SERVER_DEV_MODE=1`.
            APIStatusError: The server returned another error.
            APIConnectionError: No response arrived.
        """
        return self._run(admin.is_paused_request(timeout))

    async def ais_paused(self, *, timeout: float | Timeout | None = None) -> bool:
        """Async version of `is_paused`."""
        return await self._arun(admin.is_paused_request(timeout))

    def abort(
        self, request_ids: str | Sequence[str], *, timeout: float | Timeout | None = None
    ) -> int | None:
        """Aborts requests, including those of other clients. Their replies end with the finish reason `abort`.

        To end a stream of your own, close it. The server must be vLLM 0.26 or newer and needs
        `VLLM_SERVER_DEV_MODE=1`.

        Args:
            request_ids: The `id` of their replies or chunks. At least one.
            timeout: The timeouts of this call; a number of seconds sets `Timeout.total`.

        Returns:
            How many IDs the server accepted, whether or not it knows them. None from servers that do not report it.

        Raises:
            InvalidRequestError: No IDs, or something other than strings; nothing was sent.
            NotFoundError: The server is older, or was started without `VLLM_SERVER_DEV_MODE=1`.
            APIStatusError: The server returned another error.
            APIConnectionError: No response arrived.
        """
        return self._run(admin.abort_request(request_ids, timeout))

    async def aabort(
        self, request_ids: str | Sequence[str], *, timeout: float | Timeout | None = None
    ) -> int | None:
        """Async version of `abort`."""
        return await self._arun(admin.abort_request(request_ids, timeout))

    def abort_all(self, *, timeout: float | Timeout | None = None) -> int | None:
        """Aborts all requests of all clients.

        The server must be vLLM 0.26 or newer and needs `VLLM_SERVER_DEV_MODE=1`.

        Args:
            timeout: The timeouts of this call; a number of seconds sets `Timeout.total`.

        Returns:
            How many there were. None from servers that do not report it.

        Raises:
            NotFoundError: The server is older, or was started without `VLLM_SERVER_DEV_MODE=1`.
            APIStatusError: The server returned another error.
            APIConnectionError: No response arrived.
        """
        return self._run(admin.abort_all_request(timeout))

    async def aabort_all(self, *, timeout: float | Timeout | None = None) -> int | None:
        """Async version of `abort_all`."""
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
        """Loads a LoRA adapter. After that, `model=name` selects it.

        The server needs `--enable-lora` and `VLLM_ALLOW_RUNTIME_LORA_UPDATING=1`.

        Args:
            name: The name for requests to use.
            path: Where the server finds it: a directory on its own disk, or a name on a hub.
            load_inplace: Whether it may replace an adapter of the same name. Since vLLM 0.15.
            is_3d_lora_weight: Whether its expert weights are stored in a single 3D tensor. Since vLLM 0.22.
            timeout: The timeouts of this call; a number of seconds sets `Timeout.total`.

        Raises:
            InvalidRequestError: A parameter is wrong; nothing was sent.
            BadRequestError: An adapter or model of that name exists already.
            NotFoundError: No adapter is at that path, or the server does not load adapters; the message says
                which.
            APIStatusError: The server returned another error.
            APIConnectionError: No response arrived.
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
        """Async version of `load_lora`."""
        await self._arun(admin.load_lora_request(name, path, load_inplace, is_3d_lora_weight, timeout))

    def unload_lora(self, name: str, *, timeout: float | Timeout | None = None) -> None:
        """Unloads a LoRA adapter. The server needs the same options as for `load_lora`.

        Args:
            name: Its name.
            timeout: The timeouts of this call; a number of seconds sets `Timeout.total`.

        Raises:
            InvalidRequestError: A parameter is wrong; nothing was sent.
            NotFoundError: No adapter has that name, or the server does not load adapters; the message says
                which.
            APIStatusError: The server returned another error.
            APIConnectionError: No response arrived.
        """
        self._run(admin.unload_lora_request(name, timeout))

    async def aunload_lora(self, name: str, *, timeout: float | Timeout | None = None) -> None:
        """Async version of `unload_lora`."""
        await self._arun(admin.unload_lora_request(name, timeout))
