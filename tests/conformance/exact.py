"""Linears on codes of which float32 rounds no step: outputs are equal to the last bit, on any tile and in any order.

Scales are powers of two and sums small; the truth is a product in float64, on the device that is asked.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dvdq_kernels.activation_codes import pack_codes
from dvdq_kernels.registry import operators
from dvdq_reference.spec.bits import code_offset
from dvdq_reference.spec.layout import is_packed


@dataclass(frozen=True)
class Linear:
    """W4A8 with one scale a row and a token, and what is unlike that."""

    tokens: int = 5
    out_features: int = 24
    in_features: int = 256
    blocks: int = 1
    groups: int = 1
    x_bits: int = 8
    bits: int = 4
    packed: bool = False
    zero: bool = True
    bias: torch.dtype | None = torch.bfloat16
    dtype: torch.dtype = torch.float32

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        return 2 * self.tokens * self.out_features * self.in_features

    def check(self, backend: str, device: str, seed: int = 5) -> None:
        """Every output of a backend's operator is that of the product in float64."""
        generator = torch.Generator(device).manual_seed(seed)

        def draw(low: int, high: int, *shape: int) -> torch.Tensor:
            return torch.randint(low, high, shape, generator=generator, device=device)

        half, offset = code_offset(self.x_bits), code_offset(self.bits)
        v = draw(-half, half, self.tokens, self.in_features).to(torch.int8)
        q = draw(0, 2 * offset, self.out_features, self.in_features).to(torch.uint8)
        s, d = (
            torch.exp2(draw(-3, 0, *shape).double())
            for shape in ((self.tokens, self.blocks), (self.out_features, self.groups))
        )
        z = draw(0, 2 * offset, *d.shape) if self.zero else torch.full(d.shape, offset, device=device)
        bias = None if self.bias is None else draw(-8, 8, self.out_features).to(self.bias)
        scaled = (v.view(*s.shape, -1) * s[:, :, None]).view(v.shape)
        expected = scaled @ ((q.view(*d.shape, -1) - z[:, :, None]) * d[:, :, None]).view(q.shape).t()
        if bias is not None:
            expected += bias
        assert expected.abs().max() < 2**18, "float32 has no room for the sums and their 6 bits of a fraction"
        found = operators(backend).integer_linear(
            pack_codes(v) if self.packed else v,
            s.float(),
            scaled.sum(dim=1).float(),
            q[:, 0::2] | q[:, 1::2] << 4 if is_packed(self.bits) else q,
            d.float(),
            z.to(torch.int16) if self.zero else None,
            bias,
            self.x_bits,
            self.bits,
            self.dtype,
        )
        wrong = found != expected.float().to(self.dtype)
        assert not wrong.any(), f"{self}: {int(wrong.sum())} of {wrong.numel()} outputs differ"


WIDE = {
    "a few tokens": Linear(3, 264, 768),
    "64 tokens, blocks": Linear(64, 264, 768, blocks=6),
    "one tile, one step": Linear(256, 64, 128, bias=None),
    "several steps": Linear(300, 264, 1536),
    "decoded": Linear(100, 264, 1536),
    "inputs no multiple of 128": Linear(300, 264, 272 * 2, dtype=torch.bfloat16),
    "blocks 128": Linear(300, 264, 768, blocks=6),
    "blocks 64": Linear(300, 264, 768, blocks=12),
    "groups 128": Linear(300, 264, 768, groups=6),
    "groups 64 in blocks 256": Linear(300, 264, 768, blocks=3, groups=12),
    "decoded, blocks 128": Linear(200, 3072, 1536, blocks=12),
    "decoded, groups 128": Linear(200, 3072, 1536, groups=12),
    "decoded, a cluster, 256 columns": Linear(255, 18432, 1536),
    "decoded, a cluster, blocks 128": Linear(255, 12288, 1024, blocks=8),
    "decoded, a cluster, groups 128": Linear(255, 12288, 1024, groups=8),
    "a cluster, 256 columns": Linear(3000, 12288, 1024),
    "a cluster, a tile past the end": Linear(2900, 12288, 1024, dtype=torch.bfloat16),
    "a cluster, 128 columns, blocks 128": Linear(3000, 6144, 1024, blocks=8),
    "a cluster, groups 128, a tile past the end": Linear(2900, 6144, 1024, groups=8),
    "a cluster, more tiles than blocks": Linear(20000, 5120, 512, zero=False),
    "the size of HunyuanVideo": Linear(16384, 12288, 3072),
}
"""What takes every route of a product on a GPU of 132 multiprocessors: few tokens first, wide tiles and clusters last.

From 65 tokens on ``wgmma`` multiplies on Hopper, and up to 255 the loop decodes the weight.
"""
SMALL = 2**27
"""Operations that an emulated or interpreted kernel does in seconds."""
