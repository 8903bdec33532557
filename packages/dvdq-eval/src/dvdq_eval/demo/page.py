"""The demo's report: what it measured, told on one page."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from dvdq_eval.charts import internals
from dvdq_eval.charts.plot import Chart, Charts
from dvdq_eval.demo.results import Results, demo_sheet
from dvdq_eval.report.clips import quality_lines
from dvdq_eval.report.parts import (
    Chapter,
    Clip,
    Facts,
    Page,
    ReportVideo,
    Section,
    Text,
    Wall,
)
from dvdq_eval.report.sections.internals import error_parts, trace_chart
from dvdq_eval.report.write import render
from dvdq_eval.sheets import figure
from dvdq_eval.tables.catalogue import OURS
from dvdq_eval.videos.records import Quality
from dvdq_models.running.video import FPS

QUALITY_NOTE = (
    "MB is the transformer’s checkpoint: codes, scales and zero-points as stored, every other number in 16 bits, the "
    "width in which video models are published. Smaller is against all of it in 16 bits. Average bits are those of the "
    "activations. Distances are means over the videos’ frames in 8 bits, before any lossy codec, and their final "
    "latents (‖a − b‖ / ‖b‖). Whether a video shows a word is judged by an analytic detector, without any network; a "
    "word that cannot be seen clearly counts as missing."
)
MADE_NOTE = (
    "Seconds a video are those of the transformer’s passes on this machine, the median over the videos; they say "
    "nothing about speed on another, or on a GPU. All figures of this page, and each video’s own, are in results.json "
    "beside it."
)


def demo_page(results: Results, prompts: Sequence[str], videos: Sequence[Sequence[ReportVideo]]) -> str:
    """The page as HTML; ``videos[prompt][method]``, the methods those of the results' rows."""
    lead = (
        f"The bundled text-to-video model in full precision and quantized, from the same {len(prompts)} "
        f"prompt{'s' if len(prompts) != 1 else ''} and the same noise. The prompts are combinations of words that the "
        "model never saw in training, chosen by a seed before anything was generated."
    )
    sections = [
        Section("videos", "Videos side by side", [_wall(results, prompts, videos)]),
        Section("quality", "Quality and size", [demo_sheet(results), Text(QUALITY_NOTE, "note")]),
        _switching(results),
        Section("weights", "Weight error, min-max against BGR", error_parts(results.layers)),
        _activations(results),
        Section("provenance", "Provenance", [Facts(_facts(results, len(prompts))), Text(MADE_NOTE, "note")]),
    ]
    eyebrow = f"DVD-Quant {results.provenance['dvdq']} · demo report"
    heading = "A video diffusion transformer in four bits"
    chapter = Chapter("", "moving shapes", _cards(results), sections)
    return render(Page("DVD-Quant demo", eyebrow, heading, lead, [chapter]))


def _cards(results: Results) -> list[tuple[str, str]]:
    """The figures that open the page, as (figure, what it is), for methods that ran."""
    rows = {(row.row.label, row.row.bits): row for row in results.rows}
    ours, rival = rows[OURS, "W4A4"], rows["MinMax", "W4A4"]
    minmax, bgr = (statistics.fmean(getattr(e, f"{grid}_error") for e in results.layers) for grid in ("minmax", "bgr"))
    psnr, rival_psnr = (figure(row.means.get("psnr_db"), ".1f").text for row in (ours, rival))
    return [
        (f"{ours.smaller:.2f}×", "smaller transformer at four bits"),
        (f"{psnr} dB", f"PSNR of DVD-Quant W4A4; MinMax W4A4 reaches {rival_psnr} dB"),
        (f"{ours.times_as_fast(results.rows[0]):.2f}×", "as fast denoising at W4A4, on this machine"),
        (f"{100.0 * (bgr / minmax - 1.0):+.0f} %", "weight error of BGR against min-max"),
    ]


def _wall(results: Results, prompts: Sequence[str], videos: Sequence[Sequence[ReportVideo]]) -> Wall:
    by_video = {(video.label, video.bits, video.record.prompt): video.quality for video in results.videos}
    clips = [
        [
            Clip(row.title, clip, _lines(by_video[row.label, row.bits, prompt]))
            for row, clip in zip([summary.row for summary in results.rows], shown, strict=True)
        ]
        for prompt, shown in zip(prompts, videos, strict=True)
    ]
    return Wall(prompts, clips, FPS)


def _lines(quality: Quality) -> list[tuple[str, str]]:
    return [*([("", "reference")] if quality.of_reference else []), *quality_lines(quality)]


def _switching(results: Results) -> Section:
    switch = results.switch
    records = [video.record for video in results.videos if (video.label, video.bits) == (OURS, "W4A6")]
    text = (
        "W4A6 runs each denoising step with 4-bit activations while the output changes little, and with 8 bits once "
        f"the changes since the last such step add up to δ. δ = {switch.delta:.4g} was chosen for an average of "
        f"{switch.wanted:g} bits by {len(switch.trials)} trials of the switch on another prompt: a few runs "
        "and no data."
    )
    charts = [trace_chart(record.prompt, record.trace or (), switch.delta) for record in records]
    return Section("bits", "Bit switching, step by step", [Text(text), Charts(charts, internals.WIDTHS)])


def _activations(results: Results) -> Section:
    peaks = results.activations
    before, after = (max(values) / statistics.median(values) for values in (peaks.before, peaks.after))
    text = (
        f"The largest value that each input channel of {peaks.layer} reached in full precision over all tokens and "
        f"steps of the first video. The highest channel stands {before:.1f}× above the median channel before the "
        f"Hadamard rotation and {after:.1f}× after it."
    )
    highest = max(*peaks.before, *peaks.after)
    charts = [
        Chart(
            internals.channel_peaks(peaks.layer, "before rotation", peaks.before, highest, ours=False), "As they come"
        ),
        Chart(internals.channel_peaks(peaks.layer, "after rotation", peaks.after, highest, ours=True), "Rotated"),
    ]
    return Section("activations", "Activations before and after rotation", [Text(text), Charts(charts)])


def _facts(results: Results, prompts: int) -> list[tuple[str, str]]:
    made, quantized = results.provenance, [summary.row for summary in results.rows[1:]]
    settings = ", ".join(f"{name} {value}" for name, value in made["settings"].items() if value != "")
    return [
        ("Made", f"{made['date']}, in {made['seconds']:.0f} s"),
        ("Commit", made["commit"] or "not a checkout"),
        ("Machine", f"{made['processor']}, {made['cores']} cores, {made['threads']} threads, {made['device']}"),
        ("System", f"{made['platform']}, Python {made['python']}"),
        ("Libraries", ", ".join(f"{name} {version}" for name, version in made["libraries"].items())),
        ("Seeds", f"{made['seed']} to {made['seed'] + prompts - 1}, one a prompt"),
        ("Generation", settings),
        ("Seconds to quantize", ", ".join(f"{row.title} {row.prepare_seconds:.1f}" for row in quantized)),
    ]
