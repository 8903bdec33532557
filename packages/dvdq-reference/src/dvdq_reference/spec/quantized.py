"""What a quantized weight is made of, as stored: names, shapes and dtypes of its tensors."""

from __future__ import annotations

from dataclasses import dataclass

from dvdq_reference.spec.granularity import count_parts
from dvdq_reference.spec.layout import packed_width
from dvdq_reference.spec.recipe import Smoothing, WeightRule


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a quantized weight, e.g. ``StoredTensor("scale", (3072, 1), "float32")``."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        count = 1
        for size in self.shape:
            count *= size
        return count * {"uint8": 1, "int16": 2, "float32": 4}[self.dtype]


FINISH = "finish_"
"""How the names of the second set of codes begin."""


def stored_tensors(
    out_features: int,
    in_features: int,
    rule: WeightRule,
    smoothing: Smoothing | None = None,
    finish: WeightRule | None = None,
) -> tuple[StoredTensor, ...]:
    """The tensors that hold a ``[out, in]`` weight under ``rule``: ``qweight``, ``scale`` and, if asymmetric, ``zero``.

    ``qweight`` is uint8 in :mod:`the canonical layout <dvdq_reference.spec.layout>`; ``scale`` float32 and ``zero``
    int16 are ``[out, groups]``. A symmetric grid's zero-point is always ``2^(b-1)`` and is not stored. What smooths
    keeps its factor, ``smoothing`` float32 ``[in]``. A second set of codes is stored likewise, as ``finish_qweight``,
    ``finish_scale`` and ``finish_zero``.
    """
    first = _codes(out_features, in_features, rule)
    factor = StoredTensor("smoothing", (in_features,), "float32")
    second = () if finish is None else _codes(out_features, in_features, finish, FINISH)
    return (*first, *(() if smoothing is None else (factor,)), *second)


def _codes(out_features: int, in_features: int, rule: WeightRule, prefix: str = "") -> tuple[StoredTensor, ...]:
    groups = count_parts("stored_tensors", in_features, rule.group_size)
    width = packed_width("stored_tensors", in_features, rule.bits)
    qweight = StoredTensor(f"{prefix}qweight", (out_features, width), "uint8")
    scale = StoredTensor(f"{prefix}scale", (out_features, groups), "float32")
    zero = StoredTensor(f"{prefix}zero", (out_features, groups), "int16")
    return (qweight, scale) if rule.symmetric else (qweight, scale, zero)


def bits_per_weight(
    out_features: int,
    in_features: int,
    rule: WeightRule,
    smoothing: Smoothing | None = None,
    finish: WeightRule | None = None,
) -> float:
    """Stored bits for each weight, scales, zero-points, smoothing factors and a second set of codes counted."""
    stored = stored_tensors(out_features, in_features, rule, smoothing, finish)
    return 8.0 * sum(tensor.nbytes for tensor in stored) / (out_features * in_features)
