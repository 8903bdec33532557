"""Pipeline folders with a quantized transformer inside."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
from diffusers import DiffusionPipeline
from torch import nn

from dvdq_models.bit_switching import TRANSFORMERS, follow
from dvdq_models.checkpoint.format import is_quantized
from dvdq_models.checkpoint.reading import load
from dvdq_models.checkpoint.staging import complete_or_nothing
from dvdq_models.checkpoint.writing import save
from dvdq_reference.spec.errors import DvdqError


def save_pipeline(source: str | Path, transformer: nn.Module, folder: str | Path) -> Path:
    """Write the pipeline folder ``source`` to ``folder`` with ``transformer`` in its transformer's place."""
    source = Path(source)
    with complete_or_nothing(Path(folder)) as staging:
        shutil.copytree(source, staging, dirs_exist_ok=True, ignore=_not_the_transformer(source))
        save(transformer, staging / "transformer")
    return Path(folder)


def load_pipeline(folder: str | Path, *, backend: str = "auto", **kwargs: Any) -> DiffusionPipeline:
    """The pipeline in ``folder``, its transformers quantized or not; ``kwargs`` go to diffusers' ``from_pretrained``.

    A ``dtype`` among them holds for the transformers too, as in :func:`~dvdq_models.load`. Quantized transformers run
    one bit schedule over each video (:func:`dvdq_models.bit_switching.follow`).
    """
    folder = Path(folder)
    index = folder / "model_index.json"
    if not index.is_file():
        raise DvdqError("load", where=str(folder), expected="a pipeline folder", got="no model_index.json")
    # The class itself, because DiffusionPipeline would load Wan's transformer again although it is given one:
    # it is optional there, and only the class knows its own optional parts.
    pipeline_class = getattr(diffusers, json.loads(index.read_text())["_class_name"])
    quantized = [name for name in TRANSFORMERS if name not in kwargs and is_quantized(folder / name)]
    for name in quantized:
        kwargs[name] = load(folder / name, backend=backend, dtype=kwargs.get("dtype"))
    pipeline = pipeline_class.from_pretrained(str(folder), **kwargs)
    if quantized:
        follow(pipeline)
    return pipeline


def _not_the_transformer(source: Path) -> Any:
    def ignore(directory: str, names: list[str]) -> list[str]:
        return ["transformer"] if Path(directory) == source and "transformer" in names else []

    return ignore
