"""``asym_w4a8_int8``: sixteen levels, a small scale for each 16 channels, and integers of 8 bits that both make.

``W H ≈ c · clamp(round(r · l[q]), -127, 127)``: ``l`` sixteen levels for the whole weight, ``r`` (float8) for each
group and ``c`` (float32) for each row. A product multiplies the integers, so a level counts as it is rounded, and the
search looks through the rounding:

1. ``r c`` of each group by alternating least squares on the levels themselves, and ``c`` so that the largest is 127;
2. ``r`` among the float8 numbers around it: that whose nearest levels, as integers, leave the least error;
3. ``c = ⟨W H, i⟩ / ⟨i, i⟩`` of each row's nearest integers i, then 2 and 3 again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch

from dvdq_kernels.feedback import error_feedback, round_with_feedback
from dvdq_models.checkpoint.layout import TensorType
from dvdq_models.comfyui.bases import rotate, rotated_moments
from dvdq_reference.spec.codebook import GROUP, LARGEST, LEVELS, NEIGHBOURS, ROUNDS, START_ROUNDS

_CHUNK = 2**20
"""Elements that are searched at a time: a dozen copies of them stay in the cache."""
_TINY = 1e-30


@dataclass(frozen=True)
class Codebook:
    """The encoding; ``size`` is that of the rotation."""

    size: int

    @property
    def config(self) -> Mapping[str, Any]:
        """The sizes of a group and of the rotation."""
        return {"format": "asym_w4a8_int8", "group_size": GROUP, "convrot_groupsize": self.size}

    def types(self, out_features: int, in_features: int) -> dict[str, TensorType]:
        """``weight``, r, c and the levels."""
        return {
            "weight": TensorType((out_features, in_features // 2), torch.int8),
            "weight_s_rel": TensorType((out_features, in_features // GROUP), torch.float8_e4m3fn),
            "weight_s_channel": TensorType((out_features,), torch.float32),
            "weight_codebook": TensorType((len(LEVELS),), torch.float32),
        }

    def encode(
        self, weight: torch.Tensor, backend: str = "auto", moments: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """By the search above, in torch on the weight's device; no backend has kernels of its own for it."""
        del backend
        chunks = weight.split(max(1, _CHUNK // weight.shape[1]))
        found = [_search(rotate(chunk, self.size)) for chunk in chunks]
        codes, relative, channel = (torch.cat(parts) for parts in zip(*found, strict=True))
        if moments is not None:
            feedback = error_feedback(rotated_moments(moments, self.size))
            nearest = partial(_nearest_value, relative.double(), channel.double())
            codes = round_with_feedback(torch.cat([rotate(chunk, self.size) for chunk in chunks]), feedback, nearest)
        packed = (codes[:, 0::2] | (codes[:, 1::2] << 4)).view(torch.int8)
        levels = torch.tensor(LEVELS, dtype=torch.float32)
        return {"weight": packed, "weight_s_rel": relative, "weight_s_channel": channel, "weight_codebook": levels}


def _search(rotated: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes uint8 ``[out, in]``, r float8 ``[out, groups]`` and c ``[out]`` in the dtype of ``W H``."""
    groups = rotated.view(len(rotated), -1, GROUP)
    levels = torch.tensor(LEVELS, dtype=torch.float32, device=rotated.device).to(rotated.dtype)
    scale = groups.abs().amax(dim=2).clamp_min_(_TINY)
    for _ in range(START_ROUNDS):
        chosen = levels[_nearest_level(groups / scale[..., None], levels)]
        scale = ((groups * chosen).sum(dim=2) / chosen.square().sum(dim=2)).clamp_min_(_TINY)
    chosen = levels[_nearest_level(groups / scale[..., None], levels)]
    channel = ((chosen * scale[..., None]).abs().amax(dim=(1, 2)) / LARGEST).clamp_min_(_TINY)
    relative = scale / channel[:, None]
    for _ in range(ROUNDS):
        relative = _best_relative(groups / channel[:, None, None], relative, levels)
        integers, _ = _assign(groups / channel[:, None, None], relative, levels)
        least_squares = (groups * integers).sum(dim=(1, 2)) / integers.square().sum(dim=(1, 2))
        channel = torch.where(least_squares > _TINY, least_squares, channel)
    _, codes = _assign(groups / channel[:, None, None], relative, levels)
    return codes.view(rotated.shape), relative.to(torch.float8_e4m3fn), channel


def _best_relative(target: torch.Tensor, start: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Of the float8 numbers around ``start`` the one whose integers are nearest to ``target``, by group."""
    numbers = _float8().to(target)
    place = torch.bucketize(start, numbers).clamp_(max=len(numbers) - 1)
    best, least = start, torch.full_like(start, torch.inf)
    for step in NEIGHBOURS:
        candidate = numbers[(place + step).clamp(0, len(numbers) - 1)]
        near = levels[_nearest_level(target / candidate[..., None], levels)]
        error = ((near * candidate[..., None]).round_().clamp_(-LARGEST, LARGEST) - target).square().sum(dim=2)
        best = torch.where(error < least, candidate, best)
        least = torch.minimum(error, least)
    return best


def _assign(target: torch.Tensor, relative: torch.Tensor, levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The nearest integer that a level makes, and the level's number, uint8."""
    made = (levels * relative[..., None]).round_().clamp_(-LARGEST, LARGEST)
    middles = (made[..., 1:] + made[..., :-1]) / 2
    codes = torch.zeros(target.shape, dtype=torch.uint8, device=target.device)
    for j in range(len(levels) - 1):
        codes += target > middles[..., j, None]
    return made.gather(2, codes.long()), codes


def _nearest_value(
    relative: torch.Tensor, channel: torch.Tensor, wanted: torch.Tensor, number: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of one input channel, ``wanted`` ``[out]``: codes, and ``c i`` of their integers."""
    levels = torch.tensor(LEVELS, dtype=wanted.dtype, device=wanted.device)
    made, codes = _assign((wanted / channel)[:, None, None], relative[:, number // GROUP, None], levels)
    return codes.view(-1), made.view(-1) * channel


def _nearest_level(target: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    return torch.bucketize(target, (levels[1:] + levels[:-1]) / 2)


@cache
def _float8() -> torch.Tensor:
    """The positive finite numbers of float8 (e4m3), rising, float32."""
    return torch.arange(1, 127, dtype=torch.uint8).view(torch.float8_e4m3fn).to(torch.float32)
