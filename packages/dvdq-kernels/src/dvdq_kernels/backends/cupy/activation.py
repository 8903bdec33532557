"""Rotation and blockwise online quantization of activations (ARQ, Eq. 10), in one pass over them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from dvdq_kernels.activation_codes import pack_codes
from dvdq_kernels.backends.cupy.hadamard import rotate
from dvdq_kernels.backends.cupy.launch import Launch, launch
from dvdq_kernels.backends.cupy.rotation_tiles import Tile, launch_rotation, rows_in_place, tile_of
from dvdq_reference.spec.bits import signed_range
from dvdq_reference.spec.clip_factors import limit_of
from dvdq_reference.spec.recipe import Clip

_VECTOR = 8
"""Neighbouring channels that a thread loads at once."""
_BLOCK_BYTES = 12
"""Of shared memory for each block of a token (``struct Blocks``)."""
_LEAST_BLOCK = 32
"""A rotated block that is part of a row: 8 channels of each of its four lanes."""


def rotate_quantize(
    x: torch.Tensor, bits: int, block: int | None, clip: Clip, kind: str | None, seed: int | None, packed: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes int8 ``[..., in]`` or packed uint8 ``[..., in / 2]``, scale float32 ``[..., blocks]``, token sum float32
    ``[...]``; computed in float32.
    """
    if x.dtype == torch.float64:
        x = x.to(torch.float32)
    in_features = x.shape[-1]
    width = in_features if block is None else block
    blocks = in_features // width
    tile = None if kind is None else tile_of(x, kind, 2 * _BLOCK_BYTES * blocks)
    if kind is not None and (tile is None or not _lines_up(width, tile)):
        x, kind = rotate(x.to(torch.float32), kind, seed), None
    if kind is None and packed and width % _VECTOR:
        codes, scale, token_sum = rotate_quantize(x, bits, block, clip, None, None, False)
        return pack_codes(codes), scale, token_sum
    codes_shape = (*x.shape[:-1], in_features // 2) if packed else x.shape
    codes = torch.empty(codes_shape, dtype=torch.uint8 if packed else torch.int8, device=x.device)
    scale = torch.empty((*x.shape[:-1], blocks), dtype=torch.float32, device=x.device)
    token_sum = torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)
    outputs = codes, scale, token_sum
    low, high = signed_range(bits)
    rule = {
        "BLOCK": width,
        "BLOCKS": blocks,
        "LIMIT": limit_of(clip, bits, width),
        "SIGNED_SCALES": clip == "signed",
        "CLIPPED": clip != "absmax",
        "LOW": low,
        "HIGH": high,
        "PACKED": packed,
    }
    if kind is None or tile is None:
        _quantize(x, outputs, rule)
    else:
        launch_rotation("rotate_quantize", tile, rows_in_place(x), outputs, kind, seed, rule, 2 * _BLOCK_BYTES * blocks)
    return outputs


def _lines_up(block: int, tile: Tile) -> bool:
    """Whether blocks are whole rows or parts of one, as those of every recipe; else the rotated pass through memory."""
    if block % tile.width == 0:
        return True
    return tile.width % block == 0 and block >= _LEAST_BLOCK


def _quantize(x: torch.Tensor, outputs: tuple[torch.Tensor, ...], rule: dict[str, Any]) -> None:
    """Quantize ``x`` as it is, a token by a block of threads: eight channels at a time, or one if blocks are odd."""
    vector = _VECTOR if rule["BLOCK"] % _VECTOR == 0 else 1
    rows = rows_in_place(x) if vector > 1 else x.reshape(-1, x.shape[-1]).contiguous()
    chunks = x.shape[-1] // vector
    threads = min(32 * max(chunks // 128, 1), 1024)
    launch(
        Launch(
            "quantize",
            "quantize.cu",
            (rows, *outputs, np.int64(rows.stride(0))),
            {"IN": x.dtype, "VECTOR": vector, "CHUNKS": chunks, "THREADS": threads, **rule},
            grid=rows.shape[0],
            threads=threads,
            shared=_BLOCK_BYTES * rule["BLOCKS"],
            tile=f"{vector} channels",
        )
    )
