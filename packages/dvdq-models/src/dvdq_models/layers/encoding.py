"""A weight of a model as the tensors that its layer stores: smoothed, rotated and quantized, in chunks of rows."""

from __future__ import annotations

import math
from typing import Any

import torch

from dvdq_kernels import QuantizedWeight, dequantize, quantize_weight
from dvdq_kernels.feedback import error_feedback
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.quantized import FINISH
from dvdq_reference.spec.recipe import Recipe, Rotation, Smoothing, WeightRule

_LEVELS = 2**8
"""More than any grid has: a step is a weight's range divided by their number."""
_CHUNK = 2**24
"""Elements of a weight that are rotated and quantized at a time: the float32 copies of a chunk, not of the weight."""


def check_weight(operation: str, where: str | None, weight: torch.Tensor) -> None:
    """Refuse a weight ``[out, in]`` of which float32, in which it is rotated, cannot tell the values.

    A rotation makes no value larger than ``sqrt(in) max|W|``, and a grid spans two of these.

    Raises:
        DvdqError: NaN or Inf, a value beyond that range, or values so small that all of them would become 0.
    """
    low, high = torch.aminmax(weight)  # one pass, no copy; extremes carry NaN and Inf
    if not bool(low.isfinite() & high.isfinite()):
        raise DvdqError(operation, where=where, expected="finite weights", got="NaN or Inf")
    largest, float32 = max(-low.item(), high.item()), torch.finfo(torch.float32)
    if largest > (limit := float32.max / (2.0 * math.sqrt(weight.shape[-1]))):
        raise DvdqError(operation, where=where, expected=f"weights up to {limit:.6g}", got=f"{largest:.6g}")
    if 0.0 < largest < _LEVELS * float32.smallest_normal:
        expected, got = "weights that float32 tells from 0", f"at most {largest:.6g}"
        raise DvdqError(operation, where=where, expected=expected, got=got)


class LastFeedback:
    """What :func:`~dvdq_kernels.feedback.error_feedback` gave last, for the linears after it that read the same."""

    def __init__(self) -> None:
        self._last: tuple[torch.Tensor, torch.device, Rotation | None, torch.Tensor] | None = None

    def of(self, moments: torch.Tensor, device: torch.device, rotation: Rotation | None) -> torch.Tensor:
        """M of ``moments``, which nobody writes to meanwhile, float64 on ``device``."""
        last = self._last
        if last is None or last[0] is not moments or last[1:3] != (device, rotation):
            self._last = last = None  # gone before the next needs its room
            self._last = last = moments, device, rotation, error_feedback(moments.to(device), rotation)
        return last[3]


