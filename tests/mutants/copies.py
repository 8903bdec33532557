"""A copy of a backend's folder, with one line broken or none, that conformance can be asked about."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from dvdq_kernels.registry import operators, registered

Check = Callable[[str, str], None]
"""Of a backend's name and a device."""


@dataclass(frozen=True)
class Break:
    """In ``file``, what stands there once and what is put in its place; ``check`` has to notice."""

    file: str
    right: str
    wrong: str
    check: str

    def __str__(self) -> str:
        return f"{self.file}: {self.wrong}".replace("\n", " ")


def ask(
    backend: str, folder: Path, checks: dict[str, Check], broken: Break | None = None, shared: tuple[str, ...] = ()
) -> None:
    """Copy ``backend`` into ``folder``, break it, and run the check that has to notice; all checks if nothing is.

    Modules that are ``shared`` remain the backend's own, unless it is in them that something is broken.
    """
    name = f"copy_of_{backend}_in_{folder.name}"
    kept = [f"{name}.{module}" for module in shared if broken is None or broken.file != f"{module}.py"]
    shutil.copytree(Path(str(operators(backend).__file__)).parent, folder / name)
    shutil.rmtree(folder / name / "__pycache__", ignore_errors=True)
    for file in (folder / name).glob("*.py"):
        text = file.read_text().replace(f"dvdq_kernels.backends.{backend}", name)
        for module in kept:
            text = text.replace(module, module.replace(name, f"dvdq_kernels.backends.{backend}"))
        file.write_text(text)
    if broken is not None:
        text = (folder / name / broken.file).read_text()
        if text.count(broken.right) != 1:  # which must not be taken for a check that fails
            raise LookupError(f"{broken.right!r} does not stand in {broken.file} once")
        (folder / name / broken.file).write_text(text.replace(broken.right, broken.wrong))
    sys.path.insert(0, str(folder))
    try:
        stated = importlib.import_module(name).BACKEND
        # Codes lie two a byte where a check asks for that.
        copy = replace(stated, name=name, refusal=lambda: None, packs=lambda place, bits: False)
        with registered(copy):
            for check in checks if broken is None else [broken.check]:
                checks[check](name, "cpu")
    finally:
        sys.path.remove(str(folder))
        for module in [module for module in sys.modules if module.partition(".")[0] == name]:
            del sys.modules[module]
