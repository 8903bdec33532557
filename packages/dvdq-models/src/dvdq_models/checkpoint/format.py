"""What a folder says of itself: the names of its files and ``config.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dvdq_models.diffusers_plugin.registration import METHOD
from dvdq_models.families.configurations import CONFIG, read_config
from dvdq_models.quantization_config import DVDQuantConfig
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Recipe

WEIGHTS = "diffusion_pytorch_model"
"""How diffusers calls a model's weight files."""


def write_config(folder: Path, config: dict[str, Any], recipe: Recipe) -> None:
    """Write the ``config.json`` of a transformer that ``recipe`` quantized."""
    values = {**config, "quantization_config": DVDQuantConfig(recipe).to_dict()}
    (folder / CONFIG).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_quantized_config(folder: Path) -> tuple[dict[str, Any], Recipe]:
    """The model's own configuration, and the recipe that quantized it."""
    config, where = read_config("load", folder), str(folder / CONFIG)
    quantization = config.pop("quantization_config", None)
    if not isinstance(quantization, dict):
        expected, got = f"a checkpoint quantized by {METHOD}", "no quantization_config"
        raise DvdqError("load", where=where, expected=expected, got=got)
    return config, DVDQuantConfig.from_dict(quantization, where=where).recipe
