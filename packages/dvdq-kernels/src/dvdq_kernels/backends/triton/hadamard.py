"""``X R`` over the last dimension, in one pass over X."""

import torch
import triton
import triton.language as tl

from dvdq_kernels.backends.triton.launch import held_dtype, launch
from dvdq_kernels.backends.triton.tiles import operands, rows_in_place, tile_of
from dvdq_kernels.backends.triton.transform import layout, load_factors, transformed
from dvdq_kernels.rotation import core_size, hadamard_size, paley, rotation_signs, sylvester


def rotate(x: torch.Tensor, kind: str, seed: int | None) -> torch.Tensor:
    """``X R`` in the dtype of ``x``; computed in float32, or float64 if that is its dtype."""
    if x.dtype == torch.float64:
        return _rotate_double(x, kind, seed)
    out = torch.empty(x.shape, dtype=held_dtype(x.dtype), device=x.device)
    rows = rows_in_place(x)
    # One token a tile: an infinity has no other token to reach (0 · ∞ is NaN), and this is no hot path.
    tile = tile_of(x.shape[-1], kind).of_one_token()
    multiplied = operands(tile, kind, seed, rows)
    launch(
        _rotate,
        (tile.programs(rows.shape[0], x.device),),
        {
            "x_ptr": rows,
            "out_ptr": out,
            "tokens": rows.shape[0],
            "stride": rows.stride(0),
            **multiplied,
        },
        {"FACTOR": hadamard_size(x.shape[-1], kind) ** -0.5, "TILE": tile},
        warps=tile.warps,
        stages=tile.stages(x.dtype, multiplied["signs_ptr"] is not None),
    )
    return out.to(x.dtype)


def _rotate_double(x: torch.Tensor, kind: str, seed: int | None) -> torch.Tensor:
    """By plain products: weights in float64 are rare, and tensor cores of float64 rarer."""
    size = hadamard_size(x.shape[-1], kind)
    core = core_size(size)
    assert core is not None
    outer, inner = paley(core).T.copy(), sylvester(size // core) / size**0.5
    signs = rotation_signs(x.shape[-1], kind, seed)
    if signs is not None:
        x = x * torch.tensor(signs, device=x.device)
    rows = x.reshape(-1, core, size // core) @ torch.tensor(inner, device=x.device)
    return (torch.tensor(outer, device=x.device) @ rows).view(x.shape)


@triton.jit
def _store(
    pieces: tl.tuple,
    out_ptr: tl.tensor,
    tile: tl.tensor,
    tokens: tl.tensor,
    FACTOR: tl.constexpr,
    FIRST: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    """Writes ``FACTOR`` times the pieces of ``ROWS`` rows of a tile."""
    at, channel, inside = layout(tile, tokens, TILE.members * TILE.width, FIRST, ROWS, TILE)
    for i in tl.static_range(len(pieces)):
        value = (pieces[i] * FACTOR).to(out_ptr.dtype.element_ty)
        tl.store(out_ptr + (at + channel) + i * TILE.piece, value, mask=inside)


@triton.jit
def _rotate(
    x_ptr: tl.tensor,
    out_ptr: tl.tensor,
    tokens: tl.tensor,
    stride: tl.tensor,
    signs_ptr: tl.tensor,
    left_ptr: tl.tensor,
    right_ptr: tl.tensor,
    FACTOR: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    """``out [tokens, in] = FACTOR · Hᵀ X H`` of each token of x, which are ``stride`` apart.

    A program takes every so many-th tile.
    """
    source = x_ptr, stride, signs_ptr
    factors = load_factors(left_ptr, right_ptr, TILE)
    for tile in tl.range(tl.program_id(0), tl.cdiv(tokens, TILE.tokens), tl.num_programs(0)):
        upper, lower = transformed(source, factors, tile, tokens, TILE)
        _store(upper, out_ptr, tile, tokens, FACTOR, 0, TILE.rows, TILE)
        if TILE.lower:
            _store(lower, out_ptr, tile, tokens, FACTOR, TILE.rows, TILE.lower, TILE)
