"""The paper's own figures, as printed: HunyuanVideo on one RTX 4090, VBench dimensions ×100."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

DIFFERS = (
    "What differs: the paper has HunyuanVideo of 12.8 B parameters, 50 steps and VBench's learned judges; ours a small "
    "model, distances from full precision of the same noise, and a detector of what a prompt says."
)
"""What no column of ours can be held against theirs for."""


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper: its columns, and its rows with a label first."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


_VBENCH = ("aesthetic", "imaging", "overall", "scene", "background", "subject", "dynamic", "motion")

PAPER: Mapping[str, PaperTable] = MappingProxyType(
    {
        "table-1": PaperTable(
            ("method", "bits", *_VBENCH),
            (
                ("HunyuanVideo", "16/16", "62.53", "64.78", "25.86", "42.81", "97.01", "96.05", "51.39", "99.30"),
                ("MinMax", "W4A8", "59.44", "60.62", "25.78", "36.41", "97.61", "95.83", "52.78", "98.89"),
                ("SmoothQuant", "W4A8", "60.50", "64.47", "25.56", "28.85", "97.72", "96.29", "51.39", "99.05"),
                ("QuaRot", "W4A8", "58.80", "56.86", "25.33", "34.30", "98.10", "95.72", "55.56", "99.03"),
                ("ViDiT-Q", "W4A8", "57.01", "59.74", "24.77", "27.11", "97.37", "95.16", "48.61", "99.06"),
                ("DVD-Quant", "W4A6", "62.27", "64.22", "25.83", "33.07", "97.89", "96.57", "58.33", "99.05"),
                ("MinMax", "W4A4", "24.20", "24.78", "4.27", "0.00", "98.05", "96.27", "0.00", "99.03"),
                ("SmoothQuant", "W4A4", "48.41", "59.46", "21.09", "7.84", "96.72", "94.97", "1.39", "98.79"),
                ("QuaRot", "W4A4", "44.85", "54.30", "17.33", "0.94", "97.69", "92.64", "87.5", "92.22"),
                ("ViDiT-Q", "W4A4", "45.36", "40.10", "19.66", "7.85", "97.19", "97.29", "0.00", "99.43"),
                ("DVD-Quant", "W4A4", "61.96", "61.82", "25.68", "29.94", "97.82", "96.61", "56.94", "99.15"),
            ),
        ),
        "table-2": PaperTable(
            ("", "δ-GBS", "STP", "ITP", "ABS", "SBA"),
            (("imaging", "61.93", "61.33", "61.40", "61.03", "61.26"),),
        ),
        "table-3": PaperTable(
            ("parts", "bits", "aesthetic", "imaging", "subject", "motion", "background"),
            (
                ("ARQ alone", "W4A6", "58.15", "58.68", "98.04", "98.49", "98.21"),
                ("BGR alone", "W4A6", "57.85", "57.72", "98.23", "97.86", "98.10"),
                ("BGR and ARQ", "W4A6", "60.46", "61.93", "98.91", "98.95", "98.40"),
                ("ARQ alone", "W4A4", "53.95", "52.67", "97.92", "98.71", "97.89"),
                ("BGR alone", "W4A4", "43.26", "58.31", "95.36", "96.08", "97.35"),
                ("BGR and ARQ", "W4A4", "59.57", "58.93", "98.67", "99.00", "98.47"),
            ),
        ),
        "table-4": PaperTable(
            ("DVD-Quant + TeaCache", "aesthetic", "imaging", "background", "subject", "motion", "speedup"),
            (
                ("W4A8", "61.39", "62.96", "98.24", "98.73", "98.75", "4.01 ×"),
                ("W4A4", "58.78", "58.20", "98.43", "98.68", "98.92", "4.85 ×"),
            ),
        ),
        "table-5": PaperTable(
            ("bits", "memory", "latency"),
            (
                ("16/16", "1.00 ×", "1.00 ×"),
                ("W4A8", "3.68 ×", "1.75 ×"),
                ("W4A6", "3.68 ×", "1.93 ×"),
                ("W4A4", "3.68 ×", "2.12 ×"),
            ),
        ),
        "figure-6": PaperTable(("δ", "imaging"), (("0.06", "62.11"), ("0.18", "61.00"))),
    }
)
