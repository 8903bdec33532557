"""What a folder tells of its transformers without their weights: which there are, their shapes, how they were made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from accelerate import init_empty_weights
from torch import nn

from dvdq_models.bit_switching import TRANSFORMERS
from dvdq_models.families import transformer_class
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Recipe


def transformer_configs(path: str | Path) -> dict[str, Path]:
    """The ``config.json`` of each transformer by its name in a pipeline; a single one is called ``transformer``.

    Args:
        path: a pipeline's folder, a transformer's folder, or the ``config.json`` itself.

    Raises:
        DvdqError: no configuration, or a pipeline that names a transformer that is not there.
    """
    path = Path(path)
    if path.is_file():
        return {TRANSFORMERS[0]: path}
    index = path / "model_index.json"
    if index.is_file():
        parts = _read(index)
        named = [name for name in TRANSFORMERS if (parts.get(name) or [None])[0] is not None]
    else:
        named = [name for name in TRANSFORMERS if (path / name / "config.json").is_file()]
    configs = {name: path / name / "config.json" for name in named} or {TRANSFORMERS[0]: path / "config.json"}
    for config in configs.values():
        if not config.is_file():
            raise DvdqError("inspect", where=str(config), expected="a config.json of a transformer", got="none")
    return configs


def empty_transformer(config_path: str | Path) -> nn.Module:
    """The transformer that a ``config.json`` describes, on the meta device: no weights are read or allocated."""
    config_path = Path(config_path)
    config = _read(config_path)
    config.pop("quantization_config", None)
    model_class = transformer_class("inspect", config_path, config)
    with init_empty_weights():
        transformer: nn.Module = model_class.from_config(config)
    return transformer


def latent_size(path: str | Path, video: tuple[int, int, int]) -> tuple[int, int, int]:
    """Frames, height and width of the latents of a video, by the autoencoder of the pipeline in ``path``.

    Where there is none, 4 frames and 8 x 8 pixels become one latent, as in HunyuanVideo and Wan but for TI2V 5B.
    """
    config = Path(path) / "vae" / "config.json"
    vae = _read(config) if config.is_file() else {}
    temporal = vae.get("scale_factor_temporal") or vae.get("temporal_compression_ratio") or 4
    spatial = vae.get("scale_factor_spatial") or vae.get("spatial_compression_ratio") or 8
    frames, height, width = video
    return (frames - 1) // temporal + 1, height // spatial, width // spatial


def stored_recipe(config_path: str | Path) -> Recipe | None:
    """The recipe that made a quantized transformer, from its ``config.json``; None in full precision."""
    quantization = _read(Path(config_path)).get("quantization_config") or {}
    return Recipe.from_dict(quantization["recipe"]) if "recipe" in quantization else None


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise DvdqError("inspect", where=str(path), expected="JSON", got=str(error)) from error
    if not isinstance(values, dict):
        raise DvdqError("inspect", where=str(path), expected="a JSON object", got=type(values).__name__)
    return values
