"""Which backend is the faster: what was measured.

Measurements are data, ``ranking.json``, which ``python -m benchmarks rank_backends`` writes. A run is one GPU's::

    {"device": "NVIDIA H100 80GB HBM3", "capability": 90, "date": "2026-11-22T10:00:00+00:00", "commits": ["44acc4c"],
     "versions": ["torch 2.11.0+cu130, triton 3.6.0"],
     "rows": [{"operation": "quantized_linear", "x_bits": 4, "bits": 4, "shape": [118800, 12288, 3072, 128],
               "seconds": {"cupy": 0.0045, "triton": 0.0079}}, …]}

with the shapes of :class:`~dvdq_kernels.call.Call`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import log2
from pathlib import Path
from statistics import geometric_mean

from dvdq_kernels.call import Call, power_of_two

RANKING = Path(__file__).with_name("ranking.json")

_BASIS = "triton"
"""Whose time those of a whole format are relative to."""

_Times = Mapping[str, float]
"""Of each backend."""


@dataclass(frozen=True)
class Measured:
    """Times by backend, in seconds or relative to one of them, and in words what was measured where."""

    times: _Times
    source: str


def measured(call: Call) -> Measured | None:
    """What was measured on GPUs of that name nearest to ``call``, or None if nothing of its format was.

    Sizes are rounded up to powers of two; the nearest are those with the fewest doublings between. For a call without a
    shape, of a whole format, they are geometric means over all shapes.
    """
    classes = _classes(RANKING, call.place.gpu, call.operation, call.x_bits, call.bits)
    if not classes:
        return None
    if call.shape is None:
        times = _relative(classes)
        words = (f"{name} {times[name]:.3g} of {_BASIS}'s time" for name in times if name != _BASIS)
        where = f"in the mean of {len(classes)} shapes"
    else:
        shape = _nearest(tuple(classes), shape_class(call.shape))
        times = classes[shape]
        words = (f"{name} {1e3 * seconds:.3g} ms" for name, seconds in times.items())
        where = f"at {'×'.join(map(str, shape))}"
    return Measured(times, f"measured on {call.place.gpu} {where}: {', '.join(words)}")


def shape_class(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shapes of a class share measurements: each size rounded up to a power of two."""
    return tuple(map(power_of_two, shape))


@lru_cache
def _nearest(classes: tuple[tuple[int, ...], ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    return min(classes, key=lambda other: sum(abs(log2(a / b)) for a, b in zip(other, shape, strict=True)))


@lru_cache
def _classes(
    path: Path, gpu: str | None, operation: str, x_bits: int | None, bits: int | None
) -> dict[tuple[int, ...], _Times]:
    """Seconds of each class of shapes; the means of those shapes that are of one class. ``bits`` of None is any."""
    rows: dict[tuple[int, ...], list[_Times]] = defaultdict(list)
    for run in json.loads(path.read_text())["runs"]:
        for row in run["rows"] if run["device"] == gpu else ():
            if (row["operation"], row["x_bits"]) == (operation, x_bits) and bits in (None, row["bits"]):
                rows[shape_class(tuple(row["shape"]))].append(row["seconds"])
    return {
        shape: {name: geometric_mean(s[name] for s in same) for name in same[0] if all(name in s for s in same)}
        for shape, same in rows.items()
    }


def _relative(classes: Mapping[tuple[int, ...], _Times]) -> _Times:
    """Geometric means over the shapes that a backend and the basis were both measured at."""
    ratios: dict[str, list[float]] = defaultdict(list)
    for times in classes.values():
        for name, seconds in times.items() if _BASIS in times else ():
            ratios[name].append(seconds / times[_BASIS])
    return {name: geometric_mean(found) for name, found in ratios.items()}
