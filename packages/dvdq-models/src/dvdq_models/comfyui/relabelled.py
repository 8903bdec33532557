"""A file from a folder of ours: codes that fit are relabelled, and no source in full precision is needed.

``convrot_w4a4`` holds what the recipe ``convrot`` quantizes to. Linears with quantized activations come out as from
full precision, byte for byte. Weight-only linears have one grid a row in our folder, for which ComfyUI has no format
with full activations: they keep their codes, in ``convrot_w4a4`` with activations of 8 bits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial

import torch

from dvdq_models.checkpoint.lazy import LazyTensor
from dvdq_models.comfyui.bases import relabel
from dvdq_models.comfyui.formats import OPERATION, SignedRows, comfy_quant, pack, signed_codes
from dvdq_models.comfyui.names import Original
from dvdq_models.streaming.plan import Step
from dvdq_reference.spec.bits import code_offset
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.quantized import stored_tensors
from dvdq_reference.spec.recipe import Recipe, Rotation

_BITS = 4


def check_recipe(recipe: Recipe, where: str, wanted: str, ends: int) -> None:
    """A :class:`DvdqError` unless ``convrot_w4a4`` is asked for and holds what ``recipe`` quantizes to."""
    if (wanted, ends) != ("convrot_w4a4", 0):
        expected = "convrot_w4a4 without ends of a folder that is quantized; other formats are made from full precision"
        raise DvdqError(OPERATION, where=where, expected=expected, got=f"{wanted}, ends {ends}")
    weight = recipe.weight
    fits = {
        f"{_BITS} bits": weight.bits == _BITS,
        "the grid bgr-symmetric": weight.grid == "bgr-symmetric",
        "one scale a row": weight.group_size is None,
        "the regular rotation": recipe.rotation == Rotation("regular"),
        "no smoothing": recipe.smoothing is None,
        "no weights that finish": recipe.finish is None,
    }
    if unlike := [what for what, has in fits.items() if not has]:
        expected = "codes of the recipe convrot, the one that ComfyUI's formats hold, or the model in full precision"
        raise DvdqError(OPERATION, where=where, expected=expected, got=f"{recipe.name} without {', '.join(unlike)}")


def stored(
    expected: Mapping[str, tuple[int, ...]], layers: frozenset[str], recipe: Recipe
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the folder's tensors, of those of the model, in which ``layers`` are quantized."""
    found: dict[str, tuple[int, ...]] = {}
    for name, shape in expected.items():
        layer, _, leaf = name.rpartition(".")
        if leaf == "weight" and layer in layers:
            out_features, in_features = shape
            tensors = stored_tensors(out_features, in_features, recipe.weight)
            found |= {f"{layer}.{tensor.name}": tensor.shape for tensor in tensors}
        else:
            found[name] = shape
    return found


def relabelling(
    original: Original, tensors: Mapping[str, LazyTensor], encoding: SignedRows
) -> tuple[tuple[Step, ...], tuple[int, ...]]:
    """The steps that write a linear of the original, which is quantized in its parts, and its shape."""
    layer = original.name.removesuffix(".weight")
    codes, scale = (
        _joined(original, tensors, part, dtype) for part, dtype in (("qweight", torch.uint8), ("scale", torch.float32))
    )
    out_features, packed = codes.type.shape
    steps = (
        Step(layer, codes, partial(_relabel, codes.where, layer, encoding)),
        Step(f"{layer}.weight_scale", scale, partial(_scale, layer)),
    )
    return steps, (out_features, packed * 8 // _BITS)


def _joined(original: Original, tensors: Mapping[str, LazyTensor], part: str, dtype: torch.dtype) -> LazyTensor:
    names = tuple(f"{name.removesuffix('weight')}{part}" for name in original.parts)
    for name in names:
        if tensors[name].type.dtype != dtype:
            raise DvdqError(OPERATION, where=tensors[name].where, expected=dtype, got=tensors[name].type.dtype)
    return dataclasses.replace(original, parts=names).of(tensors)


def _relabel(where: str, layer: str, encoding: SignedRows, qweight: torch.Tensor) -> dict[str, torch.Tensor]:
    codes = signed_codes(qweight, _BITS)
    # Its mirror image has no code.
    if int(codes.min()) == -code_offset(_BITS):
        raise DvdqError(OPERATION, where=where, expected="codes from -7 to 7", got=-code_offset(_BITS))
    return {f"{layer}.weight": pack(relabel(codes)), f"{layer}.comfy_quant": comfy_quant(encoding)}


def _scale(layer: str, scale: torch.Tensor) -> dict[str, torch.Tensor]:
    return {f"{layer}.weight_scale": scale[:, 0].contiguous()}
