"""``dvdq-eval quality``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from dvdq_eval.quality.compare import Comparison, compare

Columns = tuple[tuple[str, str, str], ...]
"""Heading, field of a comparison, and form of its figure."""

OF_VIDEOS: Columns = (
    ("PSNR\ndB", "psnr_db", ".2f"),
    ("SSIM", "ssim", ".4f"),
    ("MS-SSIM", "ms_ssim", ".4f"),
    ("VMAF", "vmaf", ".2f"),
    ("flickering", "flickering", ".4f"),
    ("reference's\nflickering", "reference_flickering", ".4f"),
)
OF_LATENTS: Columns = (("relative error", "relative_error", ".4f"),)


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
        Console().print(*_tables(rows))


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _tables(rows: list[Comparison]) -> Iterator[Table]:
    """One of the videos and one of the latents, as far as there are any."""
    latents = [row for row in rows if row.relative_error is not None]
    videos = [row for row in rows if row.relative_error is None]
    return (_table(part, columns) for part, columns in ((videos, OF_VIDEOS), (latents, OF_LATENTS)) if part)


def _table(rows: list[Comparison], columns: Columns) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("file", overflow="fold")
    for heading, _, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        values = ((getattr(row, field), form) for _, field, form in columns)
        table.add_row(row.name, *("–" if value is None else format(value, form) for value, form in values))
    return table
