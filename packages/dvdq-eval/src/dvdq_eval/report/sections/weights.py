"""The error that four bits leave in each weight, and what rotation does to activations."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from dvdq_eval.charts import internals
from dvdq_eval.internals import LayerError
from dvdq_eval.report.files import Channels, LayerErrors
from dvdq_eval.report.material import Material
from dvdq_eval.report.parts import Part, Section, Text


def weights(material: Material) -> Section | None:
    """Each layer's error by min-max and by BGR."""
    found = material.of(LayerErrors)
    if not found:
        return None
    parts = [part for file in found for part in error_parts(file.value.layers)]
    return Section("weights", "Weight error, min-max against BGR", parts, [file.source for file in found])


def error_parts(layers: Sequence[LayerError]) -> list[Part]:
    """Words and the chart."""
    minmax, bgr = (fmean(getattr(layer, name) for layer in layers) for name in ("minmax_error", "bgr_error"))
    text = (
        "Each layer’s rotated weights at four bits under both grids. "
        f"Over all {len(layers)} layers the mean squared error is {100 * minmax:.2f} % with min-max and "
        f"{100 * bgr:.2f} % with bounded grid refinement, {100 * (bgr / minmax - 1):+.0f} %."
    )
    return [Text(text), internals.error_charts(layers)]


def activations(material: Material) -> Section | None:
    """The peaks of one layer's channels as they come and under each rotation."""
    found = material.of(Channels)
    if not found:
        return None
    parts: list[Part] = []
    for file in found:
        value = file.value
        text = (
            f"The largest value that each input channel of {value.layer} reached in full precision over all tokens and "
            f"steps of “{value.prompt}”: the layer whose channels differ most. The crest is the highest peak over the "
            "root mean square of all."
        )
        parts += [Text(text), internals.peak_charts(value.layer, value.peaks, value.crest)]
    return Section("activations", "Activations before and after rotation", parts, [file.source for file in found])
