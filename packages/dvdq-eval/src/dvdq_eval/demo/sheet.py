"""The demo's table: what each method costs, how far its videos are from full precision's, and what they show."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from statistics import fmean

from dvdq_eval.demo.results import Results, Row
from dvdq_eval.sheets.figures import figure, names, times
from dvdq_eval.sheets.sheet import Cell, Column, Sheet


def demo_sheet(results: Results) -> Sheet:
    """One line a method; the best of each distance stands out. On a page, each word of the prompts has a column."""
    cost, distance, words = "Cost", "Distance from full precision", "Videos that show the prompt’s …"
    rows, prompts = results.rows, len(results.trace.videos)
    columns = [
        (Column("method", first="ascending"), names([row.title for row in rows])),
        (Column("MB", first="ascending", group=cost), [figure(row.bytes, ".2f", 1e-6) for row in rows]),
        (Column("smaller", group=cost), [times(row.compression) for row in rows]),
        (Column("average bits", first="ascending", group=cost), [figure(row.average_bits, ".2f") for row in rows]),
        (Column("seconds a video", first="ascending", group=cost), [figure(row.video_seconds, ".2f") for row in rows]),
        (Column("times as fast", group=cost, aside=True), [times(row.speedup) for row in rows]),
        (Column("PSNR (dB)", more_is_better=True, group=distance), _best(rows, lambda row: row.psnr_db, ".1f", max)),
        (Column("SSIM", more_is_better=True, group=distance), _best(rows, lambda row: row.ssim, ".3f", max)),
        (
            Column("latent error", first="ascending", more_is_better=False, group=distance),
            _best(rows, lambda row: row.latent_error, ".3f", min),
        ),
        (Column("words seen", group=words), [figure(fmean(row.adherence.values()), ".0%") for row in rows]),
    ]
    for word in rows[0].adherence:
        shown = [Cell(f"{row.adherence[word] * prompts:.0f}/{prompts}", row.adherence[word]) for row in rows]
        columns.append((Column(word, group=words, aside=True), shown))
    cells = list(zip(*(cells for _, cells in columns), strict=True))
    return Sheet("Means over all prompts, same noise", [column for column, _ in columns], cells)


def _best(
    rows: Sequence[Row],
    value_of: Callable[[Row], float | None],
    form: str,
    choose: Callable[[Sequence[float]], float],
) -> list[Cell]:
    """The figures of a column, its best one marked."""
    values = [value_of(row) for row in rows]
    known = [value for value in values if value is not None]
    best = choose(known) if known else None
    cells = [figure(value, form) for value in values]
    return [
        dataclasses.replace(cell, css="best") if value is not None and value == best else cell
        for cell, value in zip(cells, values, strict=True)
    ]
