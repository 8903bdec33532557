"""A transformer's ``config.json``: its class, the recipe that made it, and the model it describes, without weights."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn

from dvdq_models.diffusers_plugin.registration import METHOD
from dvdq_models.families import family_of_class
from dvdq_models.files.text import one_line, read_json
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Recipe

CONFIG = "config.json"
Config = str | Path | Mapping[str, Any]
"""A ``config.json``, or what stands in it."""
_MOST_LAYERS = 1000
"""Of one kind. A model of more is a slip of the pen, and would take hours to build before anything else is wrong."""
_MOST_BUFFERS = 1 << 30
"""Bytes that a constructor computes, such as the angles of positions: some megabytes in published models."""


def read_config(operation: str, folder: Path) -> dict[str, Any]:
    """The ``config.json`` of a transformer's folder, quantized or not."""
    path = folder / CONFIG
    if not path.is_file():
        raise DvdqError(operation, where=str(folder), expected="a folder with a config.json", got="none")
    return read_json(operation, path)


def is_ours(config: Mapping[str, Any]) -> bool:
    """Whether a configuration is that of a transformer that this project quantized, and nobody else."""
    quantization = config.get("quantization_config")
    return isinstance(quantization, Mapping) and quantization.get("quant_method") == METHOD


def stored_recipe(config: Config) -> Recipe | None:
    """The recipe that made a quantized transformer; None in full precision.

    Raises:
        DvdqError: one that somebody else quantized.
    """
    values, where = _values(config), None if isinstance(config, Mapping) else str(config)
    quantization = values.get("quantization_config")
    if not quantization:
        return None
    if not is_ours(values):
        got = quantization.get("quant_method") if isinstance(quantization, Mapping) else quantization
        expected = f"a model in full precision, or one quantized by {METHOD}"
        raise DvdqError("inspect", where=where, expected=expected, got=f"one quantized by {got}")
    return Recipe.from_dict(quantization["recipe"])


def transformer_class(operation: str, path: Path, config: Mapping[str, Any]) -> Any:
    """The class that a ``config.json`` at ``path`` names; it must be of a known family, and be installed."""
    name = config.get("_class_name")
    family = family_of_class(operation, name, where=f"{path}: _class_name")
    module = importlib.import_module(family.module)
    if name not in dir(module):
        expected = f"a class of the installed {family.module} {getattr(module, '__version__', '')}".rstrip()
        raise DvdqError(operation, where=str(path), expected=expected, got=name)
    return getattr(module, str(name))


def empty_transformer_of(operation: str, path: Path, config: Mapping[str, Any], *, buffers: bool = True) -> Any:
    """The transformer that a ``config.json`` at ``path`` describes, without weights.

    Args:
        operation: for errors.
        path: of the configuration, for errors.
        config: what stands in it.
        buffers: whether they are without data too, like the weights.

    Raises:
        DvdqError: a class that is not known, or values that its constructor cannot take or that would fill the memory.
    """
    model_class = transformer_class(operation, path, config)
    for name, value in config.items():
        if "layers" in name and isinstance(value, int | float) and not 0 <= value <= _MOST_LAYERS:
            raise DvdqError(operation, where=f"{path}: {name}", expected=f"at most {_MOST_LAYERS}", got=value)
    try:
        with init_empty_weights(include_buffers=True), torch.device("meta"):
            empty = model_class.from_config(dict(config))
        sizes = {name: buffer.nbytes for name, buffer in empty.named_buffers()}
        if sum(sizes.values()) <= _MOST_BUFFERS:
            if buffers:
                return empty
            with init_empty_weights(include_buffers=False):
                return model_class.from_config(dict(config))
    # Whatever it does with values of another kind or size than it expects.
    except Exception as error:
        expected, got = f"the configuration of a {model_class.__name__}", f"{type(error).__name__}: {one_line(error)}"
        raise DvdqError(operation, where=str(path), expected=expected, got=got) from error
    largest = max(sizes, key=lambda name: sizes[name])
    expected, got = f"buffers of at most {_MOST_BUFFERS} bytes", f"{sizes[largest]} bytes of {largest}"
    raise DvdqError(operation, where=str(path), expected=expected, got=got)


def empty_transformer(config: Config, *, buffers: bool = True) -> nn.Module:
    """The transformer that a ``config.json`` describes, on the meta device: no weights are read or allocated.

    Whoever fills the weights in needs ``buffers=False``: what a model computes of its configuration is then there.
    """
    where = Path("config") if isinstance(config, Mapping) else Path(config)
    values = _values(config)
    values.pop("quantization_config", None)
    transformer: nn.Module = empty_transformer_of("inspect", where, values, buffers=buffers)
    return transformer


def _values(config: Config) -> dict[str, Any]:
    return dict(config) if isinstance(config, Mapping) else read_json("inspect", Path(config))
