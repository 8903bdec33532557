"""The demo's table, for a terminal."""

from __future__ import annotations

from statistics import fmean

from rich.table import Table

from dvdq_eval.demo.methods import Method
from dvdq_eval.demo.results import Results, Row


def quality_table(results: Results) -> Table:
    """One line a method: size, bits, seconds a video, distances from full precision, words of the prompts seen."""
    table = Table(title="Against full precision, same prompts, same noise", title_justify="left", collapse_padding=True)
    table.add_column("method", no_wrap=True)
    for name in ("MiB", "smaller", "avg\nbits", "s a\nvideo", "PSNR\ndB", "SSIM", "latent\nerror", "words\nseen"):
        table.add_column(name, justify="right")
    for row in results.rows:
        table.add_row(Method(row.method, row.bits).label, *_cells(row), f"{fmean(row.adherence.values()):.0%}")
    return table


def _cells(row: Row) -> list[str]:
    return [
        f"{row.bytes / 2**20:.2f}",
        f"{row.compression:.2f}×",
        *(
            "–" if value is None else format(value, form)
            for value, form in (
                (row.average_bits, ".2f"),
                (row.video_seconds, ".2f"),
                (row.psnr_db, ".1f"),
                (row.ssim, ".3f"),
                (row.latent_error, ".3f"),
            )
        ),
    ]
