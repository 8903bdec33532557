"""The twin of a bundled transformer that has outliers: another way to write the same function.

In every input that a quantized linear reads and that something linear has written, a few channels are made ``factor``
times as large where they are written and as much smaller where they are read. Real models have such channels; the
bundled ones hardly any, and so they do not show what outliers do to a method. Only hidden units of feed-forward
layers stay as they are: a GELU stands between who writes and who reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

_EVERY = 65


def outlying(channels: int) -> torch.Tensor:
    """Indices of the channels that become outliers: one in 65, so that they fall on different heads and blocks."""
    return torch.arange(_EVERY // 2 + 1, channels, _EVERY)


@torch.no_grad()
def scale_outliers_(transformer: Any, factor: float) -> None:
    """Make outliers ``factor`` times as large as the other channels, in place; the outputs stay what they were.

    Args:
        transformer: a Wan or HunyuanVideo transformer in full precision; its floats round, so outputs agree to their
            precision, and bit for bit where ``factor`` is a power of two and no sum is rounded otherwise.
        factor: by which channels grow.
    """
    {"WanTransformer3DModel": _wan, "HunyuanVideoTransformer3DModel": _hunyuan_video}[type(transformer).__name__](
        transformer, factor
    )


def _wan(transformer: Any, factor: float) -> None:
    embedder, blocks = transformer.condition_embedder, transformer.blocks
    # Scales are stored as what is added to one: factor · (1 + scale) = 1 + (factor · scale + factor - 1). The
    # projection's part of a sum and the table's part share the shift.
    _written(embedder.time_proj, factor, parts=6, chosen=(0, 1, 3, 4))
    for block in blocks:
        table = block.scale_shift_table[0]
        for part, shift in ((0, 0.0), (1, factor - 1.0), (3, 0.0), (4, factor - 1.0)):
            columns = outlying(table.shape[1])
            table[part, columns] = table[part, columns] * factor + shift
        _read((block.attn1.to_q, block.attn1.to_k, block.attn1.to_v, block.ffn.net[0].proj), factor)
        _normalized(block.norm2, factor)
        _read((block.attn2.to_q,), factor)
        for attention in (block.attn1, block.attn2):
            _written(attention.to_v, factor)
            _read((attention.to_out[0],), factor)
        _read((block.attn2.to_k, block.attn2.to_v), factor)
    _written(embedder.text_embedder.linear_2, factor)


def _hunyuan_video(transformer: Any, factor: float) -> None:
    for block in transformer.transformer_blocks:
        attention = block.attn
        for norm, attending, hidden in (
            (block.norm1, (attention.to_q, attention.to_k, attention.to_v), block.ff),
            (block.norm1_context, (attention.add_q_proj, attention.add_k_proj, attention.add_v_proj), block.ff_context),
        ):
            _modulated(norm.linear, factor, parts=6, shifts=(0, 3), scales=(1, 4))
            _read((*attending, hidden.net[0].proj), factor)
        for values, out in ((attention.to_v, attention.to_out[0]), (attention.add_v_proj, attention.to_add_out)):
            _written(values, factor)
            _read((out,), factor)
    for block in transformer.single_transformer_blocks:
        attention = block.attn
        _modulated(block.norm.linear, factor, parts=3, shifts=(0,), scales=(1,))
        _read((attention.to_q, attention.to_k, attention.to_v, block.proj_mlp), factor)
        _written(attention.to_v, factor)
        _read((block.proj_out,), factor, width=attention.to_v.out_features)


def _modulated(linear: nn.Linear, factor: float, parts: int, shifts: Sequence[int], scales: Sequence[int]) -> None:
    _written(linear, factor, parts=parts, chosen=(*shifts, *scales))
    columns = outlying(linear.out_features // parts)
    for part in scales:
        linear.bias.unflatten(0, (parts, -1))[part, columns] += factor - 1.0


def _written(linear: nn.Linear, factor: float, parts: int = 1, chosen: Sequence[int] = (0,)) -> None:
    """Scale outlying rows of ``chosen`` parts of a linear's output."""
    columns = outlying(linear.out_features // parts)
    for part in chosen:
        linear.weight.unflatten(0, (parts, -1))[part, columns] *= factor
        linear.bias.unflatten(0, (parts, -1))[part, columns] *= factor


def _normalized(norm: nn.LayerNorm, factor: float) -> None:
    columns = outlying(norm.weight.shape[0])
    norm.weight[columns] *= factor
    norm.bias[columns] *= factor


def _read(linears: Sequence[nn.Linear], factor: float, width: int | None = None) -> None:
    """Undo the scale where it is read, among the first ``width`` inputs."""
    for linear in linears:
        linear.weight[:, outlying(width or linear.in_features)] /= factor
