"""Switching the backend on for a whole environment, and what Python runs at its start then."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from vllmchat.adapters.massgen import installed, launcher, switch


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The site-packages of an environment with MassGen."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.setattr(sysconfig, "get_path", {"purelib": str(folder)}.__getitem__)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    monkeypatch.setattr(installed, "version", {"massgen": "0.1.97"}.__getitem__)
    return folder


def ends(monkeypatch: pytest.MonkeyPatch, *words: str) -> int | str | None:
    """The exit code of `vllmchat-massgen` with these words."""
    monkeypatch.setattr(sys, "argv", ["vllmchat-massgen", *words])
    with pytest.raises(SystemExit) as caught:
        launcher.main()
    return caught.value.code


def test_on_and_off_again(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(monkeypatch, "status") == 1
    assert "Not enabled" in capsys.readouterr().err
    for _ in range(2):
        assert ends(monkeypatch, "enable") == 0
        assert "vllmchat-massgen disable" in capsys.readouterr().out
    assert [file.name for file in site.iterdir()] == [switch.NAME]
    assert ends(monkeypatch, "status") == 0
    assert str(site / switch.NAME) in capsys.readouterr().out
    for _ in range(2):
        assert ends(monkeypatch, "disable") == 0
    assert list(site.iterdir()) == []
    assert "Not enabled" in capsys.readouterr().out
    assert ends(monkeypatch, "status") == 1


def test_a_file_of_another_version_is_named(site: Path) -> None:
    assert switch.run("enable")[0] == 0
    (site / switch.NAME).write_text("import sys\n", encoding="ascii")
    code, text = switch.run("status")
    assert code == 0
    assert "another version" in text
    assert switch.run("enable")[0] == 0
    assert "another version" not in switch.run("status")[1]


def test_without_massgen_nothing_is_enabled(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "version", {"massgen": "0.1.12"}.__getitem__)
    code, text = switch.run("enable")
    assert code == 1
    assert "MassGen 0.1.12 is too old" in text
    assert list(site.iterdir()) == []
    assert switch.run("disable")[0] == 0


def test_a_folder_that_python_does_not_read_is_named(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    code, text = switch.run("enable")
    assert code == 1
    assert str(site) in text
    assert list(site.iterdir()) == []


@pytest.mark.parametrize("command", ["enable", "disable"])
def test_a_folder_that_cannot_be_written_is_named(
    site: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    switch.run("enable")

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    code, text = switch.run(command)
    assert code == 1
    assert f"{site / switch.NAME} cannot be changed: Permission denied" in text


def test_other_words_are_massgens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "version", {"massgen": "0.1.12"}.__getitem__)
    assert "too old" in str(ends(monkeypatch, "enable", "it"))
    assert "too old" in str(ends(monkeypatch, "--enable"))


# What runs at the start


def starts(site: Path, code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    """Runs a program in a Python that reads the file at its start."""
    assert switch.run("enable")[0] == 0
    start = f"import site; site.addsitedir({str(site)!r})\n"
    return subprocess.run(
        [sys.executable, "-c", start + code],
        env={"PYTHONPATH": ":".join(map(str, path))},
        capture_output=True,
        text=True,
        check=False,
    )


def write(folder: Path, **files: str) -> Path:
    """Writes modules of a package `massgen`."""
    (folder / "massgen").mkdir(parents=True, exist_ok=True)
    for name in ("__init__", "cli"):
        (folder / "massgen" / f"{name}.py").write_text(files.get(name, ""), encoding="utf-8")
    return folder


def test_programs_without_massgen_import_nothing_more(site: Path) -> None:
    before = "import site, sys; before = set(sys.modules)\n"
    code = "print(sorted(set(sys.modules) - before), type(sys.meta_path[0]).__name__)"
    start = f"{before}site.addsitedir({str(site)!r})\n{code}"
    assert switch.run("enable")[0] == 0
    done = subprocess.run(
        [sys.executable, "-c", start], capture_output=True, text=True, check=True, env={"PYTHONPATH": ""}
    )
    assert (done.stdout.strip(), done.stderr) == ("[] MassGenFinder", "")


def test_other_modules_of_massgen_do_not_start_it(site: Path, tmp_path: Path) -> None:
    fake = write(tmp_path / "fake", cli="raise AssertionError")
    done = starts(site, "import massgen, sys; print('vllmchat' in sys.modules, 'json' in sys.modules)", fake)
    assert (done.stdout, done.stderr) == ("False False\n", "")


def test_what_fails_is_said_once_and_the_program_goes_on(site: Path, tmp_path: Path) -> None:
    # `massgen` is there, but not as an installed package, so that the backend cannot be installed.
    fake = write(tmp_path / "fake", cli="answer = 42")
    code = "import massgen.cli, importlib; importlib.reload(massgen.cli); print(massgen.cli.answer)"
    done = starts(site, code, fake)
    assert done.stdout == "42\n"
    (line,) = done.stderr.splitlines()
    assert "MassGen is not installed" in line
    assert "MassGen uses its own backend for `type: vllm`" in line
    assert str(site / switch.NAME) in line


def test_it_goes_on_without_vllmchat_too(site: Path, tmp_path: Path) -> None:
    fake = write(tmp_path / "fake", cli="answer = 42")
    (fake / "vllmchat.py").write_text("raise ImportError('no vllmchat today')", encoding="utf-8")
    done = starts(site, "import massgen.cli; print(massgen.cli.answer)", fake)
    assert done.stdout == "42\n"
    assert done.stderr.count("\n") == 1
    assert "no vllmchat today" in done.stderr


def test_a_closed_stderr_is_no_problem(site: Path, tmp_path: Path) -> None:
    fake = write(tmp_path / "fake", cli="answer = 42")
    code = "import sys; sys.stderr.close()\nimport massgen.cli; print(massgen.cli.answer)"
    assert starts(site, code, fake).stdout == "42\n"


def test_an_error_of_massgen_itself_stays_massgens(site: Path, tmp_path: Path) -> None:
    fake = write(tmp_path / "fake", cli="raise ImportError('its own')")
    done = starts(site, "import massgen.cli", fake)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "ImportError: its own"
    assert "vllmchat-massgen" not in done.stderr


def test_a_missing_module_is_missing_as_before(site: Path, tmp_path: Path) -> None:
    fake = write(tmp_path / "fake")
    (fake / "massgen" / "cli.py").unlink()
    done = starts(site, "import massgen.cli", fake)
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'massgen.cli'"
    assert "vllmchat-massgen" not in done.stderr
