"""Whether what a pipeline's ``model_index.json`` names is there and opens, without reading a tensor."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import diffusers
import transformers

from dvdq_models.checkpoint.lazy import check_file, index_files
from dvdq_models.files.text import parse_json, read_json
from dvdq_reference.spec.errors import DvdqError

_WITHOUT_WEIGHTS = re.compile(r".*(Tokenizer(Fast)?|Processor(Fast)?|FeatureExtractor|Scheduler)")
"""Classes of components that are configuration and vocabulary alone."""
_LIBRARIES = {"diffusers": diffusers, "transformers": transformers}


def components(operation: str, folder: Path) -> dict[str, str]:
    """The class of each component that ``model_index.json`` names, by its folder's name.

    Raises:
        DvdqError: an index that is none, or a pipeline or component of a class that is not installed.
    """
    path = folder / "model_index.json"
    index = read_json(operation, path)
    _check_class(operation, path, "_class_name", ["diffusers", index.get("_class_name")])
    found: dict[str, str] = {}
    for name, value in index.items():
        if isinstance(value, list) and len(value) == 2 and value[1] is not None:
            if Path(name).name != name:
                raise DvdqError(operation, where=str(path), expected="names of components", got=repr(name))
            _check_class(operation, path, name, value)
            found[name] = str(value[1])
    return found


def check_components(operation: str, folder: Path, named: Mapping[str, str]) -> None:
    """Check a pipeline's folder.

    Args:
        operation: for errors.
        folder: of the pipeline.
        named: of :func:`components`.

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


def _check_class(operation: str, path: Path, name: str, value: list[Any]) -> None:
    library, class_name = value
    module = _LIBRARIES.get(library) if isinstance(library, str) else None
    if not isinstance(class_name, str) or (module is not None and class_name not in dir(module)):
        expected = f"a class of the installed {library} {getattr(module, '__version__', '')}".rstrip()
        raise DvdqError(operation, where=f"{path}: {name}", expected=expected, got=class_name)


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
    if not (part / "config.json").is_file():
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
