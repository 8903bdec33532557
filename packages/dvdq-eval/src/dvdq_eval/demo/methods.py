"""What the demo compares."""

from __future__ import annotations

from dataclasses import dataclass

from dvdq_reference.spec.recipe import Recipe


@dataclass(frozen=True)
class Method:
    """One column of the demo, e.g. ``Method("dvd-quant", "W4A6")``; full precision has no ``bits``."""

    name: str
    bits: str = ""

    @property
    def label(self) -> str:
        """For people, e.g. ``DVD-Quant W4A6``."""
        return f"{_LABELS[self.name]} {self.bits}".strip()

    @property
    def weights_label(self) -> str:
        """For people, the method without its activations, e.g. ``DVD-Quant W4``."""
        return f"{_LABELS[self.name]} {self.bits.partition('A')[0]}".strip()

    @property
    def slug(self) -> str:
        """For file names, e.g. ``dvd-quant-w4a6``."""
        return f"{self.name} {self.bits}".strip().lower().replace(" ", "-")

    @property
    def recipe(self) -> Recipe:
        """What :func:`dvdq_models.quantize` takes; full precision has none."""
        return Recipe.named(self.name, self.bits)


_LABELS = {"full precision": "Full precision", "dvd-quant": "DVD-Quant", "minmax": "Min-max"}

FULL_PRECISION = Method("full precision")
QUANTIZED = (
    Method("dvd-quant", "W4A8"),
    Method("dvd-quant", "W4A6"),
    Method("dvd-quant", "W4A4"),
    Method("minmax", "W4A4"),
)
METHODS = (FULL_PRECISION, *QUANTIZED)
