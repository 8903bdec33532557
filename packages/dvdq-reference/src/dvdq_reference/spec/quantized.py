"""What a quantized weight is made of, as stored: names, shapes and dtypes of its tensors."""

from __future__ import annotations

from dataclasses import dataclass

from dvdq_reference.spec.granularity import count_parts
from dvdq_reference.spec.layout import packed_width
from dvdq_reference.spec.recipe import WeightRule


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


def stored_tensors(out_features: int, in_features: int, rule: WeightRule) -> tuple[StoredTensor, ...]:
    """The tensors that hold a ``[out, in]`` weight under ``rule``: ``qweight``, ``scale`` and, if asymmetric, ``zero``.

    ``qweight`` is uint8 in :mod:`the canonical layout <dvdq_reference.spec.layout>`; ``scale`` float32 and ``zero``
    int16 are ``[out, groups]``. A symmetric grid's zero-point is always ``2^(b-1)`` and is not stored.
    """
    groups = count_parts("stored_tensors", in_features, rule.group_size)
    qweight = StoredTensor("qweight", (out_features, packed_width("stored_tensors", in_features, rule.bits)), "uint8")
    scale = StoredTensor("scale", (out_features, groups), "float32")
    zero = StoredTensor("zero", (out_features, groups), "int16")
    return (qweight, scale) if rule.symmetric else (qweight, scale, zero)


def bits_per_weight(out_features: int, in_features: int, rule: WeightRule) -> float:
    """Stored bits for each weight, scales and zero-points counted."""
    return 8.0 * sum(t.nbytes for t in stored_tensors(out_features, in_features, rule)) / (out_features * in_features)
