"""``dvdq-eval quality``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from dvdq_eval.quality.compare import Comparison, compare
from dvdq_eval.sheets import Cell, Column, Sheet, figure, terminal
from dvdq_models.cli.console import console

Figures = tuple[tuple[str, str, str], ...]
"""Heading, field of a comparison, and form of its figure."""

OF_VIDEOS: Figures = (
    ("PSNR (dB)", "psnr_db", ".2f"),
    ("SSIM", "ssim", ".4f"),
    ("MS-SSIM", "ms_ssim", ".4f"),
    ("VMAF", "vmaf", ".2f"),
    ("flickering", "flickering", ".4f"),
    ("reference's flickering", "reference_flickering", ".4f"),
)
OF_LATENTS: Figures = (("relative error", "relative_error", ".4f"),)


def quality(
    result: Annotated[Path, typer.Argument(help="A video (.mp4) or latent (.npy), or a folder of them.")],
    reference: Annotated[Path, typer.Argument(help="The same in full precision; folders are matched by file name.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Videos or latents against their reference: PSNR, SSIM, MS-SSIM, VMAF and flickering, or relative error."""
    rows = compare(result, reference)
    if as_json:
        typer.echo(json.dumps([{k: _finite(v) for k, v in asdict(row).items()} for row in rows], indent=2))
    else:
        console.print(*_tables(rows))


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _tables(rows: list[Comparison]) -> Iterator[Table]:
    """One of the videos and one of the latents, as far as there are any."""
    latents = [row for row in rows if row.relative_error is not None]
    videos = [row for row in rows if row.relative_error is None]
    return (terminal(_sheet(part, figures)) for part, figures in ((videos, OF_VIDEOS), (latents, OF_LATENTS)) if part)


def _sheet(rows: list[Comparison], figures: Figures) -> Sheet:
    columns = [Column("file"), *(Column(heading) for heading, _, _ in figures)]
    cells = [[Cell(row.name), *(figure(getattr(row, name), form) for _, name, form in figures)] for row in rows]
    return Sheet("", columns, cells)
