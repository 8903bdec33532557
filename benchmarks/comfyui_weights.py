"""Weight error of our files for ComfyUI against comfy-kitchen's own quantizer, in the same bytes, both decoded by it.

Layers of both bundled models, and random ones as wide as those of Wan's 14B: normal, and with tails (Student's t with 4
degrees of freedom). Needs comfy-kitchen (``pip install comfy-kitchen``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.measuring.records import append, commit, now, processor, versions
from dvdq_models.comfyui.codebook import Codebook
from dvdq_models.comfyui.formats import SignedRows
from dvdq_models.families import family_of
from dvdq_models.moving_shapes import HUNYUAN_VIDEO, WAN

NAME = "comfyui_weights"
ROWS, WIDTHS = 128, (5120, 13824)


@dataclass(frozen=True)
class Row:
    """One line of the CSV file; errors are ``|W - Ŵ| / |W|``, all layers taken together."""

    operation: str
    format: str
    weights: str
    layers: int
    ours: float
    theirs: float
    device: str
    versions: str
    commit: str
    date: str


def bundled(pipeline: Any) -> Iterator[torch.Tensor]:
    """The weights of its linears with quantized activations."""
    transformer = pipeline.load().transformer
    for name, treatment in family_of(transformer).treatments(transformer).items():
        if treatment == "quantize":
            yield transformer.get_submodule(name).weight.detach().float()


def random_layer(width: int, degrees: int | None) -> torch.Tensor:
    """Seeded, ``[128, width]``."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((ROWS, width)) if degrees is None else rng.standard_t(degrees, (ROWS, width))
    return torch.from_numpy(values).float()


def squared_errors(weight: torch.Tensor, wanted: str) -> tuple[float, float]:
    """Ours and theirs."""
    from comfy_kitchen.tensor import AsymW4A8Int8Layout, TensorCoreConvRotW4A4Layout

    layout: Any = TensorCoreConvRotW4A4Layout if wanted == "convrot_w4a4" else AsymW4A8Int8Layout
    theirs, params = layout.quantize(weight)
    shape = {"orig_dtype": torch.float32, "orig_shape": tuple(weight.shape), "convrot_groupsize": 256}
    if wanted == "convrot_w4a4":
        tensors = SignedRows(4, 256).encode(weight)
        own = layout.Params(scale=tensors["weight_scale"], **shape)
    else:
        tensors = Codebook(256).encode(weight)
        names = {"scale": "weight_s_rel", "s_channel": "weight_s_channel", "codebook": "weight_codebook"}
        own = layout.Params(**{key: tensors[name] for key, name in names.items()}, **shape)
    decoded = layout.dequantize(tensors["weight"], own), layout.dequantize(theirs, params)
    ours, others = (float((weight - found).double().square().sum()) for found in decoded)
    return ours, others


def main(arguments: Sequence[str]) -> None:
    """All of it, recorded."""
    if arguments:
        raise SystemExit(f"expected no arguments, got {' '.join(arguments)}")
    device, at, date = processor(), commit(), now()
    kinds: dict[str, list[torch.Tensor]] = {
        "bundled Wan model": list(bundled(WAN)),
        "bundled HunyuanVideo model": list(bundled(HUNYUAN_VIDEO)),
        **{f"normal, {width} wide": [random_layer(width, None)] for width in WIDTHS},
        **{f"Student's t(4), {width} wide": [random_layer(width, 4)] for width in WIDTHS},
    }
    rows = []
    for wanted in ("convrot_w4a4", "asym_w4a8_int8"):
        for name, layers in kinds.items():
            errors = np.array([squared_errors(weight, wanted) for weight in layers]).sum(axis=0)
            power = sum(float(weight.double().square().sum()) for weight in layers)
            ours, theirs = (round(float(e), 5) for e in np.sqrt(errors / power))
            found = versions("numpy", "comfy-kitchen")
            rows.append(Row("comfyui-weights", wanted, name, len(layers), ours, theirs, device, found, at, date))
            print(f"{wanted:16} {name:32} {ours:.5f} {theirs:.5f} {1 - ours / theirs:+.1%}", flush=True)
    append(NAME, device, rows)
