"""What is measured of each video, and how it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from dvdq_eval.intervals import Interval, is_apart
from dvdq_eval.vbench.dimensions import DIMENSIONS


@dataclass(frozen=True)
class Metric:
    """How a metric is written.

    Attributes:
        heading: of its column.
        meaning: in a line.
        form: of its figure, in ``unit``: 100 for per cent.
        more_is_better: None where neither is: a video that stands still flickers least.
    """

    heading: str
    meaning: str
    form: str
    unit: float = 1.0
    more_is_better: bool | None = True

    def verdict(self, difference: Interval | None) -> Literal["", "better", "worse"]:
        """What a paired difference says of a method: nothing where there is none, or where its interval has 0 in it."""
        if self.more_is_better is None or difference is None or not is_apart(difference):
            return ""
        return "better" if (difference.mean > 0) == self.more_is_better else "worse"


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "psnr_db": Metric("PSNR (dB)", "peak signal-to-noise ratio against full precision", ".1f"),
        "ssim": Metric("SSIM", "structural similarity with full precision", ".3f"),
        "ms_ssim": Metric("MS-SSIM", "structural similarity over several scales", ".3f"),
        "vmaf": Metric("VMAF", "Netflix's fusion of metrics, against full precision", ".1f"),
        "latent_error": Metric("latent error", "‖a − b‖ / ‖b‖ of the final latents", ".3f", more_is_better=False),
        "adherence": Metric("words seen (%)", "of the prompt's words, those that a detector sees", ".1f", 100.0),
        "flickering": Metric(
            "steadiness (%)", "VBench's temporal flickering; no reference", ".2f", 100.0, more_is_better=None
        ),
        **{
            name: Metric(
                f"{dimension.column or 'flickering'} (VBench)",
                f"VBench's {name.replace('_', ' ')}",
                ".2f",
                100.0,
                more_is_better=True if dimension.column else None,
            )
            for name, dimension in DIMENSIONS.items()
        },
    }
)
"""In the order of a table's columns; VBench's dimensions are there where its judges were asked."""
