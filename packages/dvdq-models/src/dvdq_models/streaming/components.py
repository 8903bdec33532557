"""Whether what a pipeline's ``model_index.json`` names is there and opens, without reading a tensor."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from dvdq_models.checkpoint.lazy import check_file, index_files
from dvdq_models.families.configurations import CONFIG
from dvdq_models.files.text import parse_json
from dvdq_reference.spec.errors import DvdqError

_WITHOUT_WEIGHTS = re.compile(r".*(Tokenizer(Fast)?|Processor(Fast)?|FeatureExtractor|Scheduler)")
"""Classes of components that are configuration and vocabulary alone."""


def check_components(operation: str, folder: Path, named: Mapping[str, str]) -> None:
    """Check a pipeline's folder.

    Args:
        operation: for errors.
        folder: of the pipeline.
        named: the class of each component by the name of its folder.

    Raises:
        DvdqError: a component without its folder, its configuration or its weights; a file that cannot be opened: a
            link into nowhere, a pointer of git-lfs, JSON or safetensors that are broken, a shard that is missing.
    """
    for name, class_name in named.items():
        part = folder / name
        if not part.is_dir():
            raise DvdqError(operation, where=str(part), expected=f"the folder of a {class_name}", got="none")
        files = [part / file for file in walk(operation, part)]
        if not files:
            raise DvdqError(operation, where=str(part), expected=f"the files of a {class_name}", got="an empty folder")
        for file in files:
            _check_opens(operation, file)
        if _WITHOUT_WEIGHTS.fullmatch(class_name) is None:
            _check_model(operation, part, class_name)


def walk(operation: str, folder: Path) -> Iterator[Path]:
    """Every file below ``folder``, relative to it and sorted; links to folders are followed, hidden names left out.

    Raises:
        DvdqError: a link into nowhere, or one that leads back to a folder above it.
    """

    def refuse(error: OSError) -> None:
        raise DvdqError(operation, where=str(error.filename), expected="a folder", got=error.strerror) from error

    for place, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        above = {os.path.realpath(parent) for parent in (Path(place), *Path(place).parents)}
        for name in folders:
            inner = Path(place) / name
            if inner.is_symlink() and os.path.realpath(inner) in above:
                raise DvdqError(operation, where=str(inner), expected="a folder", got="a link to one above it")
        for name in sorted(name for name in files if not name.startswith(".")):
            file = Path(place) / name
            if not file.exists():
                got = f"a link into nowhere ({os.readlink(file)})" if file.is_symlink() else "none"
                raise DvdqError(operation, where=str(file), expected="a file", got=got)
            if file.is_file():
                yield file.relative_to(folder)


def _check_opens(operation: str, file: Path) -> None:
    if file.suffix == ".json":
        data = file.read_bytes()[:3]
        if data[:2] in (b"\xff\xfe", b"\xfe\xff") or data == b"\xef\xbb\xbf":
            expected = "JSON in UTF-8 without a byte order mark, as diffusers reads it"
            raise DvdqError(operation, where=str(file), expected=expected, got="one with a mark")
        parse_json(operation, file)
    else:
        check_file(operation, file)


def _check_model(operation: str, part: Path, class_name: str) -> None:
    if not (part / CONFIG).is_file():
        if any(part.glob("*_config.json")) and not any(part.glob("generation_config.json")):
            return  # a tokenizer, processor or scheduler by another name
        raise DvdqError(operation, where=str(part), expected=f"the config.json of a {class_name}", got="none")
    indices = sorted(part.glob("*.index.json"))
    for index in indices:
        for shard in index_files(operation, index):
            if not (part / shard).is_file():
                raise DvdqError(
                    operation, where=str(part / shard), expected=f"a file that {index.name} lists", got="none"
                )
    if not indices and not any(any(part.glob(f"*.{ending}")) for ending in ("safetensors", "bin")):
        raise DvdqError(operation, where=str(part), expected=f"the weights of a {class_name}", got="none")
