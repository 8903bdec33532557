"""The four packages are one release: one version, exact pins, few public names, short files."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import pkgutil
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PACKAGES = ("dvdq-reference", "dvdq-kernels", "dvdq-models", "dvdq-eval")
MOST_PUBLIC_NAMES = 10
MOST_LINES = 600


def source(package: str) -> Path:
    return ROOT / "packages" / package / "src" / package.replace("-", "_")


def project(package: str) -> dict[str, Any]:
    text = (ROOT / "packages" / package / "pyproject.toml").read_text()
    return tomllib.loads(text)["project"]


def literal_versions(package: str) -> list[str]:
    return re.findall(r'^__version__ = "(.+)"$', (source(package) / "__init__.py").read_text(), re.MULTILINE)


def test_one_literal_version_is_the_same_in_all_packages() -> None:
    versions = {package: literal_versions(package) for package in PACKAGES}
    assert set(map(len, versions.values())) == {1}, versions
    assert len({found[0] for found in versions.values()}) == 1, versions


@pytest.mark.parametrize("package", PACKAGES)
def test_siblings_are_pinned_exactly_and_point_down(package: str) -> None:
    below = PACKAGES[: PACKAGES.index(package)]
    siblings = [re.sub(r"\[\w+\]", "", d) for d in project(package)["dependencies"] if d.startswith("dvdq")]
    [version] = literal_versions(package)
    assert set(siblings) <= {f"{name}=={version}" for name in below}
    if below:
        assert f"{below[-1]}=={version}" in siblings


@pytest.mark.parametrize("package", PACKAGES)
def test_every_import_is_declared(package: str) -> None:
    """Not merely installed because something else needs it; an extra serves the folder of its name alone."""
    providers = importlib.metadata.packages_distributions()
    sibling = {name.replace("-", "_"): [name] for name in PACKAGES}
    extras = project(package).get("optional-dependencies", {})
    undeclared = {}
    for file in source(package).rglob("*.py"):
        extra = [d for name, needed in extras.items() if name in file.parts for d in needed]
        declared = {canonicalize_name(Requirement(d).name) for d in [*project(package)["dependencies"], *extra]}
        for top in imported(file) - sys.stdlib_module_names - {package.replace("-", "_")}:
            if declared.isdisjoint(map(canonicalize_name, sibling.get(top) or providers.get(top, [top]))):
                undeclared[file.relative_to(ROOT)] = top
    assert undeclared == {}


def imported(file: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(file.read_text())))
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return {module.split(".")[0] for module in modules}


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_are_few_and_exist(package: str) -> None:
    module = importlib.import_module(package.replace("-", "_"))
    names = getattr(module, "__all__", [])
    assert len(names) <= MOST_PUBLIC_NAMES
    assert list(names) == sorted(set(names))
    public = {name: getattr(module, name) for name in names}
    # Importing a submodule must not put it in the place of a public name, as Python does when the two share it.
    for submodule in pkgutil.walk_packages(module.__path__, f"{module.__name__}."):
        importlib.import_module(submodule.name)
    assert all(getattr(module, name) is value for name, value in public.items())


@pytest.mark.parametrize("package", PACKAGES)
def test_files_stay_short(package: str) -> None:
    folder = ROOT / "packages" / package
    lengths = {file.relative_to(folder): len(file.read_text().splitlines()) for file in folder.rglob("*.py")}
    assert {file: n for file, n in lengths.items() if n > MOST_LINES} == {}
