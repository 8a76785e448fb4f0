"""A MassGen that renamed something is named before the first request."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import pytest

from vllmchat.adapters.massgen import install, installed, uninstall
from vllmchat.adapters.massgen.launcher import main
from vllmchat.adapters.massgen.names import FOR_THE_BACKEND, FOR_THE_COMMAND, missing

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def not_installed() -> Iterator[None]:
    uninstall()
    yield
    uninstall()


def remove(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Takes a name out of MassGen, from the class that defines it."""
    module, _, path = name.partition(":")
    *owners, last = path.split(".")
    owner: object = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    if isinstance(owner, type):
        for each in owner.__mro__:
            if last in vars(each):
                monkeypatch.delattr(each, last)
    else:
        monkeypatch.delattr(owner, last)


def test_the_installed_massgen_has_all_of_them() -> None:
    assert list(missing([*FOR_THE_BACKEND, *FOR_THE_COMMAND])) == []


@pytest.mark.parametrize("name", FOR_THE_BACKEND)
def test_install_names_what_is_missing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    remove(monkeypatch, name)
    with pytest.raises(ImportError) as caught:
        install()
    text = str(caught.value)
    assert text.startswith("MassGen 0.1.97 has no ")
    assert name.replace(":", ".") in text
    assert "'massgen==0.1.97'" in text


@pytest.mark.parametrize("name", [FOR_THE_BACKEND[0], *FOR_THE_COMMAND])
def test_the_command_names_what_is_missing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    remove(monkeypatch, name)
    monkeypatch.setattr(sys, "argv", ["vllmchat-massgen", "--help"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert str(caught.value.code).startswith("MassGen 0.1.97 has no ")
    assert name.replace(":", ".") in str(caught.value.code)


def test_the_version_is_that_of_the_installed_massgen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "version", {"massgen": "0.3.0"}.__getitem__)
    remove(monkeypatch, "massgen.backend.base:StreamChunk")
    with pytest.raises(ImportError, match=r"MassGen 0\.3\.0 has no .*StreamChunk.*pip install 'massgen==0"):
        install()
