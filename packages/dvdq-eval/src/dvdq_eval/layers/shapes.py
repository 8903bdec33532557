"""The shapes of the linears that hold most of HunyuanVideo's and Wan2.1's parameters."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """A weight's ``[out, in]``, e.g. ``Shape("HunyuanVideo", 3072, 15360)``, and whose it is."""

    model: str
    out_features: int
    in_features: int

    @property
    def label(self) -> str:
        """For people, e.g. ``HunyuanVideo 3072×15360``."""
        return f"{self.model} {self.out_features}×{self.in_features}"


SHAPES = (
    Shape("HunyuanVideo", 3072, 3072),
    Shape("HunyuanVideo", 12288, 3072),
    Shape("HunyuanVideo", 3072, 12288),
    Shape("HunyuanVideo", 3072, 15360),
    Shape("Wan2.1 1.3B", 1536, 1536),
    Shape("Wan2.1 1.3B", 8960, 1536),
    Shape("Wan2.1 1.3B", 1536, 8960),
    Shape("Wan2.1 14B", 5120, 5120),
    Shape("Wan2.1 14B", 13824, 5120),
    Shape("Wan2.1 14B", 5120, 13824),
)
"""Attention, both feed-forward linears, and the linear after HunyuanVideo's attention and MLP side by side."""

QUICK_SHAPES = (Shape("Wan2.1 1.3B", 1536, 1536),)
"""The smallest."""
