"""``dvdq-eval layers``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dvdq_eval.layers.check import SEEDS, TOKENS, check_layers
from dvdq_eval.layers.recipes import RECIPES, VARIANTS
from dvdq_eval.layers.results import LayerTable
from dvdq_eval.layers.shapes import QUICK_SHAPES, SHAPES
from dvdq_eval.layers.table import layer_table
from dvdq_reference.spec.errors import DvdqError

QUICK_TOKENS, QUICK_SEEDS = 32, 1


def layers(
    out: Annotated[Path, typer.Option(help="JSON file to write; an earlier one is replaced.")] = Path(
        "out/layers.json"
    ),
    quick: Annotated[bool, typer.Option("--quick", help="The smallest shape, one seed, few tokens.")] = False,
    variants: Annotated[bool, typer.Option("--variants", help="Also DVD-Quant with one thing changed.")] = False,
    tokens: Annotated[int | None, typer.Option(min=1, help=f"Tokens a sample; default: {TOKENS}.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help=f"Samples of each kind; default: {len(SEEDS)}.")] = None,
    spread: Annotated[float, typer.Option(min=0.0, help="Deviation of ln of the scales of weight channels.")] = 0.0,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: torch's choice.")] = None,
) -> None:
    """Output error of every recipe on random layers of full size, with heavy tails and outliers."""
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        if out.is_dir():
            raise DvdqError("layers", where=str(out), expected="a file to write", got="a folder")
        out.parent.mkdir(parents=True, exist_ok=True)
        checked = _check(
            variants,
            quick,
            tokens or (QUICK_TOKENS if quick else TOKENS),
            seeds or (QUICK_SEEDS if quick else len(SEEDS)),
            spread,
        )
    except DvdqError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    out.write_text(checked.to_json(), encoding="utf-8")
    console = Console()
    console.print(layer_table(checked))
    console.print(f"All shapes: [bold]{out}[/bold]", soft_wrap=True)


def _check(variants: bool, quick: bool, tokens: int, seeds: int, spread: float) -> LayerTable:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        bar = bars.add_task("")

        def tell(what: str, done: int, total: int) -> None:
            bars.update(bar, description=what, completed=done, total=total)

        return check_layers(
            {**RECIPES, **VARIANTS} if variants else RECIPES,
            shapes=QUICK_SHAPES if quick else SHAPES,
            tokens=tokens,
            seeds=range(seeds),
            spread=spread,
            tell=tell,
        )
