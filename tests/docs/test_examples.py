"""Every example in the README and in the documentation runs, prints what it says it prints, and type-checks."""

from __future__ import annotations

import inspect
import json
import logging
import os
import re
import shlex
import subprocess
import sys
import tomllib
import traceback
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest
import respx
import yaml  # type: ignore[import-untyped] # it has no types, and this one call needs none

from support import ray_cluster, recordings
from support.adapters import make_adapter
from support.examples import ROOT, Example, as_promised, examples, read
from support.vllm import API_KEY
from vllm_server import EXAMPLES_MODEL_NAME, PLAYGROUND_PORT
from vllmchat import VLLMChatError, VLLMProvider

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.vllm import LiveServer

SERVER = f"http://localhost:{PLAYGROUND_PORT}"
"""The server of the examples. It is replaced by the tests' own, which is the same one on another port."""

PYTHON = examples("python")
SHELL = examples("bash", "shell", "sh", "console")

FILES = {
    "cat.png": b"\x89PNG\r\n\x1a\n" + bytes(16),
    "question.wav": b"RIFF\x24\0\0\0WAVEfmt " + bytes(24),
    "clip.mp4": b"\0\0\0\x18ftypisom" + bytes(16),
}
"""Files that examples read."""


def ids(example: Example) -> str:
    return example.name


def test_examples_are_found() -> None:
    assert len(PYTHON) > 30
    assert {example.path.name for example in PYTHON} >= {"README.md", "streaming.md", "errors.md", "tools.md"}


def test_the_playground_is_where_examples_look_for_it() -> None:
    """So that they run as they are after `make server`, without an environment variable."""
    assert VLLMProvider().base_url == f"{SERVER}/v1"
    models = {name for each in PYTHON for name in re.findall(r"VLLMProvider\(\"([^\"]+)\"", each.code)}
    assert models >= {EXAMPLES_MODEL_NAME}
    assert {name for name in models if name.startswith("Qwen/")} == {EXAMPLES_MODEL_NAME}


