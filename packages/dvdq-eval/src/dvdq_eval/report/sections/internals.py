"""What quantization does inside: bits step by step, the error of each weight, the peaks of activations."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from dvdq_eval.charts import internals
from dvdq_eval.charts.internals import WIDTHS, bit_shares, bit_trace
from dvdq_eval.charts.plot import Chart, Charts
from dvdq_eval.internals import LayerError
from dvdq_eval.report.material import Channels, FoundMethod, LayerErrors, Material
from dvdq_eval.report.parts import Part, Section, Text
from dvdq_eval.tables.catalogue import OURS
from dvdq_models.switching.schedule import StepDecision, average_bits

_TRACED = 2
"""Videos whose switch is drawn step by step."""


def bits(material: Material) -> Section | None:
    """The switch of one method on the first videos, and when every method that switches runs high."""
    study = material.study
    if study is None or not (methods := [method for method in study.methods if _switches(method)]):
        return None
    guided = [method for method in methods if (method.about.schedule or {})["kind"] == "delta"]
    parts = _traces(next((m for m in guided if m.about.label == OURS), guided[0])) if guided else []
    text = (
        "When each method runs high: a step is the more violet, the more of its videos ran it at the high width. A "
        "fixed pattern is one for all videos, a guided switch follows each."
    )
    shares = [(method.about.title, _shares(method)) for method in methods]
    parts += [Text(text), Charts([Chart(bit_shares(shares))], WIDTHS)]
    return Section("bits", "Bits, step by step", parts, study.sources)


def _switches(method: FoundMethod) -> bool:
    """Whether it runs at two widths, TeaCache apart: a step that it skips has none."""
    return (
        method.about.schedule is not None
        and method.about.schedule["kind"] != "constant"
        and bool(method.videos)
        and method.about.teacache is None
    )


def _traces(method: FoundMethod) -> list[Part]:
    assert method.about.schedule is not None
    schedule, records = method.about.schedule, [video.record for video in method.videos.values()]
    delta = schedule["delta"]
    text = (
        f"{method.about.title} runs a denoising step at {schedule['low']} bits while the output changes little, and "
        f"at {schedule['high']} once the changes since the last such step add up to δ = {delta:.4g}. Over its "
        f"{len(records)} videos that is {fmean(record.average_bits or 0.0 for record in records):.2f} bits on average."
    )
    charts = [trace_chart(record.prompt, record.trace or (), delta) for record in records[:_TRACED]]
    return [Text(text), Charts(charts, WIDTHS)]


def trace_chart(prompt: str, steps: Sequence[StepDecision], delta: float) -> Chart:
    """One video's switch with its prompt and its average."""
    return Chart(bit_trace(prompt, steps, delta), f"“{prompt}”", f"{average_bits(steps):.2f} bits on average")


def _shares(method: FoundMethod) -> list[float]:
    """For each step, the share of videos that ran it at the high width."""
    assert method.about.schedule is not None
    traces = [video.record.trace or () for video in method.videos.values()]
    return [fmean(step.bits == method.about.schedule["high"] for step in steps) for steps in zip(*traces, strict=True)]


def weights(material: Material) -> Section | None:
    """Each layer's error by min-max and by BGR."""
    title = "Weight error, min-max against BGR"
    return material.section(LayerErrors, "weights", title, lambda found: error_parts(found.layers))


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
    return material.section(Channels, "activations", "Activations before and after rotation", _peaks)


def _peaks(found: Channels) -> list[Part]:
    text = (
        f"The largest value that each input channel of {found.layer} reached in full precision over all tokens and "
        f"steps of “{found.prompt}”: the layer whose channels differ most. The crest is the highest peak over the "
        "root mean square of all."
    )
    return [Text(text), internals.peak_charts(found.layer, found.peaks, found.crest)]
