"""What a user may name as the source: a pipeline folder, a transformer folder, a single file, or a hub id."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dvdq_models.checkpoint.checksums import listed_sums
from dvdq_models.checkpoint.format import read_quantized_config
from dvdq_models.checkpoint.full_precision import check_full_precision
from dvdq_models.checkpoint.lazy import LazyTensor, open_file, open_folder
from dvdq_models.families import classes, families, family_of_class
from dvdq_models.families.configurations import CONFIG, read_config
from dvdq_models.families.pipelines import INDEX, TRANSFORMERS, PipelineFolder, is_pipeline
from dvdq_models.files.hub import download, is_hub_id
from dvdq_models.files.text import read_json
from dvdq_models.files.workspace import stamp
from dvdq_models.streaming.components import check_components, walk
from dvdq_models.streaming.original import convert, repository_of
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Recipe

OPERATION = "quantize"


@dataclass(frozen=True)
class TransformerSource:
    """A transformer in full precision, or one that a recipe of ours quantized.

    Args:
        subfolder: its folder in the pipeline; empty if it stands alone.
        where: its folder or file, for messages.
        config: diffusers' configuration.
        tensors: under diffusers' names.
        files: that hold the tensors.
        recipe: that quantized it; None is full precision.
    """

    subfolder: str
    where: Path
    config: dict[str, Any]
    tensors: Mapping[str, LazyTensor]
    files: tuple[Path, ...]
    recipe: Recipe | None = None


@dataclass(frozen=True)
class Source:
    """The transformers to quantize, the files below ``root`` to copy as they are, and a pipeline's components."""

    root: Path
    transformers: tuple[TransformerSource, ...]
    copies: tuple[Path, ...]
    components: Mapping[str, str] = field(default_factory=dict)

    def fingerprint(self) -> dict[str, Any]:
        """What changes if the source does: configurations, and each file's size and time of change."""
        files = [*(file for t in self.transformers for file in t.files), *(self.root / copy for copy in self.copies)]
        return {
            "configs": [transformer.config for transformer in self.transformers],
            "files": {str(file): stamp(file) for file in files},
        }

    def digests(self) -> dict[Path, str]:
        """The SHA-256 that weight files should have, where someone says: ``SHA256SUMS``, or the hub's cache."""
        known: dict[Path, str] = {}
        for transformer in self.transformers:
            sums = listed_sums(OPERATION, transformer.files[0].parent)
            for file in transformer.files:
                blob = file.resolve()
                if file.name in sums:
                    known[file] = sums[file.name]
                elif blob.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", blob.name):
                    known[file] = blob.name
        return known


def open_source(source: str | Path, config: str | Path | None = None, *, quantized: bool = False) -> Source:
    """Find out what ``source`` is, and open it without reading a tensor.

    Args:
        source: a path, or a hub id such as ``Wan-AI/Wan2.1-T2V-14B-Diffusers``, of which what is needed is downloaded.
        config: for an original checkpoint, its configuration in diffusers' terms: a ``config.json``, a folder with one
            or with that of a pipeline's transformers, or a hub id. None takes that of the pipeline that
            ``from_single_file`` would take, from the hub.
        quantized: whether folders that a recipe of ours quantized are taken, too.

    Raises:
        DvdqError: nothing that can be quantized; whatever is wrong with its files, named.
    """
    check_source(source)
    path = _download(str(source)) if is_hub_id(source) else Path(source)
    if path.is_file():
        if path.suffix != ".safetensors":
            raise DvdqError(OPERATION, where=str(path), expected="safetensors; a pickle can run code", got=path.name)
        return Source(path.parent, (_original("", path, open_file(OPERATION, path), config),), ())
    if is_pipeline(path):
        return _pipeline(path, config, quantized)
    for family in families():
        experts = {name: path / folder for name, folder in family.experts.items()}
        if any(folder.is_dir() for folder in experts.values()):
            found = (_transformer(name, folder, config, quantized) for name, folder in experts.items())
            return Source(path, tuple(found), ())
    return Source(path, (_transformer("", path, config, quantized),), ())


