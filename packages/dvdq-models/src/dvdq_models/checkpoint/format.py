"""What a folder says of itself: the names of its files, ``config.json``, and the dtype of its tensors."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Recipe

METHOD = "dvd-quant"
FORMAT = 1
"""Version of what the tensors mean; a reader refuses a newer one."""
WEIGHTS = "diffusion_pytorch_model"
"""How diffusers calls a model's weight files."""


def quantization_config(recipe: Recipe) -> dict[str, Any]:
    """What ``config.json`` says under ``quantization_config``."""
    return {"quant_method": METHOD, "format": FORMAT, "recipe": recipe.to_dict()}


def write_config(folder: Path, config: dict[str, Any], recipe: Recipe) -> None:
    """Write the ``config.json`` of a transformer that ``recipe`` quantized."""
    values = {**config, "quantization_config": quantization_config(recipe)}
    (folder / "config.json").write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


def read_config(operation: str, folder: Path) -> dict[str, Any]:
    """The ``config.json`` of a transformer's folder, quantized or not."""
    path = folder / "config.json"
    if not path.is_file():
        raise DvdqError(operation, where=str(folder), expected="a folder with a config.json", got="none")
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise DvdqError(operation, where=str(path), expected="JSON", got=str(error)) from error
    return config


def read_quantized_config(folder: Path) -> tuple[dict[str, Any], Recipe]:
    """The model's own configuration, and the recipe that quantized it."""
    config, where = read_config("load", folder), str(folder / "config.json")
    quantization = config.pop("quantization_config", None)
    if not isinstance(quantization, dict) or quantization.get("quant_method") != METHOD:
        found = quantization.get("quant_method") if isinstance(quantization, dict) else "no quantization_config"
        raise DvdqError("load", where=where, expected=f"a checkpoint quantized by {METHOD}", got=found)
    if quantization.get("format") != FORMAT:
        raise DvdqError("load", where=where, expected=f"format {FORMAT}", got=quantization.get("format"))
    return config, Recipe.from_dict(quantization["recipe"])


def is_quantized(folder: str | Path) -> bool:
    """Whether ``folder`` holds a quantized transformer, or a pipeline with one."""
    for candidate in (Path(folder), Path(folder) / "transformer"):
        config = candidate / "config.json"
        if config.is_file():
            return "quantization_config" in json.loads(config.read_text())
    return False


def stored_dtype(folder: str | Path) -> torch.dtype:
    """The dtype of most tensors in a transformer's folder, which diffusers does not look up by itself."""
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise DvdqError("load", where=str(folder), expected="safetensors files", got="none")
    try:
        with safe_open(files[0], framework="pt") as file:
            counts: Counter[torch.dtype] = Counter(file.get_tensor(name).dtype for name in islice(file.keys(), 64))
    except SafetensorError as error:
        raise DvdqError("load", where=str(files[0]), expected="a safetensors file", got=str(error)) from error
    return counts.most_common(1)[0][0]
