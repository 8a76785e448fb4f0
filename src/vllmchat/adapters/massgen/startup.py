"""What `vllmchat-massgen enable` makes every Python of an environment run at its start.

The text of this module is copied into that environment, so it must stand alone, and be quick: it imports nothing until
a program imports `massgen.cli`. Whatever goes wrong then, the program goes on.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class MassGenFinder:
    """Notices when `massgen.cli` is imported, without which MassGen creates no agents from a configuration."""

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """Finds `massgen.cli` as Python does, and nothing else."""
        if name != "massgen.cli":
            return None
        try:
            from importlib.machinery import PathFinder

            spec = PathFinder.find_spec(name, path, target)
            if spec is None or spec.loader is None:
                return None
            load = spec.loader.exec_module

            def load_and_take_over(module: "ModuleType") -> None:
                load(module)
                self._take_over()

            spec.loader.exec_module = load_and_take_over  # type: ignore[method-assign]
        except Exception as error:
            _say(error)
            return None
        return spec

    def _take_over(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            try:
                from vllmchat.adapters.massgen.launcher import take_over

                take_over()
            except Exception as error:
                _say(error)


def _say(error: Exception) -> None:
    try:  # noqa: SIM105 - importing contextlib takes longer than all the rest
        sys.stderr.write(
            f"vllmchat-massgen: MassGen uses its own backend for `type: vllm`, because of {__file__}: {error}\n"
        )
    except Exception:
        pass  # There is nowhere to say it, and the program must go on.


def watch() -> None:
    """Waits for MassGen."""
    sys.meta_path.insert(0, MassGenFinder())
