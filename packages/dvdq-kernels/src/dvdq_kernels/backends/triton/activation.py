"""Rotation and blockwise online quantization of activations (ARQ, Eq. 10), in one pass over them."""

from typing import Any

import torch
import triton

from dvdq_kernels.backends.triton import rotated
from dvdq_kernels.backends.triton.hadamard import rotate
from dvdq_kernels.backends.triton.launch import launch
from dvdq_kernels.backends.triton.quantization import quantize
from dvdq_kernels.backends.triton.transform import factors, programs, rows_in_place, signs, tile_of
from dvdq_kernels.rotation import hadamard_size
from dvdq_reference.spec.bits import signed_range
from dvdq_reference.spec.clip_factors import clip_factor


def rotate_quantize(
    x: torch.Tensor, bits: int, block: int | None, clip: str, kind: str | None, seed: int | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes int8 ``[..., in]``, scale float32 ``[..., blocks]``, token sum float32 ``[...]``; computed in float32."""
    in_features = x.shape[-1]
    width = in_features if block is None else block
    low, high = signed_range(bits)
    clipped = clip == "gaussian"
    codes = torch.empty(x.shape, dtype=torch.int8, device=x.device)
    scale = torch.empty((*x.shape[:-1], in_features // width), dtype=torch.float32, device=x.device)
    token_sum = torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)
    if kind is not None:
        tile = tile_of(in_features, kind)
        if width % min(tile.width, tile.piece) or (width % tile.width and tile.width % width):
            # Blocks that begin within pieces, of no recipe: the rotated activations pass through memory.
            x, kind = rotate(x.to(torch.promote_types(x.dtype, torch.float32)), kind, seed), None
    rows = rows_in_place(x)
    arguments = {
        "x_ptr": rows,
        "code_ptr": codes,
        "scale_ptr": scale,
        "token_sum_ptr": token_sum,
        "tokens": rows.shape[0],
        "stride": rows.stride(0),
    }
    constants = {
        "BLOCK": width,
        "LIMIT": high / clip_factor(bits, width) if clipped else float(high),
        "LOW": low if clipped else None,
        "HIGH": high if clipped else None,
    }
    if kind is None:
        _launch_quantize(arguments, constants, in_features)
    else:
        left, right = factors(tile, kind, x.dtype, x.device)
        launch(
            rotated.rotate_quantize,
            (programs(tile, rows.shape[0], x.device),),
            {
                **arguments,
                "signs_ptr": signs(in_features, seed, x.dtype, x.device),
                "left_ptr": left,
                "right_ptr": right,
            },
            {**constants, "FACTOR": hadamard_size(in_features, kind) ** -0.5, **tile.constants()},
            warps=tile.warps,
            stages=tile.stages(x.dtype),
        )
    return codes, scale, token_sum


def _launch_quantize(arguments: dict[str, Any], constants: dict[str, Any], in_features: int) -> None:
    """Without rotation a program takes as many whole tokens as 8,192 channels are, and at least one."""
    width = constants["BLOCK"]
    blocks = in_features // width
    padded = triton.next_power_of_2(width) * triton.next_power_of_2(blocks)
    held = max(8192 // padded, 1)
    launch(
        quantize,
        (triton.cdiv(arguments["tokens"], held),),
        arguments,
        {**constants, "BLOCKS": blocks, "TOKENS": held},
        warps=min(max(held * padded // 2048, 4), 16),
    )