def check_source(source: str | Path) -> None:
    """A :class:`DvdqError` unless ``source`` is a path that exists or has the form of a hub id."""
    if not (os.path.exists(source) or is_hub_id(source)):
        expected = "a pipeline or transformer folder, a .safetensors file or a hub id"
        raise DvdqError(OPERATION, where=str(source), expected=expected, got="none of them")


def _pipeline(path: Path, config: str | Path | None, quantized: bool) -> Source:
    folder = PipelineFolder.open(OPERATION, path)
    folder.check_classes()
    named = {name: class_name for name, (_, class_name) in folder.components.items()}
    check_components(OPERATION, path, named)
    names = folder.transformers
    if not names:
        raise DvdqError(OPERATION, where=str(path), expected="a pipeline with a transformer", got="none")
    copies = tuple(file for file in walk(OPERATION, path) if file.parts[0] not in names)
    transformers = tuple(_transformer(name, path / name, config, quantized) for name in names)
    return Source(path, transformers, copies, named)


def _transformer(subfolder: str, folder: Path, config: str | Path | None, quantized: bool) -> TransformerSource:
    found = read_config(OPERATION, folder) if (folder / CONFIG).is_file() else {}
    if "quantization_config" in found:
        if quantized and config is None:
            own, recipe = read_quantized_config(folder)
            tensors = open_folder(OPERATION, folder)
            return TransformerSource(subfolder, folder, own, tensors, _files(tensors), recipe)
        raise DvdqError(OPERATION, where=str(folder), expected="a model in full precision", got="a quantized one")
    tensors = open_folder(OPERATION, folder)
    if found.get("_class_name") not in classes():
        return _original(subfolder, folder, tensors, config)
    if config is not None:
        expected, got = "a configuration for original checkpoints alone", "one in diffusers' format, which has its own"
        raise DvdqError(OPERATION, where=f"config {config}", expected=expected, got=got)
    check_full_precision(OPERATION, str(folder), {name: tensor.type for name, tensor in tensors.items()})
    return TransformerSource(subfolder, folder, found, tensors, _files(tensors))


def _original(
    subfolder: str, where: Path, tensors: Mapping[str, LazyTensor], config: str | Path | None
) -> TransformerSource:
    check_full_precision(OPERATION, str(where), {name: tensor.type for name, tensor in tensors.items()})
    chosen = repository_of(OPERATION, str(where), tensors) if config is None else config
    parts = [subfolder, TRANSFORMERS[0], ""] if subfolder else [TRANSFORMERS[0], ""]
    if is_hub_id(chosen):
        path = download(OPERATION, str(chosen), [f"{part}/{CONFIG}".lstrip("/") for part in parts])
    else:
        path = Path(chosen)
    if path.is_file():
        found, place = read_json(OPERATION, path), path
    else:
        place = next((path / part for part in parts if (path / part / CONFIG).is_file()), path)
        found = read_config(OPERATION, place)
    model_class = str(found.get("_class_name"))
    family_of_class(OPERATION, model_class, where=f"{place}: _class_name")
    return TransformerSource(subfolder, where, found, convert(model_class, tensors), _files(tensors))


def _files(tensors: Mapping[str, LazyTensor]) -> tuple[Path, ...]:
    return tuple(sorted({Path(tensor.where.rpartition(": ")[0]) for tensor in tensors.values()}))


def _download(repository: str) -> Path:
    """What is needed of a repository, into the hub's cache: a pipeline's components, or a transformer."""
    folder = download(OPERATION, repository, [INDEX, CONFIG])
    if is_pipeline(folder):
        found = PipelineFolder.open(OPERATION, folder)
        found.check_classes()
        return download(OPERATION, repository, [INDEX, "LICENSE*", "README.md", *(f"{n}/*" for n in found.components)])
    weights = [CONFIG, "*.safetensors", "*.safetensors.index.json"]
    folders = [folder for family in families() for folder in family.experts.values()]
    return download(OPERATION, repository, [*weights, *(f"{folder}/{file}" for folder in folders for file in weights)])
