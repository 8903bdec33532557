"""``dvdq-eval layers``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dvdq_eval.cli import options
from dvdq_eval.layers.check import SEEDS, TOKENS, check_layers
from dvdq_eval.layers.recipes import QUICK_SHAPES, RECIPES, SHAPES, VARIANTS
from dvdq_eval.layers.results import layer_sheet
from dvdq_eval.progress import progress_bars
from dvdq_eval.records import write_record, write_text
from dvdq_eval.sheets import markdown, terminal
from dvdq_models.cli.console import console, say
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
    threads: options.OwnThreads = None,
) -> None:
    """Output error of every recipe on random layers of full size, with heavy tails and outliers."""
    options.set_threads(threads)
    if out.is_dir():
        raise DvdqError("layers", where=str(out), expected="a file to write", got="a folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with progress_bars() as tell:
        checked = check_layers(
            {**RECIPES, **VARIANTS} if variants else RECIPES,
            shapes=QUICK_SHAPES if quick else SHAPES,
            tokens=tokens or (QUICK_TOKENS if quick else TOKENS),
            seeds=range(seeds or (QUICK_SEEDS if quick else len(SEEDS))),
            spread=spread,
            tell=lambda what, done, total: tell("Layers", done, total),
        )
    sheet = layer_sheet(checked)
    write_text(out.with_suffix(".md"), markdown(sheet))
    write_record(out, checked)
    console.print(terminal(sheet))
    say(out, ": all shapes")
