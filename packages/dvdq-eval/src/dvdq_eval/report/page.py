"""The page: what the template is given, and the template filled in."""

from __future__ import annotations

import base64
import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import jinja2
from markupsafe import Markup
from PIL import Image

from dvdq_eval.demo.methods import Method
from dvdq_eval.demo.results import Results, Row
from dvdq_eval.report import charts
from dvdq_models.video import FPS, Frames


@dataclass(frozen=True)
class ReportVideo:
    """An mp4 file's bytes, and the frame ``[height, width, 3]`` that stands for it until it plays."""

    mp4: bytes
    poster: Frames

    @property
    def source(self) -> str:
        """The file as a data URI."""
        return f"data:video/mp4;base64,{base64.b64encode(self.mp4).decode()}"

    @property
    def poster_source(self) -> str:
        """The frame as a data URI."""
        png = io.BytesIO()
        Image.fromarray(self.poster).save(png, "PNG", optimize=True)
        return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"


def render(
    results: Results, prompts: Sequence[str], labels: Sequence[str], videos: Sequence[Sequence[ReportVideo]]
) -> str:
    """The page as HTML; ``videos[prompt][method]``, with the names of both."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    peaks = results.activations
    return environment.get_template("template.html").render(
        style=Markup(_read("style.css")),
        script=Markup(_read("playback.js")),
        results=results,
        words=list(results.rows[0].adherence),
        rows=[(Method(row.method, row.bits).label, row) for row in results.rows],
        best=_best(results.rows),
        cards=_cards(results),
        prompts=prompts,
        labels=labels,
        videos=videos,
        fps=FPS,
        by_video={(v.method, v.bits, v.prompt): v for v in results.videos},
        traces=[(trace, Markup(charts.bit_trace(trace, results.trace))) for trace in results.trace.videos],
        layer_chart=Markup(charts.layer_errors(results.layers)),
        layer_means=_layer_means(results),
        peak_charts=[Markup(charts.channel_peaks(peaks, rotated=rotated)) for rotated in (False, True)],
        peak_ratios=[max(values) / statistics.median(values) for values in (peaks.before, peaks.after)],
    )


def _read(name: str) -> str:
    return resources.files("dvdq_eval.report").joinpath(name).read_text(encoding="utf-8")


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _best(rows: Sequence[Row]) -> dict[str, float]:
    """The best value of each quality column, which the table sets in bold."""
    better = {"psnr_db": max, "ssim": max, "latent_error": min}
    known = {name: [v for row in rows if (v := getattr(row, name)) is not None] for name in better}
    return {name: pick(known[name]) for name, pick in better.items() if known[name]}


def _cards(results: Results) -> list[tuple[str, str]]:
    """The figures that open the page, as (figure, what it is), for methods that ran."""
    rows = {(row.method, row.bits): row for row in results.rows}
    ours, rival = rows["dvd-quant", "W4A4"], rows["minmax", "W4A4"]
    minmax, bgr = _layer_means(results)
    return [
        (f"{ours.compression:.2f}×", "smaller transformer at four bits"),
        (f"{_number(ours.psnr_db, '.1f')} dB", f"W4A4 PSNR; min-max W4A4 reaches {_number(rival.psnr_db, '.1f')} dB"),
        (f"{_number(rows['dvd-quant', 'W4A6'].average_bits, '.2f')} bits", "average activation width of W4A6"),
        (f"{100.0 * (bgr / minmax - 1.0):+.0f} %", "weight error of BGR against min-max"),
    ]


def _layer_means(results: Results) -> tuple[float, float]:
    return (
        statistics.fmean(layer.minmax_error for layer in results.layers),
        statistics.fmean(layer.bgr_error for layer in results.layers),
    )
