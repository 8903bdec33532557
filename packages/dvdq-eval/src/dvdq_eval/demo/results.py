"""``results.json``: everything that the demo measured. The tables and figures of the docs are made from it.

The file is one object with the fields of :class:`Results`; nested objects have the fields of their classes. A number
that does not exist, such as the distance of full precision from itself, is ``null`` or not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from dvdq_eval.internals import ChannelPeaks, LayerError
from dvdq_eval.sheets import Cell, Column, Sheet, best, figure, names, sheet_of, times
from dvdq_eval.tables.rows import Summary
from dvdq_eval.videos.records import DeltaRecord, Quality, VideoRecord

SCHEMA = 3


@dataclass(frozen=True)
class Video:
    """One video of a method, e.g. ``DVD-Quant`` at ``W4A6``, as every store describes it."""

    label: str
    bits: str
    record: VideoRecord
    quality: Quality


@dataclass(frozen=True)
class Results:
    """All of it.

    Attributes:
        rows: of the methods, full precision first.
        videos: of all methods and prompts.
        switch: δ and its trials on a prompt that is not among the others; what the switch then did is in ``videos``.
        layers, activations: weight errors, and the peaks of one layer's channels.
        provenance: versions, machine, commit, seed, settings and seconds.
    """

    rows: Sequence[Summary]
    videos: Sequence[Video]
    switch: DeltaRecord
    layers: Sequence[LayerError]
    activations: ChannelPeaks
    provenance: dict[str, Any]
    schema: int = SCHEMA


def demo_sheet(results: Results) -> Sheet:
    """A line a method: what it costs, how far its videos are from full precision's, and what they show.

    The best of each distance stands out. On a page, each word of the prompts has a column.
    """
    cost, distance, words = "Cost", "Distance from full precision", "Videos that show the prompt’s …"
    rows, found = results.rows, [summary.row for summary in results.rows]

    def means(name: str, form: str) -> list[Cell]:
        return [figure(row.means.get(name), form) for row in rows]

    columns = [
        (Column("method", first="ascending"), names([row.title for row in found])),
        (Column("MB", first="ascending", group=cost), [figure(row.bytes, ".2f", 1e-6) for row in found]),
        (Column("smaller", group=cost), [times(row.smaller) for row in rows]),
        (Column("average bits", first="ascending", group=cost), [figure(row.average_bits, ".2f") for row in found]),
        (Column("seconds a video", first="ascending", group=cost), [figure(row.pass_seconds, ".2f") for row in rows]),
        (Column("times as fast", group=cost, aside=True), [times(row.times_as_fast(rows[0])) for row in rows]),
        (Column("PSNR (dB)", more_is_better=True, group=distance), best(means("psnr_db", ".1f"), max)),
        (Column("SSIM", more_is_better=True, group=distance), best(means("ssim", ".3f"), max)),
        (
            Column("latent error", first="ascending", more_is_better=False, group=distance),
            best(means("latent_error", ".3f"), min),
        ),
        (Column("words seen", group=words), [figure(fmean(row.words.values()), ".0%") for row in rows]),
    ]
    for word in rows[0].words:
        shown = [Cell(f"{row.words[word] * row.videos:.0f}/{row.videos}", row.words[word]) for row in rows]
        columns.append((Column(word, group=words, aside=True), shown))
    return sheet_of("Means over all prompts, same noise", columns)