def encode_weight(
    weight: torch.Tensor,
    recipe: Recipe,
    channel_max: torch.Tensor | None = None,
    moments: torch.Tensor | None = None,
    *,
    last: LastFeedback | None = None,
    backend: str = "auto",
) -> dict[str, torch.Tensor]:
    """What :func:`~dvdq_reference.spec.quantized.stored_tensors` lists, of ``weight`` ``[out, in]``.

    Everything that quantizes a weight of a model comes here, so that the same chunks give the same bits.

    Args:
        weight: any float dtype, finite.
        recipe: its rotation, smoothing and weight rule are used.
        channel_max: ``max |X_j|`` of each input channel, ``[in]``, from calibration, or the magnitudes that follow from
            weights; a recipe that smooths needs them.
        moments: the second moments of X, ``[in, in]``, from calibration; a recipe that feeds back needs them.
        last: of all weights of a model, so that those that read the same tensor share what is made of its moments.
        backend: as in :func:`dvdq_kernels.quantize_weight`.

    Raises:
        DvdqError: a recipe that smooths or feeds back without statistics, or statistics of another length.
    """
    weight = weight.detach()  # what its gradient would take is several matrices
    factor = feedback = None
    if recipe.smoothing is not None:
        factor = smoothing_factor(channel_max, weight, recipe.smoothing)
    if recipe.feeds_back:
        feedback = _feedback(moments, weight, recipe, factor, last or LastFeedback())
    chunks = weight.split(max(1, _CHUNK // weight.shape[1]))
    sets = zip(*(_quantize(chunk, recipe, factor, feedback, backend) for chunk in chunks), strict=True)
    stored = {} if factor is None else {"smoothing": factor}
    for prefix, parts in zip(("", FINISH), sets, strict=False):
        zeros = [part.zero for part in parts if part.zero is not None]
        stored[f"{prefix}qweight"] = torch.cat([part.qweight for part in parts])
        stored[f"{prefix}scale"] = torch.cat([part.scale for part in parts])
        if zeros:
            stored[f"{prefix}zero"] = torch.cat(zeros)
    return stored


def smoothing_factor(channel_max: torch.Tensor | None, weight: torch.Tensor, smoothing: Smoothing) -> torch.Tensor:
    """s, float32 ``[in]``, that divides X and multiplies W; 1 for a channel where X or W is all zero.

    ``smoothquant`` (Eq. 9): ``s_j = max|X_j|^α / max|W_j|^(1-α)``. ``vidit-q`` multiplies X by
    ``max|W_j|^α / max|X_j|^(1-α)``, so its s is one over that.
    """
    operation, (_, in_features) = "smoothing", weight.shape
    if channel_max is None:
        raise DvdqError(operation, where=smoothing.kind, expected="calibrated maxima of the activations", got=None)
    if channel_max.shape != (in_features,):
        raise DvdqError(operation, expected=f"maxima [{in_features}]", got=list(channel_max.shape))
    x = channel_max.to(weight.device, torch.float64)
    w = weight.abs().amax(dim=0).to(torch.float64)
    alpha = 1.0 - smoothing.alpha if smoothing.kind == "vidit-q" else smoothing.alpha
    live = (x > 0) & (w > 0)
    one = torch.ones_like(x)
    return (torch.where(live, x, one) ** alpha / torch.where(live, w, one) ** (1.0 - alpha)).to(torch.float32)


def _feedback(
    moments: torch.Tensor | None,
    weight: torch.Tensor,
    recipe: Recipe,
    factor: torch.Tensor | None,
    last: LastFeedback,
) -> torch.Tensor:
    """What errors add to the channels after them, float64 ``[in, in]``: of the moments of ``X/s R``."""
    operation, size = "feedback", [weight.shape[1]] * 2
    if moments is None or list(moments.shape) != size:
        got = None if moments is None else list(moments.shape)
        raise DvdqError(operation, where=recipe.name, expected=f"second moments {size}", got=got)
    if factor is None:
        return last.of(moments, weight.device, recipe.rotation)
    moments = moments.to(weight.device, torch.float64)
    return error_feedback(moments / (factor.to(torch.float64)[:, None] * factor), recipe.rotation)


def _quantize(
    weight: torch.Tensor,
    recipe: Recipe,
    factor: torch.Tensor | None,
    feedback: torch.Tensor | None,
    backend: str,
) -> tuple[QuantizedWeight, ...]:
    """The sets of codes: one, and one of what it left where the recipe says how to finish."""
    rule, rotation = recipe.weight, recipe.rotation
    if factor is not None:
        weight = weight.to(torch.promote_types(weight.dtype, torch.float32)) * factor
    given = weight
    if recipe.smoothing is not None and recipe.smoothing.twice:
        once = quantize_weight(weight, WeightRule(rule.bits, "minmax", symmetric=True), backend=backend)
        given = dequantize(once)
    asked: dict[str, Any] = {"rotation": rotation, "backend": backend}
    first = quantize_weight(given, rule, feedback=_for(rule, feedback), **asked)
    if recipe.finish is None:
        return (first,)
    second = quantize_weight(weight, recipe.finish, left_by=first, feedback=_for(recipe.finish, feedback), **asked)
    return first, second


def _for(rule: WeightRule, feedback: torch.Tensor | None) -> torch.Tensor | None:
    return feedback if rule.rounding == "feedback" else None
