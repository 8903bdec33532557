"""``dvdq quantize SRC DST``: a checkpoint on disk to a quantized checkpoint on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dvdq_models.calibration import Calibration
from dvdq_models.cli.console import byte_progress, megabytes, print_json, say, typed
from dvdq_models.cli.options import (
    AsJson,
    Backend,
    Bits,
    Delta,
    Feedback,
    Finish,
    FirstHigh,
    LastHigh,
    RecipeName,
    Restart,
)
from dvdq_models.cli.recipe import recipe_from
from dvdq_models.files.workspace import check_destination
from dvdq_models.running.placement import check_device
from dvdq_models.streaming import quantize_checkpoint
from dvdq_models.streaming.source import check_source


def quantize(
    source: Annotated[str, typer.Argument(help="A pipeline or transformer folder, a .safetensors file, or a hub id.")],
    destination: Annotated[Path, typer.Argument(help="The folder to write; must not exist.")],
    recipe: RecipeName = "dvd-quant",
    bits: Bits = "W4A6",
    delta: Delta = None,
    first_high: FirstHigh = None,
    last_high: LastHigh = None,
    finish: Finish = False,
    feedback: Feedback = False,
    calibration: Annotated[
        Path | None, typer.Option(help="What dvdq calibrate wrote, for smoothquant, vidit-q and --feedback.")
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="For an original checkpoint: config.json, a folder with one, or a hub id.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where layers are quantized: cpu or cuda.")] = "cpu",
    backend: Backend = "auto",
    restart: Restart = False,
    as_json: AsJson = False,
) -> None:
    """Quantize a checkpoint of any size, tensor by tensor; a run that was killed goes on."""
    with typed():
        chosen = recipe_from(recipe, bits, delta, first_high, last_high, finish=finish, feedback=feedback)
        check_source(source)
        check_destination("quantize", destination)
        check_device("quantize", device)
    with byte_progress("quantizing", quiet=as_json) as advance:
        report = quantize_checkpoint(
            source,
            destination,
            chosen,
            calibration=None if calibration is None else Calibration.load(calibration),
            config=config,
            device=device,
            backend=backend,
            restart=restart,
            progress=advance,
        )
    if as_json:
        print_json(report.to_dict())
        return
    linears = sum(layer.treatment != "keep" for model in report.transformers.values() for layer in model.layers)
    say(
        destination,
        f": {linears} linears by {chosen.name} {bits}; weights {megabytes(report.bytes_read)} → "
        f"{megabytes(report.bytes_written)} in {report.seconds:.1f} s",
    )
