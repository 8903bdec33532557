"""What a folder tells of its transformers without their weights: which there are, their shapes, how they were made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from dvdq_models.families import empty_transformer_of
from dvdq_models.files.hub import download, is_hub_id
from dvdq_models.files.text import read_json
from dvdq_models.streaming.source import open_source
from dvdq_models.switching.hook import TRANSFORMERS
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Recipe

Config = str | Path | Mapping[str, Any]
"""A ``config.json``, or what stands in it."""


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


def configuration_folder(source: str | Path) -> Path:
    """A path as it is; of a hub id the folder with its configurations, which are downloaded and nothing else."""
    if not is_hub_id(source):
        return Path(source)
    return download("inspect", str(source), ["model_index.json", "config.json", "*/config.json"])


def source_configs(path: Path, config: str | Path | None = None) -> dict[str, Config]:
    """The configuration of each transformer of whatever ``dvdq quantize`` takes, and of quantized ones.

    Args:
        path: as for :func:`transformer_configs`, or a ``.safetensors`` file or a folder with some, of which the headers
            alone are read.
        config: of an original checkpoint, as for :func:`dvdq_models.streaming.quantize_checkpoint`.

    Raises:
        DvdqError: as for :func:`transformer_configs`, weights of another model, or a ``config`` that is not needed.
    """
    in_place = [
        path / "model_index.json",
        path / "config.json",
        *(path / name / "config.json" for name in TRANSFORMERS),
    ]
    original = path.suffix == ".safetensors" if path.is_file() else not any(file.is_file() for file in in_place)
    if original and path.exists():
        return {part.subfolder or TRANSFORMERS[0]: part.config for part in open_source(path, config).transformers}
    if config is not None:
        expected, got = "a configuration for original checkpoints alone", "a source that has its own"
        raise DvdqError("inspect", where=f"config {config}", expected=expected, got=got)
    return dict(transformer_configs(path))


def empty_transformer(config: Config, *, buffers: bool = True) -> nn.Module:
    """The transformer that a ``config.json`` describes, on the meta device: no weights are read or allocated.

    Whoever fills the weights in needs ``buffers=False``: what a model computes of its configuration is then there.
    """
    where = Path("config") if isinstance(config, Mapping) else Path(config)
    values = _values(config)
    values.pop("quantization_config", None)
    transformer: nn.Module = empty_transformer_of("inspect", where, values, buffers=buffers)
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


def stored_recipe(config: Config) -> Recipe | None:
    """The recipe that made a quantized transformer, from its ``config.json``; None in full precision."""
    quantization = _values(config).get("quantization_config") or {}
    return Recipe.from_dict(quantization["recipe"]) if "recipe" in quantization else None


def _values(config: Config) -> dict[str, Any]:
    return dict(config) if isinstance(config, Mapping) else _read(Path(config))


def _read(path: Path) -> dict[str, Any]:
    return read_json("inspect", path)
