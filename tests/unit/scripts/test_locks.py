"""scripts/locks.py: every environment is installed from a lock that fits pyproject.toml, or not at all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import locks
from locks import Lock, StaleLockError

MAKEFILE = Path(__file__).parents[3] / "Makefile"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project for locks."""
    monkeypatch.setattr(locks, "ROOT", tmp_path)
    monkeypatch.setattr(locks, "FOLDER", tmp_path / "locks")
    (tmp_path / "locks").mkdir()
    return tmp_path


def write(lock: Lock, *lines: str) -> None:
    lock.path.write_text("\n".join([f"# sources: {lock.digest}", *lines]), encoding="utf-8")


@pytest.mark.parametrize("name", sorted(locks.locks()))
def test_a_lock_fits_what_it_is_resolved_from(name: str) -> None:
    locks.locks()[name].require_fresh()


@pytest.mark.parametrize("name", sorted(locks.locks()))
def test_a_lock_holds_exact_versions_only(name: str) -> None:
    lines = locks.locks()[name].path.read_text("utf-8").splitlines()
    packages = [line for line in lines if line and not line.startswith((" ", "#"))]
    assert packages
    assert [line for line in packages if not re.match(r"[a-z0-9.-]+==[^ ;]+( ;.*)?( \\)?$", line)] == []


def test_what_everybody_installs_is_held_to_its_hashes() -> None:
    for name in ("runtime", "docs", "dev", "bench", "massgen", "tools", "vllm-0.32.0"):
        lock = locks.locks()[name]
        assert "--require-hashes" in locks.install_arguments(lock), name
        text = lock.path.read_text("utf-8")
        assert len(re.findall(r"^[a-z].*\\$", text, re.MULTILINE)) == len(
            re.findall(r"^[a-z]", text, re.MULTILINE)
        )


def test_environments_that_are_one_share_their_versions() -> None:
    def packages(name: str) -> set[str]:
        return set(re.findall(r"^[a-z].*", locks.locks()[name].path.read_text("utf-8"), re.MULTILINE))

    assert packages("runtime") < packages("docs") < packages("dev")


def test_make_installs_from_locks_alone() -> None:
    recipes = [line for line in MAKEFILE.read_text("utf-8").splitlines() if line.startswith("\t")]
    assert [line for line in recipes if re.search(r"\bpip\b", line)] == []


def test_a_stale_lock_is_an_error_that_names_the_command(folder: Path) -> None:
    lock = Lock(name="dev", requirements=("httpx>=0.28",))
    with pytest.raises(StaleLockError, match=r"locks/dev\.txt is missing\. Run: make lock"):
        locks.install_arguments(lock)
    write(lock, "httpx==0.28.1")
    assert locks.install_arguments(lock)[-1] == str(lock.path)
    changed = Lock(name="dev", requirements=("httpx>=0.29",))
    with pytest.raises(
        StaleLockError, match=r"locks/dev\.txt is stale: its requirements have changed\. Run: make lock"
    ):
        locks.install_arguments(changed)


def test_the_command_line_reports_a_stale_lock(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = Lock(name="dev", requirements=("httpx",))
    monkeypatch.setattr(locks, "locks", lambda: {"dev": lock})
    assert locks.main(["check"]) == 1
    assert locks.main(["install", "dev"]) == 1
    assert capsys.readouterr().err.count("error: locks/dev.txt is missing. Run: make lock") == 2
    write(lock)
    assert locks.main(["check"]) == 0


def test_a_change_of_any_source_makes_a_lock_stale() -> None:
    plain = Lock(name="x", requirements=("a",))
    others = [
        Lock(name="x", requirements=("a", "b")),
        Lock(name="x", requirements=("a",), overrides=("c",)),
        Lock(name="x", requirements=("a",), excluded=("c",)),
        Lock(name="x", requirements=("a",), omitted="c"),
        Lock(name="x", requirements=("a",), before="2026-01-01"),
        Lock(name="x", requirements=("a",), within="dev"),
    ]
    assert len({plain.digest, *(other.digest for other in others)}) == 7


def test_a_lock_that_was_renewed_is_another_environment(folder: Path) -> None:
    lock = Lock(name="massgen", requirements=("massgen",))
    assert lock.contents() == "unlocked"
    write(lock, "massgen==0.1.97")
    before = lock.contents()
    write(lock, "massgen==0.1.98")
    assert lock.contents() != before


def test_omitted_packages_leave_the_lock_with_their_hashes_and_become_constraints() -> None:
    lines = [
        "six==1.0 \\",
        "    --hash=a",
        "torch==2.0 \\",
        "    --hash=b",
        "torchmetrics==1 \\",
        "    --hash=c",
    ]
    kept, omitted = locks._part(r"torch|nvidia-.*", lines)  # pyright: ignore[reportPrivateUsage]
    assert kept == ["six==1.0 \\", "    --hash=a", "torchmetrics==1 \\", "    --hash=c"]
    assert omitted == ["torch==2.0"]


@pytest.mark.parametrize("name", sorted(name for name, lock in locks.locks().items() if lock.omitted))
def test_torch_and_what_its_other_builds_need_have_exact_versions(name: str) -> None:
    lines = locks.locks()[name].constraints.read_text("utf-8").splitlines()
    packages = [line for line in lines if not line.startswith("#")]
    assert any(line.startswith("torch==") for line in packages)
    assert [line for line in packages if not re.match(r"[a-z0-9.-]+==[^ ;]+( ;.*)?$", line)] == []
