"""What may be imported where: the part of it that import-linter's contracts in pyproject.toml cannot say."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = Path(__file__).parents[2] / "packages"
SPEC = PACKAGES / "dvdq-reference/src/dvdq_reference/spec"


def imported_modules(file: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            modules.add(node.module or "")
    return modules


@pytest.mark.parametrize("file", sorted(SPEC.glob("*.py")), ids=lambda file: file.stem)
def test_spec_needs_only_the_standard_library(file: Path) -> None:
    foreign = {
        module
        for module in imported_modules(file)
        if module.split(".")[0] not in sys.stdlib_module_names and not module.startswith("dvdq_reference.spec")
    }
    assert foreign == set()


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("dvdq_reference.spec.recipe", ("numpy", "scipy", "torch")),
        ("dvdq_reference.oracle", ("torch", "triton", "cupy", "diffusers")),
        ("dvdq_kernels", ("triton", "cupy", "diffusers", "transformers")),
        ("dvdq_models", ("triton", "cupy")),
    ],
)
def test_a_package_imports_without_what_it_does_not_need(module: str, absent: tuple[str, ...]) -> None:
    """A ``None`` in ``sys.modules`` makes an import fail, as on a machine where the library is not installed."""
    blocked = "".join(f"sys.modules[{name!r}] = None; " for name in absent)
    code = f"import sys; {blocked}import {module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
