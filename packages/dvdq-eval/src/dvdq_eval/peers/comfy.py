"""What comfy-kitchen's process gets of us: how each linear is written in a file for ComfyUI, and codes of ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from dvdq_models.comfyui.formats import activations_too, comfy_quant, weight_only
from dvdq_models.families.family import Treatment


def write_layers(
    transformer: nn.Module, treatments: Mapping[str, Treatment], options: Mapping[str, Any], path: Path
) -> None:
    """A safetensors file with ``<layer>.comfy_quant`` and the tensors that belong to it, by the names of diffusers.

    Of linears whose activations are quantized, in the format ``options["format"]``, the tensors are there if
    ``options["codes"]`` is ``"ours"``; else comfy-kitchen makes its own from ``comfy_quant``.
    """
    file: dict[str, torch.Tensor] = {}
    for name, treatment in treatments.items():
        if treatment == "keep":
            continue
        linear: Any = transformer.get_submodule(name)
        weight: torch.Tensor = linear.weight.detach()
        in_features = weight.shape[1]
        quantizes = treatment == "quantize"
        encoding = activations_too(options["format"], in_features) if quantizes else weight_only(in_features)
        tensors = {} if quantizes and options["codes"] != "ours" else encoding.encode(weight)
        file |= {
            f"{name}.{part}": tensor for part, tensor in (tensors | {"comfy_quant": comfy_quant(encoding)}).items()
        }
    save_file(file, path)
