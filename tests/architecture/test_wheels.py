"""Whole wheels, of one version: built now, or those of ``--wheels=FOLDER``."""

from __future__ import annotations

import email
import re
import subprocess
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("dvdq-reference", "dvdq-kernels", "dvdq-models", "dvdq-eval")
MOST_PIPELINE_BYTES = 20 * 2**20


def source(package: str) -> Path:
    return ROOT / "packages" / package / "src" / package.replace("-", "_")


def literal_version(package: str) -> str:
    [found] = re.findall(r'^__version__ = "(.+)"$', (source(package) / "__init__.py").read_text(), re.MULTILINE)
    return str(found)


@pytest.fixture(scope="module")
def opened(wheels: Path) -> dict[str, zipfile.ZipFile]:
    found = {}
    for package in PACKAGES:
        [wheel] = wheels.glob(f"{package.replace('-', '_')}-*.whl")
        found[package] = zipfile.ZipFile(wheel)
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_a_wheel_carries_its_licence_its_types_and_all_its_source(
    package: str, opened: dict[str, zipfile.ZipFile]
) -> None:
    names = opened[package].namelist()
    [licence] = [name for name in names if name.endswith("licenses/LICENSE")]
    assert opened[package].read(licence) == (ROOT / "LICENSE").read_bytes()
    assert f"{package.replace('-', '_')}/py.typed" in names
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    source_folder = source(package).parent
    listed = subprocess.run(command, cwd=source_folder, check=True, capture_output=True, text=True).stdout.splitlines()
    assert {name for name in listed if (source_folder / name).exists()} <= set(names)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_wheel_says_what_it_is(package: str, opened: dict[str, zipfile.ZipFile]) -> None:
    [metadata] = [name for name in opened[package].namelist() if name.endswith(".dist-info/METADATA")]
    message = email.message_from_bytes(opened[package].read(metadata))
    assert message["Version"] == literal_version(package)
    assert message["License-Expression"] == "Apache-2.0"
    assert message["Requires-Python"] == ">=3.11"
    assert message["Summary"]
    assert message.get_payload().strip(), "an empty README"


def test_weights_lie_in_the_bundled_pipeline_only(opened: dict[str, zipfile.ZipFile]) -> None:
    weights = {
        entry.filename: entry.file_size
        for wheel in opened.values()
        for entry in wheel.infolist()
        if Path(entry.filename).suffix in {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".npz"}
    }
    pipelines: dict[str, int] = {}
    for name, size in weights.items():
        found = re.match(r"dvdq_models/moving_shapes/pipelines/(\w+)/.*\.safetensors$", name)
        assert found is not None, name
        pipelines[found[1]] = pipelines.get(found[1], 0) + size
    assert pipelines.keys() == {"wan", "hunyuan_video"}
    assert max(pipelines.values()) <= MOST_PIPELINE_BYTES