@pytest.mark.parametrize(
    "example", [each for each in PYTHON if each.directive in ("", "type-error")], ids=ids
)
def test_it_runs(
    example: Example,
    vllm_server: LiveServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("VLLM_BASE_URL", vllm_server.base_url)
    source = example.at_its_line().replace(SERVER, vllm_server.url)
    run(example, source, tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize("example", [each for each in PYTHON if each.directive == "pooling"], ids=ids)
def test_it_runs_with_a_model_that_embeds(
    example: Example,
    pooling_server: LiveServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("VLLM_BASE_URL", pooling_server.base_url)
    run(example, example.at_its_line(), tmp_path, monkeypatch, capsys)


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    """A local cluster."""
    with ray_cluster.cluster():
        yield


@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize(
    "example",
    [pytest.param(each, marks=ray_cluster.MARKS) for each in PYTHON if each.directive == "ray"],
    ids=ids,
)
def test_it_runs_on_a_cluster(
    example: Example,
    vllm_server: LiveServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("VLLM_BASE_URL", vllm_server.base_url)
    run(example, example.at_its_line(), tmp_path, monkeypatch, capsys)


@pytest.mark.needs("LoRA")
@pytest.mark.parametrize("example", [each for each in PYTHON if each.directive == "adapters"], ids=ids)
def test_it_runs_with_adapters(
    example: Example,
    admin_server: LiveServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("VLLM_BASE_URL", admin_server.base_url)
    monkeypatch.setenv("VLLM_API_KEY", API_KEY)
    for name in ("legal", "medical"):
        make_adapter(tmp_path / "adapters", name)
    run(example, example.at_its_line(), tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize("example", [each for each in PYTHON if each.directive == "stand-in"], ids=ids)
def test_it_runs_with_a_stand_in(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VLLM_BASE_URL", f"{SERVER}/v1")
    recorded = json.loads((ROOT / "tests/recorded/vllm-0.32.0/chat.json").read_text(encoding="utf-8"))
    answer = recorded["response"]["body"]
    with respx.mock(assert_all_called=False) as router:
        router.get(f"{SERVER}/v1/models").respond(
            json={"object": "list", "data": [{"id": EXAMPLES_MODEL_NAME, "object": "model"}]}
        )
        router.post(f"{SERVER}/v1/chat/completions").respond(content=answer, content_type="application/json")
        router.post(f"{SERVER}/v1/audio/transcriptions").mock(side_effect=transcribed)
        router.post(f"{SERVER}/classify").respond(json=CLASSES)
        router.get(f"{SERVER}/version").respond(json={"version": "0.33.0"})
        for route, name in (
            ("/v1/chat/completions/render", "render_parse_context_tools"),
            ("/inference/v1/generate", "generate_derender_tools"),
            ("/v1/embeddings", "late_chunking"),
        ):
            newest = "0.33.0-token-embed" if route == "/v1/embeddings" else "0.33.0"
            router.post(f"{SERVER}{route}").respond(content=recordings.load(name, newest).body)
        router.post(f"{SERVER}/v1/decisions").respond(json=DECISION)
        run(example, example.at_its_line(), tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize("example", [each for each in PYTHON if each.directive == "offline"], ids=ids)
def test_it_runs_without_a_server(
    example: Example,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(example, example.at_its_line(), tmp_path, monkeypatch, capsys, request)


CLASSES = {
    "object": "list",
    "data": [
        {"index": 0, "label": "POSITIVE", "probs": [0.25, 0.75], "num_classes": 2},
        {"index": 1, "label": "NEGATIVE", "probs": [0.9, 0.1], "num_classes": 2},
    ],
}

DECISION = {
    "model": EXAMPLES_MODEL_NAME,
    "answers": [
        {"type": "predicate", "name": "damaged", "probability": 0.97},
        {
            "type": "choice",
            "name": "department",
            "choice": "returns",
            "probabilities": [
                {"value": "returns", "probability": 0.94},
                {"value": "billing", "probability": 0.06},
            ],
            "confidence": 0.9,
        },
        {
            "type": "score",
            "name": "severity",
            "score": 1.8,
            "probabilities": [
                {"value": 0, "label": "none", "probability": 0.02},
                {"value": 1, "label": "cosmetic", "probability": 0.16},
                {"value": 2, "label": "broken", "probability": 0.82},
            ],
            "confidence": 0.41,
        },
    ],
    "usage": {
        "input_tokens": 240,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 243,
    },
}
"""In the form of vLLM 0.33; the tiny model would answer, but not sensibly."""


def transcribed(request: httpx.Request) -> httpx.Response:
    """What vLLM's own models of answers say to a form."""
    answers = json.loads((ROOT / "tests/recorded/vllm-0.32.0-audio.json").read_text(encoding="utf-8"))
    form = request.content
    if b'name="stream"' in form:
        events = "".join(f"data: {event}\n\n" for event in [*answers["transcription_stream"], "[DONE]"])
        return httpx.Response(200, text=events, headers={"content-type": "text/event-stream"})
    verbose = b"verbose_json" in form
    text = answers["transcription_verbose"] if verbose else '{"text": "Hello.", "usage": null}'
    return httpx.Response(200, text=text, headers={"content-type": "application/json"})


LOGGERS = ("vllmchat", *(f"vllmchat.{name}" for name in ("requests", "retries", "connections", "bodies")))


def run(
    example: Example,
    source: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest | None = None,
) -> None:
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    monkeypatch.chdir(folder)
    code = compile(source, str(example.path), "exec", dont_inherit=True)
    namespace: dict[str, object] = {"__name__": "__main__"}
    before = [(each, each.level, each.handlers[:]) for each in map(logging.getLogger, LOGGERS)]
    try:
        exec(code, namespace)
    except VLLMChatError as error:
        if example.directive != "type-error":
            raise
        sys.stdout.writelines(traceback.format_exception_only(error))
    finally:
        # An example may configure the log, which must not leak into later tests.
        for logger, level, handlers in before:
            logger.setLevel(level)
            logger.handlers[:] = handlers
    for name, value in list(namespace.items()):
        if name.startswith("test_") and callable(value):
            fixtures = list(inspect.signature(value).parameters)
            assert request is not None or not fixtures, f"{example.name}: only offline examples have fixtures"
            value(**{each: request.getfixturevalue(each) for each in fixtures if request is not None})
    printed = capsys.readouterr().out
    if example.output:
        assert as_promised(example.output, printed), f"{example.name} printed:\n{printed}"


@pytest.mark.parametrize(
    "example", [each for each in PYTHON if each.directive in ("not-run", "not-checked")], ids=ids
)
def test_it_compiles(example: Example) -> None:
    compile(example.at_its_line(), str(example.path), "exec", dont_inherit=True)


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with each example as a module."""
    folder = tmp_path_factory.mktemp("examples")
    for example in PYTHON:
        if example.directive not in ("not-checked", "notebook"):
            (folder / f"{example.module}.py").write_text(example.code, encoding="utf-8")
    return folder


def complaints(output: str) -> dict[str, list[str]]:
    """What a type checker says, by module."""
    found: dict[str, list[str]] = {}
    for line in output.splitlines():
        if (match := re.search(r"(\w+)\.py:\d+(?::\d+)?(?::| -) error: (.*)", line)) is not None:
            found.setdefault(match[1], []).append(match[2])
    return found


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_type_checkers_agree(checker: str, modules: Path) -> None:
    options = {
        "mypy": ["--strict", "--no-error-summary", f"--cache-dir={ROOT / '.mypy_cache' / 'examples'}"],
        "pyright": ["--pythonpath", sys.executable],
    }[checker]
    settings = {"typeCheckingMode": "strict", "include": ["."], "stubPath": str(ROOT / "typings")}
    (modules / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    targets = ["."] if checker == "mypy" else ["-p", "."]
    done = subprocess.run(
        [sys.executable, "-m", checker, *options, *targets],
        cwd=modules,
        env={**os.environ, "MYPYPATH": f"{ROOT / 'src'}:{ROOT / 'typings'}"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    found = complaints(done.stdout)
    assert found or done.returncode == 0, done.stdout + done.stderr
    wrong_on_purpose = {each.module for each in PYTHON if each.directive == "type-error"}
    assert found.keys() == wrong_on_purpose, done.stdout


# What is written for a shell, or for a configuration file


def test_shell_blocks_name_what_exists() -> None:
    project = cast("dict[str, Any]", tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    settings = set(re.findall(r"^(\w+) +\?=", makefile, re.MULTILINE))
    extras = set(project["optional-dependencies"])
    for example in SHELL:
        for line in example.code.splitlines():
            if example.language == "console" and not line.startswith("$ "):
                continue  # an output
            words = line.removeprefix("$ ").split("#")[0].split()
            if words[:1] == ["make"]:
                said = shlex.split(line.removeprefix("$ "), comments=True)[1:]
                given = {word.partition("=")[0] for word in said if "=" in word}
                wanted = {word for word in said if "=" not in word}
                assert wanted <= targets, f"{example.name}: {line}"
                assert given <= settings, f"{example.name}: {line}"
            if words[:2] == ["pip", "install"]:
                for named in re.findall(r"\[([\w,-]+)\]", line):
                    assert set(named.split(",")) <= extras, f"{example.name}: {line}"
            if words and words[0].startswith("vllmchat"):
                assert words[0] in project["scripts"], f"{example.name}: {line}"
            for path in re.findall(r"(?:scripts|tests|docs|benchmarks)/[\w./-]+", line):
                assert (ROOT / path).exists(), f"{example.name}: {line}"


def test_yaml_blocks_are_yaml() -> None:
    for example in examples("yaml", "yml"):
        assert yaml.safe_load(example.code), example.name


# The reading of examples itself


def write(folder: Path, text: str) -> Path:
    path = folder / "page.md"
    path.write_text(text, encoding="utf-8")
    return path


def test_reading_takes_code_output_and_directive(tmp_path: Path) -> None:
    page = write(
        tmp_path,
        "Text.\n\n<!-- example: type-error -->\n```python\nprint(1)\n#> 1\n```\n\n```text\n2\n```\n"
        "\n- item\n\n    ```bash\n    make x\n    ```\n",
    )
    python, shell = read(page)
    assert (python.line, python.code, python.directive) == (5, "print(1)\n#> 1\n", "type-error")
    assert python.output == ["1", "2"]
    assert (shell.language, shell.code, shell.directive) == ("bash", "make x\n", "")


@pytest.mark.parametrize(
    "text",
    [
        "```python\nprint(1)\n",
        "<!-- example: not-run -->\n```python\n```\n",
        "<!-- example: sometimes -->\n```python\n```\n",
        "<!-- example: stand-in -->\ntext\n",
    ],
)
def test_a_page_that_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"page\.md"):
        read(write(tmp_path, text))


def test_promises_are_kept_or_broken() -> None:
    assert as_promised(["a b", "c"], "\n\na b\n\nc\n")
    assert as_promised(["a b", "  c"], "a b c\n"), "a long line is wrapped"
    assert not as_promised(["a b"], "a\nb\n")
    assert not as_promised(["a", "b"], "ab\n")
    assert as_promised(["took … s"], "took 0.3 s")
    assert not as_promised(["took … s"], "took 0.3 m")
    assert not as_promised(["a"], "a b")
    assert not as_promised(["a.c"], "abc")
