"""``dvdq quantize SRC DST``: a checkpoint on disk to a quantized checkpoint on disk."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from dvdq_models.apply import quantize as quantize_transformer
from dvdq_models.checkpoint import is_quantized, save, save_pipeline, stored_dtype
from dvdq_models.cli.console import console, megabytes, print_json, progress_bar
from dvdq_models.cli.options import AsJson, Backend, Bits, Delta, RecipeName
from dvdq_models.cli.recipe import recipe_from
from dvdq_models.families import transformer_class
from dvdq_models.inspection import describe
from dvdq_reference.spec.errors import DvdqError


def quantize(
    source: Annotated[Path, typer.Argument(help="A diffusers pipeline folder or transformer folder.")],
    destination: Annotated[Path, typer.Argument(help="The folder to write; must not exist.")],
    recipe: RecipeName = "dvd-quant",
    bits: Bits = "W4A6",
    delta: Delta = None,
    backend: Backend = "auto",
    as_json: AsJson = False,
) -> None:
    """Quantize a checkpoint without data and save it as a diffusers folder."""
    chosen = recipe_from(recipe, bits, delta)
    is_pipeline = (source / "model_index.json").is_file()
    folder = source / "transformer" if is_pipeline else source
    config = folder / "config.json"
    if not config.is_file():
        raise DvdqError("quantize", where=str(source), expected="a pipeline or transformer folder", got="none")
    if is_quantized(source):
        raise DvdqError("quantize", where=str(source), expected="a model in full precision", got="a quantized one")
    if destination.exists():
        raise DvdqError("quantize", where=str(destination), expected="a folder that does not exist yet", got="one")
    model_class = transformer_class("quantize", config, json.loads(config.read_text()))
    started = time.monotonic()
    transformer = model_class.from_pretrained(str(folder), dtype=stored_dtype(folder)).eval()
    report = describe(transformer, chosen)
    count = sum(layer.treatment != "keep" for layer in report.layers)
    with progress_bar(quiet=as_json) as progress:
        task = progress.add_task("quantizing", total=count)

        def advance(_name: str, done: int, _total: int) -> None:
            progress.update(task, completed=done)

        quantize_transformer(transformer, chosen, backend=backend, progress=advance)
    if is_pipeline:
        save_pipeline(source, transformer, destination)
    else:
        save(transformer, destination)
    seconds = time.monotonic() - started
    if as_json:
        print_json({"destination": str(destination), "seconds": seconds, **report.to_dict()})
        return
    console.print(
        f"[bold]{destination}[/bold]: {count} linears by {chosen.name} {bits}; transformer "
        f"{megabytes(report.bytes_before)} → {megabytes(report.bytes_after)} ({report.reduction:.2f}×) "
        f"in {seconds:.1f} s",
        highlight=False,
    )
