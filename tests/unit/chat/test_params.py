"""The definitions of the parameters: complete, described, and in sync with the docs page."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import parameters_page
from vllmchat.chat.check import OPENAI_CHAT_NAMES, VLLM_CHAT_NAMES
from vllmchat.chat.params import ChatParams, CommonChatParams, VLLMChatParams
from vllmchat.checking.checkers import checker_of
from vllmchat.checking.rules import Field, fields_of

if TYPE_CHECKING:
    from types import ModuleType

RECORDED = Path(__file__).parents[2] / "recorded"
SERVER: dict[str, Any] = json.loads((RECORDED / "vllm-0.32.0-fields.json").read_text("utf-8"))["requests"]

OF_THE_METHODS = {"messages", "model", "stream"}
OURS = {
    "data_parallel_rank",
    "enable_thinking",
    "extra_body",
    "extra_headers",
    "max_retry_seconds",
    "timeout",
}
NEWER = {"return_weight_versions"}

# openai 3.54.0, openai.types.chat.completion_create_params
OPENAI = {
    "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "max_completion_tokens",
    "max_tokens", "metadata", "modalities", "moderation", "n", "parallel_tool_calls", "prediction", "presence_penalty",
    "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "reasoning_effort", "response_format",
    "safety_identifier", "seed", "service_tier", "stop", "store", "stream_options", "temperature", "tool_choice",
    "tools", "top_logprobs", "top_p", "user", "verbosity", "web_search_options",
}  # fmt: skip


def test_vllm_params_are_the_servers_fields() -> None:
    served = set(SERVER["ChatCompletionRequest"])
    assert len(served) == 68
    assert served - OF_THE_METHODS == VLLM_CHAT_NAMES - OURS - NEWER
    assert VLLM_CHAT_NAMES.isdisjoint(OF_THE_METHODS)


def test_openai_params_are_the_protocols_fields() -> None:
    assert OPENAI | (OURS - {"data_parallel_rank", "enable_thinking"}) == OPENAI_CHAT_NAMES


def test_common_params_are_shared_by_both() -> None:
    assert set(fields_of(CommonChatParams)) == OPENAI_CHAT_NAMES & VLLM_CHAT_NAMES


@pytest.mark.parametrize(
    ("ours", "servers"),
    [
        ("StructuredOutputs", "StructuredOutputsParams"),
        ("StreamOptions", "StreamOptions"),
        ("RepetitionDetection", "RepetitionDetectionParams"),
        ("FunctionTool", "ChatCompletionToolsParam"),
        ("NamedToolChoice", "ChatCompletionNamedToolChoiceParam"),
        ("JSONSchema", "JsonSchemaResponseFormat"),
    ],
)
def test_nested_values_have_the_servers_keys(ours: str, servers: str) -> None:
    keys = {key for key in SERVER[servers] if not key.startswith("_")}
    not_vllms = {"include_obfuscation"}  # rejected there, with its own message
    assert set(DESCRIBED[ours].fields) - not_vllms == keys


@pytest.mark.parametrize("typed_dict", [ChatParams, VLLMChatParams, CommonChatParams])
def test_every_parameter_is_optional_and_nullable(typed_dict: type) -> None:
    assert [
        name for name, field in fields_of(typed_dict).items() if not field.nullable or field.required
    ] == []


def test_documented_defaults_match_the_server() -> None:
    ours = fields_of(VLLMChatParams)
    for name, field in SERVER["ChatCompletionRequest"].items():
        default = field.get("default")
        if name in OF_THE_METHODS or default in (None, []) or name == "tool_choice":
            continue
        said = (ours[name].default or "").partition(";")[0].strip("`")
        assert said == (json.dumps(default) if isinstance(default, str) else str(default)), name


def test_bounds_match_the_server() -> None:
    for name, field in SERVER["ChatCompletionRequest"].items():
        if (least := field.get("minimum")) is None:
            continue
        check = checker_of(fields_of(VLLMChatParams)[name])
        assert not check(int(least), name), name
        assert check(int(least) - 1, name), name


# Texts


SOURCES: dict[ModuleType, str] = {
    module: path.read_text(encoding="utf-8") for module, path in parameters_page.SOURCES.items()
}
DESCRIBED = {
    name: one
    for module, source in SOURCES.items()
    for name, one in parameters_page.described(source, module).items()
}


def texts() -> list[tuple[str, parameters_page.Text, Field]]:
    return [(one.name, text, one.fields[text.name]) for one in DESCRIBED.values() for text in one.texts]


def test_every_key_has_a_text() -> None:
    for name, one in DESCRIBED.items():
        written = {text.name for text in one.texts}
        assert written == set(getattr(one.module, name).__annotations__) & written
        bases = {
            text.name
            for base in (*parameters_page.COMMON, *parameters_page.VLLM, *parameters_page.OPENAI)
            for text in DESCRIBED[base].texts
        }
        inherited = bases if name in parameters_page.TOP else set[str]()
        assert set(one.fields) <= written | inherited
        assert one.doc


@pytest.mark.parametrize(
    ("owner", "text", "field"), [pytest.param(*each, id=f"{each[0]}.{each[1].name}") for each in texts()]
)
def test_texts_match_their_annotations(owner: str, text: parameters_page.Text, field: Field) -> None:
    first = text.paragraphs[0]
    assert first[0].isupper() or first[0] == "`", f"{owner}.{text.name}: a sentence begins with a capital"
    assert first.endswith((".", ":")), f"{owner}.{text.name}: a sentence ends"
    written = "\n".join(SOURCES[DESCRIBED[owner].module].split("\n")[text.first : text.last])
    for fact in (field.default, field.since, parameters_page.allowed(field)):
        if fact:
            assert " ".join(fact.split()) in " ".join(written.split())


def test_the_page_and_the_texts_are_up_to_date(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["parameters_page.py", "--check"])
    assert parameters_page.main() == 0, capsys.readouterr().out


def test_the_script_reports_stale_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, page = tmp_path / "params.py", tmp_path / "parameters.md"
    home = DESCRIBED["VLLMSamplingBase"].module
    source.write_text(SOURCES[home].replace("Range: at least -1.", "Range: any."), encoding="utf-8")
    page.write_text(f"# Mine\n{parameters_page.BEGIN}\n{parameters_page.END}\nmine too\n", encoding="utf-8")
    monkeypatch.setattr(parameters_page, "ROOT", tmp_path)
    monkeypatch.setattr(parameters_page, "SOURCES", {**parameters_page.SOURCES, home: source})
    monkeypatch.setattr(parameters_page, "PAGE", page)
    monkeypatch.setattr(parameters_page, "PAGES", ())
    monkeypatch.setattr("sys.argv", ["parameters_page.py", "--check"])
    assert parameters_page.main() == 1
    assert "params.py is stale\nparameters.md is stale" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["parameters_page.py"])
    assert parameters_page.main() == 0
    assert source.read_text(encoding="utf-8") == SOURCES[home]
    written = page.read_text(encoding="utf-8")
    assert written.startswith("# Mine\n")
    assert written.endswith("mine too\n")
    assert "#### `top_k` { #top_k .param }\n\n`int` · at least -1 · default: 0, or the model's" in written


@pytest.mark.parametrize("page", parameters_page.PAGES, ids=lambda page: page.page.name)
def test_the_pages_of_other_endpoints_name_every_parameter(page: parameters_page.Page) -> None:
    text = page.page.read_text(encoding="utf-8")
    names = fields_of(getattr(page.module, page.params[-1]))
    assert [name for name in names if f"`{name}`" not in text] == []
    tree = ast.parse(page.source.read_text(encoding="utf-8"))
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    assert classes <= set(page.module.__all__)
    assert sorted(page.module.__all__) == page.module.__all__


def test_the_page_names_every_parameter_and_every_nested_type() -> None:
    page = parameters_page.PAGE.read_text(encoding="utf-8")
    for name in OPENAI_CHAT_NAMES | VLLM_CHAT_NAMES:
        assert f"#### `{name}` {{ #" in page
    identifiers = re.findall(r"^#### .* \{ #(\S+) ", page, re.MULTILINE)
    assert len(identifiers) == len(set(identifiers))
    headings = {line.removeprefix("### ").lower() for line in page.splitlines() if line.startswith("### ")}
    linked = {part.partition(")")[0] for part in page.split("](#")[1:]}
    assert linked
    assert linked <= headings


@pytest.mark.parametrize(
    "module", [module for module in SOURCES if hasattr(module, "__all__")], ids=lambda module: module.__name__
)
def test_a_module_exports_what_it_defines(module: ModuleType) -> None:
    classes = {node.name for node in ast.parse(SOURCES[module]).body if isinstance(node, ast.ClassDef)}
    aliases = {"ReasoningEffort", "ResponseFormat", "ServiceTier"}
    assert set(module.__all__) - aliases == classes
    assert sorted(module.__all__) == module.__all__
