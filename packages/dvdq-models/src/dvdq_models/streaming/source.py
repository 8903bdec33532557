"""What a user may name as the source: a pipeline folder, a transformer folder, a single file, or a hub id."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from dvdq_models.bit_switching import TRANSFORMERS
from dvdq_models.checkpoint.checksums import listed_sums
from dvdq_models.checkpoint.format import WEIGHTS, read_config
from dvdq_models.checkpoint.lazy import LazyTensor, open_file, open_folder
from dvdq_models.families import FAMILIES
from dvdq_models.streaming.original import convert, repository_of
from dvdq_reference.spec.errors import DvdqError

OPERATION = "quantize"
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True)
class TransformerSource:
    """A transformer in full precision.

    Args:
        subfolder: its folder in the pipeline; empty if it stands alone.
        where: its folder or file, for messages.
        config: diffusers' configuration.
        tensors: under diffusers' names.
        files: that hold the tensors.
    """

    subfolder: str
    where: Path
    config: dict[str, Any]
    tensors: Mapping[str, LazyTensor]
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Source:
    """The transformers to quantize, and the files below ``root`` to copy as they are."""

    root: Path
    transformers: tuple[TransformerSource, ...]
    copies: tuple[Path, ...]

    def fingerprint(self) -> dict[str, Any]:
        """What changes if the source does: configurations, and each file's size and time of change."""
        files = [*(file for t in self.transformers for file in t.files), *(self.root / copy for copy in self.copies)]
        stats = {str(file): file.stat() for file in files}
        return {
            "configs": [transformer.config for transformer in self.transformers],
            "files": {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()},
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


def open_source(source: str | Path, config: str | Path | None = None) -> Source:
    """Find out what ``source`` is, and open it without reading a tensor.

    Args:
        source: a path, or a hub id such as ``Wan-AI/Wan2.1-T2V-14B-Diffusers``, of which what is needed is downloaded.
        config: for an original checkpoint, its configuration in diffusers' terms: a ``config.json``, a folder with one,
            or a hub id. None takes that of the pipeline that ``from_single_file`` would take, from the hub.

    Raises:
        DvdqError: nothing that can be quantized; whatever is wrong with its files, named.
    """
    path = Path(source)
    if not path.exists() and _HUB_ID.fullmatch(str(source)):
        path = _download(str(source))
    if path.is_file():
        if path.suffix != ".safetensors":
            raise DvdqError(OPERATION, where=str(path), expected="safetensors; a pickle can run code", got=path.name)
        tensors = open_file(OPERATION, path)
        return Source(path.parent, (_original("", path, tensors, (path,), config),), ())
    if not (path / "model_index.json").is_file():
        if not (path / "config.json").is_file():
            expected = "a pipeline or transformer folder, a .safetensors file or a hub id"
            raise DvdqError(OPERATION, where=str(source), expected=expected, got="none of them")
        return Source(path, (_transformer("", path, config),), ())
    names = [name for name in TRANSFORMERS if (path / name / "config.json").is_file()]
    if not names:
        raise DvdqError(OPERATION, where=str(path), expected="a pipeline with a transformer", got="none")
    files = sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file())
    copies = tuple(f for f in files if f.parts[0] not in names and not f.parts[0].startswith("."))
    return Source(path, tuple(_transformer(name, path / name, None) for name in names), copies)


def _transformer(subfolder: str, folder: Path, config: str | Path | None) -> TransformerSource:
    found = read_config(OPERATION, folder)
    if "quantization_config" in found:
        raise DvdqError(OPERATION, where=str(folder), expected="a model in full precision", got="a quantized one")
    tensors = open_folder(OPERATION, folder)
    files = tuple(sorted({Path(tensor.where.rpartition(": ")[0]) for tensor in tensors.values()}))
    if found.get("_class_name") in {name for family in FAMILIES for name in family.classes}:
        return TransformerSource(subfolder, folder, found, tensors, files)
    return _original(subfolder, folder, tensors, files, config)


def _original(
    subfolder: str,
    where: Path,
    tensors: Mapping[str, LazyTensor],
    files: tuple[Path, ...],
    config: str | Path | None,
) -> TransformerSource:
    chosen = repository_of(OPERATION, str(where), tensors) if config is None else config
    path = Path(chosen)
    if not path.exists() and _HUB_ID.fullmatch(str(chosen)):
        path = Path(snapshot_download(str(chosen), allow_patterns=["config.json", "transformer/config.json"]))
    folders = [path.parent] if path.is_file() else [path / "transformer", path]
    found = read_config(OPERATION, next((f for f in folders if (f / "config.json").is_file()), path))
    model_class = found.get("_class_name")
    known = [name for family in FAMILIES for name in family.classes]
    if model_class not in known:
        raise DvdqError(OPERATION, where=str(path), expected=f"_class_name {' or '.join(known)}", got=model_class)
    return TransformerSource(subfolder, where, found, convert(model_class, tensors), files)


def _download(repository: str) -> Path:
    """What is needed of a repository, into the hub's cache: a pipeline's components, or a transformer."""
    folder = Path(snapshot_download(repository, allow_patterns=["model_index.json", "config.json"]))
    index = folder / "model_index.json"
    if index.is_file():
        components = [name for name, value in json.loads(index.read_text()).items() if isinstance(value, list)]
        patterns = ["model_index.json", "LICENSE*", "README.md", *(f"{name}/*" for name in components)]
    else:
        patterns = ["config.json", f"{WEIGHTS}*.safetensors", f"{WEIGHTS}*.safetensors.index.json"]
    # Pickles stay where they are: nothing here reads them.
    return Path(snapshot_download(repository, allow_patterns=patterns, ignore_patterns=["*.bin", "*.pt", "*.pth"]))
