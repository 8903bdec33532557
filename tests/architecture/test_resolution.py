"""What constraints.txt names can be installed from PyPI alone: by its metadata, for systems that are not at hand."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.markers import Environment
from packaging.pylock import PackageWheel, Pylock
from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms
from packaging.utils import canonicalize_name
from packaging.version import Version

from dvdq_eval.peers import records as peers
from dvdq_eval.peers.records import COMFY_KITCHEN, ORBITQUANT, SDNQ
from dvdq_eval.vbench import installed as vbench

ROOT = Path(__file__).parents[2]
PINS = ROOT / "constraints.txt"
PYTHONS = ((3, 11), (3, 12), (3, 13))
FROM_SOURCE = {"gemlite"}
"""Pure Python that its maker gives out as source only: pip builds it without a compiler."""


@dataclass(frozen=True)
class System:
    """What a marker and a wheel's name can ask of a machine."""

    name: str
    marker: dict[str, str]
    platforms: Sequence[str]

    def environment(self, python: tuple[int, int]) -> Environment:
        series = ".".join(map(str, python))
        cpython = {"implementation_name": "cpython", "platform_python_implementation": "CPython"}
        # The first of a series, which some distribution has: a release that wants a later one is none of ours.
        return {**self.marker, **cpython, "python_version": series, "python_full_version": f"{series}.0"}  # type: ignore[typeddict-item]

    def tags(self, python: tuple[int, int]) -> list[Tag]:
        platforms = list(self.platforms)
        interpreter = "cp" + "".join(map(str, python))
        return [*cpython_tags(python, platforms=platforms), *compatible_tags(python, interpreter, platforms)]


def linux(machine: str) -> System:
    marker = {"os_name": "posix", "sys_platform": "linux", "platform_system": "Linux", "platform_machine": machine}
    # torch asks for a glibc of 2.28.
    named = [f"manylinux_2_{minor}_{machine}" for minor in range(28, 4, -1)]
    platforms = [*named, *(f"manylinux{year}_{machine}" for year in (2014, 2010))]
    return System(f"linux-{machine}", marker, platforms)


