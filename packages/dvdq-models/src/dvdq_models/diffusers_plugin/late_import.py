"""Something to do as soon as a module is imported, by whomever: a finder of modules that waits for it."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


def when_imported(awaited: str, module: str, function: str) -> None:
    """Import ``module`` and call ``function`` of it after ``awaited`` is imported: now, if it is."""
    if awaited in sys.modules:
        getattr(importlib.import_module(module), function)()
    else:
        sys.meta_path.insert(0, _Waiting(awaited, module, function))


class _Waiting(importlib.abc.MetaPathFinder):
    """Finds nothing itself; has the awaited module's own loader do a little more, once."""

    def __init__(self, awaited: str, module: str, function: str) -> None:
        self._awaited, self._module, self._function = awaited, module, function

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._awaited:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_tell(loaded: ModuleType) -> None:
                execute(loaded)
                getattr(importlib.import_module(self._module), self._function)()

            spec.loader.exec_module = execute_and_tell  # type: ignore[assignment, method-assign]
        return spec
