"""What a file of ComfyUI's format holds: the format and size of each linear, from its header and ``comfy_quant``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from dvdq_models.checkpoint.lazy import LazyTensor, open_file
from dvdq_models.files.text import one_line
from dvdq_reference.spec.errors import DvdqError

_MARK = ".comfy_quant"


@dataclass(frozen=True)
class QuantizedLinear:
    """A linear of the file.

    Attributes:
        name: of the layer.
        format: e.g. ``convrot_w4a4``.
        stored: shape of its codes as they lie in the file.
        bytes: of all its tensors but the bias.
        config: what ``comfy_quant`` says beside the format.
    """

    name: str
    format: str
    stored: tuple[int, ...]
    bytes: int
    config: Mapping[str, Any]


@dataclass(frozen=True)
class QuantizedFile:
    """All linears with a format, and how many bytes everything else takes."""

    layers: tuple[QuantizedLinear, ...]
    other_bytes: int

    @property
    def bytes(self) -> int:
        """Of all tensors."""
        return self.other_bytes + sum(layer.bytes for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        layers = [{**vars(layer), "stored": list(layer.stored)} for layer in self.layers]
        return {"bytes": self.bytes, "other_bytes": self.other_bytes, "layers": layers}


def read_file(operation: str, path: Path) -> QuantizedFile | None:
    """What a ``.safetensors`` file holds; None if no layer of it says a format.

    Raises:
        DvdqError: a broken file, or a layer whose ``comfy_quant`` is no JSON with a format, or that has no weight.
    """
    tensors = open_file(operation, path)
    layers = []
    rest = dict(tensors)
    for name in [name for name in tensors if name.endswith(_MARK)]:
        layer = name.removesuffix(_MARK)
        config = _config(operation, tensors[name])
        # A weight, and what it needs to be read: weight_scale, weight_zeros, weight_s_rel, …
        own = {key: rest.pop(key) for key in tensors if key == name or key.startswith(f"{layer}.weight")}
        if f"{layer}.weight" not in own:
            raise DvdqError(operation, where=f"{path}: {layer}", expected="a weight beside comfy_quant", got="none")
        stored = own[f"{layer}.weight"].type.shape
        size = sum(tensor.type.nbytes for tensor in own.values())
        layers.append(QuantizedLinear(layer, str(config.pop("format")), stored, size, config))
    if not layers:
        return None
    return QuantizedFile(tuple(layers), sum(tensor.type.nbytes for tensor in rest.values()))


def _config(operation: str, tensor: LazyTensor) -> dict[str, Any]:
    expected = "JSON with a format, as bytes"
    if tensor.type.dtype.itemsize != 1 or prod(tensor.type.shape) > 2**16:
        raise DvdqError(operation, where=tensor.where, expected=expected, got=tensor.type)
    try:
        config = json.loads(tensor.read().numpy().tobytes())
    except (ValueError, TypeError, RecursionError) as error:
        raise DvdqError(operation, where=tensor.where, expected=expected, got=one_line(error)) from error
    if not isinstance(config, dict) or not isinstance(config.get("format"), str):
        raise DvdqError(operation, where=tensor.where, expected=expected, got=config)
    return config
