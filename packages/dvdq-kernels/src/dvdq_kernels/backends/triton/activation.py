"""Rotation and blockwise online quantization of activations (ARQ, Eq. 10), in one pass over them."""

from __future__ import annotations

from typing import Any

import torch
import triton

from dvdq_kernels.backends.triton import rotated
from dvdq_kernels.backends.triton.hadamard import rotate
from dvdq_kernels.backends.triton.launch import launch
from dvdq_kernels.backends.triton.quantization import Rule, quantize
from dvdq_kernels.backends.triton.tiles import Tile, operands, rows_in_place, tile_of
from dvdq_kernels.rotation import hadamard_size
from dvdq_reference.spec.bits import signed_range
from dvdq_reference.spec.clip_factors import limit_of
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Clip


def rotate_quantize(
    x: torch.Tensor,
    bits: int,
    block: int | None,
    clip: Clip,
    kind: str | None,
    seed: int | None,
    packed: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes int8 ``[..., in]``, scale float32 ``[..., blocks]``, token sum float32 ``[...]``; computed in float32.

    Triton has no product of INT4 codes, and so does not pack them.
    """
    if packed:
        raise DvdqError("rotate_quantize", where="triton", expected="codes a byte each", got="packed=True")
    in_features = x.shape[-1]
    rule = _rule(bits, in_features if block is None else block, clip)
    blocks = in_features // rule.block
    codes = torch.empty(x.shape, dtype=torch.int8, device=x.device)
    scale = torch.empty((*x.shape[:-1], blocks), dtype=torch.float32, device=x.device)
    token_sum = torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)
    tile = None if kind is None else tile_of(in_features, kind)
    if kind is not None and tile is not None and not _lines_up(rule.block, tile):
        x, tile = rotate(x.to(torch.promote_types(x.dtype, torch.float32)), kind, seed), None
    rows = rows_in_place(x)
    arguments: dict[str, Any] = {
        "x_ptr": rows,
        "code_ptr": codes,
        "scale_ptr": scale,
        "token_sum_ptr": token_sum,
        "tokens": rows.shape[0],
        "stride": rows.stride(0),
    }
    if kind is None or tile is None:
        # As many whole tokens as 8,192 channels are, and at least one.
        padded = triton.next_power_of_2(blocks) * triton.next_power_of_2(rule.block)
        held = max(8192 // padded, 1)
        launch(
            quantize,
            (triton.cdiv(rows.shape[0], held),),
            arguments,
            {"RULE": rule, "BLOCKS": blocks, "TOKENS": held},
            warps=min(max(held * padded // 2048, 4), 16),
        )
    else:
        multiplied = operands(tile, kind, seed, rows)
        launch(
            rotated.rotate_quantize,
            (tile.programs(rows.shape[0], x.device),),
            {**arguments, **multiplied},
            {"FACTOR": hadamard_size(in_features, kind) ** -0.5, "RULE": rule, "TILE": tile},
            warps=tile.warps,
            stages=tile.stages(x.dtype, multiplied["signs_ptr"] is not None),
        )
    return codes, scale, token_sum


def _rule(bits: int, block: int, clip: Clip) -> Rule:
    low, high = (None, None) if clip == "absmax" else signed_range(bits)
    return Rule(block, limit_of(clip, bits, block), clip == "signed", low, high)


def _lines_up(block: int, tile: Tile) -> bool:
    """Whether blocks begin where rows or pieces do, as those of every recipe; else the rotated pass through memory."""
    if block % min(tile.width, tile.piece) or (block % tile.width and tile.width % block):
        return False
    in_rows = max(block // tile.width, 1)
    return not tile.lower or in_rows == tile.members or tile.rows % in_rows == 0
