"""``X R`` over the last dimension, in one pass over X."""

import torch
import triton
import triton.language as tl

from dvdq_kernels.backends.triton.launch import launch
from dvdq_kernels.backends.triton.transform import (
    factors,
    load_factors,
    programs,
    rows_in_place,
    rows_of,
    signs,
    tile_of,
    transformed,
)
from dvdq_kernels.rotation import core_size, hadamard_size, paley, random_signs, sylvester


def rotate(x: torch.Tensor, kind: str, seed: int | None) -> torch.Tensor:
    """``X R`` in the dtype of ``x``; computed in float32, or float64 if that is its dtype."""
    if x.dtype == torch.float64:
        return _rotate_double(x, kind, seed)
    in_features = x.shape[-1]
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    rows = rows_in_place(x)
    # One token a tile: an infinity has no other token to reach (0·∞ is NaN), and this is no hot path.
    tile = tile_of(in_features, kind).of_one_token()
    left, right = factors(tile, kind, x.dtype, x.device)
    launch(
        _rotate,
        (programs(tile, rows.shape[0], x.device),),
        {
            "x_ptr": rows,
            "signs_ptr": signs(in_features, seed, x.dtype, x.device),
            "left_ptr": left,
            "right_ptr": right,
            "out_ptr": out,
            "tokens": rows.shape[0],
            "stride": rows.stride(0),
        },
        {"FACTOR": hadamard_size(in_features, kind) ** -0.5, **tile.constants()},
        warps=tile.warps,
        stages=tile.stages(x.dtype),
    )
    return out


def _rotate_double(x: torch.Tensor, kind: str, seed: int | None) -> torch.Tensor:
    """By plain products: weights in float64 are rare, and tensor cores of float64 rarer."""
    size = hadamard_size(x.shape[-1], kind)
    core = core_size(size)
    assert core is not None
    outer, inner = paley(core), sylvester(size // core) / size**0.5
    if seed is not None:
        x = x * torch.tensor(random_signs(x.shape[-1], seed), device=x.device)
    rows = x.reshape(-1, core, size // core)
    rows = torch.tensor(outer.T.copy(), device=x.device) @ (rows @ torch.tensor(inner, device=x.device))
    return rows.view(x.shape)


@triton.jit
def _rotate(
    x_ptr: tl.tensor,
    signs_ptr: tl.tensor,
    left_ptr: tl.tensor,
    right_ptr: tl.tensor,
    out_ptr: tl.tensor,
    tokens: tl.tensor,
    stride: tl.tensor,
    FACTOR: tl.constexpr,
    MEMBERS: tl.constexpr,
    WIDTH: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    PIECE: tl.constexpr,
) -> None:
    """``out [tokens, in] = FACTOR · Hᵀ X H`` of each token of x, whose rows are ``stride`` apart.

    A program takes every so many-th tile.
    """
    source = x_ptr, stride, signs_ptr
    factors = load_factors(left_ptr, right_ptr, ROWS, PIECE)
    column = tl.arange(0, PIECE)
    for tile in tl.range(tl.program_id(0), tl.cdiv(tokens, TOKENS), tl.num_programs(0)):
        pieces = transformed(source, factors, tile, tokens, MEMBERS, WIDTH, TOKENS, ROWS, PIECE)
        token, member, held = rows_of(tile, tokens, MEMBERS, TOKENS, ROWS)
        at = out_ptr + ((token * MEMBERS + member) * WIDTH)[:, None] + column[None, :]
        inside = held[:, None] & (column < WIDTH)[None, :]
        for i in tl.static_range(len(pieces)):
            tl.store(at + i * PIECE, (pieces[i] * FACTOR).to(out_ptr.dtype.element_ty), mask=inside)