SYSTEMS = (
    linux("x86_64"),
    linux("aarch64"),
    System(
        "macos-arm64",
        {"os_name": "posix", "sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
        list(mac_platforms((14, 0), "arm64")),
    ),
    System(
        "windows-amd64",
        {"os_name": "nt", "sys_platform": "win32", "platform_system": "Windows", "platform_machine": "AMD64"},
        ["win_amd64"],
    ),
)


UV = ("uv", "pip", "compile", "--quiet", "--no-config", f"--python={sys.executable}", "--no-python-downloads")


def asked(arguments: Sequence[str], wanted: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """uv, which reads metadata of an index and installs nothing, without what this machine configures for it."""
    alone = {name: value for name, value in os.environ.items() if not name.startswith("UV_")}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, input="\n".join(wanted), env=alone, cwd=ROOT, capture_output=True, text=True)


def resolved(arguments: Sequence[str], wanted: Sequence[str] = ()) -> str:
    done = asked(arguments, wanted)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def index() -> None:
    """Skips where there is nobody to ask."""
    done = asked([*UV, "--no-deps", "-"], ["packaging"])
    if done.returncode != 0:
        pytest.skip(f"no package index answers: {' '.join(done.stderr.split())}")


@pytest.fixture(scope="session")
def locked(wheels: Path, index: None) -> Pylock:
    """What ``nox -s pins`` finds within constraints.txt, with the files of every version."""
    specification = importlib.util.spec_from_file_location("noxfile", ROOT / "noxfile.py")
    assert specification is not None
    assert specification.loader is not None
    noxfile = importlib.util.module_from_spec(specification)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        specification.loader.exec_module(noxfile)
    command = [*noxfile.resolution(wheels), f"--constraint={PINS}", "--format=pylock.toml"]
    return Pylock.from_dict(tomllib.loads(resolved(command)))


def versions(text: str) -> dict[str, str]:
    lines = (line.partition(";")[0].strip() for line in text.splitlines())
    pairs = (line.split("==") for line in lines if line and not line.startswith(("#", "dvdq-")))
    return {canonicalize_name(name): version for name, version in pairs}


def test_one_set_of_versions_is_for_every_system_and_nothing_is_missing_in_it(locked: Pylock) -> None:
    found = {package.name: str(package.version) for package in locked.packages if not package.name.startswith("dvdq-")}
    assert found == versions(PINS.read_text()), "nox -s pins writes constraints.txt"


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_every_system_and_python_has_its_wheels(system: System, locked: Pylock) -> None:
    for python in PYTHONS:
        chosen = list(locked.select(environment=system.environment(python), tags=system.tags(python)))
        names = {package.name for package, _ in chosen}
        assert {"dvdq-eval", "torch", "nox"} <= names
        assert ("triton" in names) == (system.marker["sys_platform"] == "linux")
        source = {package.name for package, artifact in chosen if not isinstance(artifact, PackageWheel)}
        assert source <= FROM_SOURCE, f"Python {python}"


def test_the_lowest_torch_comes_with_the_lowest_triton(wheels: Path, index: None) -> None:
    projects = sorted(str(path) for path in ROOT.glob("packages/*/pyproject.toml"))
    extras = (f"--extra={name}" for name in ("cpu", "cupy", "lora", "scale"))
    lowest = ("--resolution=lowest-direct", *extras, "--python-platform=x86_64-manylinux_2_28")
    options = ("--python-version=3.11", "--only-binary=:all:", f"--find-links={wheels}", "--no-header", "--no-annotate")
    found = versions(resolved([*UV, *lowest, *options, *projects]))
    declared = tomllib.loads((ROOT / "packages/dvdq-kernels/pyproject.toml").read_text())["project"]["dependencies"]
    bounds = {requirement.name: requirement.specifier for requirement in map(Requirement, declared)}
    for name in ("torch", "triton"):
        [bound] = bounds[name]
        assert bound.operator == ">="
        assert Version(found[name]) == Version(bound.version)


@pytest.mark.parametrize("cuda", [12, 13])
@pytest.mark.parametrize("platform", ["x86_64-manylinux_2_28", "x86_64-pc-windows-msvc"])
def test_either_cuda_has_its_extra(cuda: int, platform: str, wheels: Path, index: None) -> None:
    """That of CUDA 12 by itself: torch of CUDA 12, which asks for the same bindings, is not on the index."""
    project = tomllib.loads((ROOT / "packages/dvdq-kernels/pyproject.toml").read_text())["project"]
    wanted = ["dvdq-kernels[cupy]"] if cuda == 13 else project["optional-dependencies"]["cupy-cuda12"]
    options = (f"--python-platform={platform}", "--python-version=3.11", f"--find-links={wheels}", "-")
    found = versions(resolved([*UV, "--no-header", "--no-annotate", *options], wanted))
    assert f"cupy-cuda{cuda}x" in found
    assert found["cuda-bindings"].startswith(f"{cuda}.")
    nvrtc = "nvidia-cuda-nvrtc" + ("-cu12" if cuda == 12 else "")
    assert found[nvrtc].startswith(f"{cuda}.")


@pytest.mark.parametrize(
    "wanted", [peers.requirements(peer) for peer in (ORBITQUANT, SDNQ, COMFY_KITCHEN)], ids=lambda w: w[0]
)
def test_an_environment_of_a_peer_can_be_made(wanted: tuple[str, ...], index: None) -> None:
    resolved([*UV, "--universal", "--python-version=3.11", "-"], wanted)


def test_vbench_s_environment_can_be_made(index: None) -> None:
    """On Linux, by the Python that it is for; of torch alone also what it depends on."""
    options = ("--python-platform=x86_64-manylinux_2_28", f"--python-version={vbench.SERIES}", "-")
    resolved([*UV, *options], vbench.INSTALLS[0])
    resolved([*UV, "--no-deps", *options], vbench.requirements())
