"""The texts of the parameters of tokens, embeddings, scores and audio match their annotations."""

from __future__ import annotations

import ast
import inspect
from typing import TYPE_CHECKING

import pytest
from typing_extensions import is_typeddict

from parameters_page import facts
from vllmchat.audio import params as audio
from vllmchat.chat import templating
from vllmchat.checking.rules import fields_of
from vllmchat.decisions import params as decisions
from vllmchat.pooling import params as pooling
from vllmchat.tokens import tokenize

if TYPE_CHECKING:
    from types import ModuleType


def texts(module: ModuleType) -> list[tuple[str, str, str, str]]:
    """Returns each parameter in a module: its class, its name, its text, and how the text must end."""
    found: list[tuple[str, str, str, str]] = []
    for node in ast.parse(inspect.getsource(module)).body:
        if not isinstance(node, ast.ClassDef) or not is_typeddict(getattr(module, node.name)):
            continue
        fields = fields_of(getattr(module, node.name))
        for item, after in zip(node.body, node.body[1:], strict=False):
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                assert isinstance(after, ast.Expr)
                assert isinstance(after.value, ast.Constant)
                name = item.target.id
                found.append((node.name, name, str(after.value.value), facts(fields[name])))
    return found


@pytest.mark.parametrize(
    "module", [tokenize, templating, pooling, audio, decisions], ids=lambda module: module.__name__
)
def test_texts_match_their_annotations(module: ModuleType) -> None:
    found = texts(module)
    assert len(found) >= 4
    for owner, name, text, last in found:
        assert " ".join(text.split()).endswith(last), f"{owner}.{name} must end with: {last}"
        assert text[0].isupper(), f"{owner}.{name}"
