"""Watch three agents of MassGen's agree on an answer, on a real vLLM server: `make massgen-demo`.

It installs the server and MassGen where they are missing (a few minutes each, once a machine), starts the server,
lets MassGen run with vllmchat's backend, tells what happened, and stops the server again.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import massgen_env
from cached_env import InstallError, cache_dir, say_to_stderr
from demo import Screen, without_proxy
from vllm_server import VLLM_VERSION, Options, Server, ServerError, running
from vllmchat.adapters.massgen import settings

QUESTION = "What is six times seven?"

CONFIG = """\
agents:
  - id: "thinker"
    backend:
      type: "vllm"
      model: "{model}"
      base_url: "{base_url}"
      temperature: 0
      top_k: 50
      enable_thinking: true
  - id: "brief"
    backend:
      type: "vllm"
      model: "{model}"
      base_url: "{base_url}"
      temperature: 0
      enable_thinking: false
  - id: "careful"
    backend:
      type: "vllm"
      model: "{model}"
      base_url: "{base_url}"
      temperature: 0
      min_p: 0.05
      max_tokens: 200
"""


def run_massgen(server: Server, python: Path, folder: Path, screen: Screen) -> dict[str, Any]:
    """Runs MassGen and shows its report; gives what it wrote into its status file."""
    config = CONFIG.format(model=server.model, base_url=server.base_url)
    (folder / "agents.yaml").write_text(config, encoding="utf-8")
    screen.heading("agents.yaml: three agents, each with parameters of its own")
    for line in config.splitlines():
        screen.line(line, screen.CYAN)
    command = f'vllmchat-massgen --automation --config agents.yaml "{QUESTION}"'
    screen.heading(f"$ {command}")
    screen.line("(MassGen's imports take ten seconds and more)", screen.DIM)
    words = ["--automation", "--no-session-registry", "--config", "agents.yaml", QUESTION]
    done = subprocess.run(
        [str(python), "-W", "ignore", "-m", "vllmchat.adapters.massgen", *words],
        cwd=folder,
        env={**massgen_env.environment(), "HOME": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ServerError(f"MassGen ended with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
    for line in done.stdout.splitlines():
        if line and not line.startswith(("LOG_DIR", "STATUS", "ANSWER", "FINAL_DIR", "[Coordination")):
            screen.line(line)
    (status_file,) = re.findall(r"^STATUS: (.*)$", done.stdout, re.MULTILINE)
    (answer_file,) = re.findall(r"^ANSWER: (.*)$", done.stdout, re.MULTILINE)
    status: dict[str, Any] = json.loads(Path(status_file).read_text(encoding="utf-8"))
    return {**status, "answer": Path(answer_file).read_text(encoding="utf-8").strip()}


def tell(status: dict[str, Any], screen: Screen) -> None:
    """What MassGen knows of the run, by the server's own counts."""
    screen.heading("The answer that won")
    screen.line(status["answer"])
    screen.heading("Tokens that MassGen counted, as reported by the server")
    screen.line(f"{'agent':<10}{'prompt':>8}{'generated':>11}{'reasoning':>11}{'context':>9}", screen.DIM)
    for name, agent in status["agents"].items():
        used, rounds = agent["token_usage"], agent["round_history"]
        counts = (used["input_tokens"], used["output_tokens"], used["reasoning_tokens"])
        screen.line("{:<10}{:>8}{:>11}{:>11}{:>9}".format(name, *counts, rounds[0]["context_window_size"]))


def misspelled(screen: Screen) -> None:
    """Show the error for a misspelled key."""
    screen.heading("repitition_penalty: 1.2, in a block, stops the run before the first request")
    for line in settings.report(
        settings.check({"model": "m", "repitition_penalty": 1.2}), "agents[0].backend"
    ):
        screen.line(line, screen.RED)


def main() -> int:
    """The demo."""
    without_proxy()
    screen = Screen(sys.stdout, color=sys.stdout.isatty() and not os.environ.get("NO_COLOR"))
    try:
        python = massgen_env.install()
        options = Options(
            name=f"massgen-demo-{os.getpid()}", log=cache_dir() / "servers" / "massgen-demo.log"
        )
        with running(options) as server, tempfile.TemporaryDirectory() as folder:
            screen.line(
                f"MassGen {massgen_env.MASSGEN_VERSION} on vllmchat, with vLLM {VLLM_VERSION} at {server.base_url}",
                screen.BOLD,
            )
            tell(run_massgen(server, python, Path(folder), screen), screen)
            misspelled(screen)
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
