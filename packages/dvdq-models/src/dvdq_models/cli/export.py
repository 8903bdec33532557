"""``dvdq export SRC DST --for comfyui``: a checkpoint on disk to a file that somebody else's program loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dvdq_models.calibration import Calibration
from dvdq_models.cli.console import byte_progress, megabytes, print_json, say, typed
from dvdq_models.cli.options import AsJson, Backend, Restart
from dvdq_models.comfyui import export_checkpoint
from dvdq_models.comfyui.export import as_export
from dvdq_models.comfyui.formats import FormatName, LinearDtype, check_choice
from dvdq_models.files.workspace import check_destination
from dvdq_models.running.placement import check_device
from dvdq_models.streaming.source import check_source


def export(
    source: Annotated[str, typer.Argument(help="As for dvdq quantize, or a folder of recipe convrot.")],
    destination: Annotated[
        Path, typer.Argument(help="The .safetensors file to write; for two transformers, the folder. Must not exist.")
    ],
    target: Annotated[Literal["comfyui"], typer.Option("--for", help="Whose files.")],
    format: Annotated[FormatName, typer.Option(help="Of linears with quantized activations.")] = "convrot_w4a4",
    linear_dtype: Annotated[LinearDtype, typer.Option(help="Activations beside convrot_w4a4.")] = "int4",
    ends: Annotated[int, typer.Option(min=0, help="Blocks at either end of each stack that get 8 bits.")] = 0,
    calibration: Annotated[
        Path | None, typer.Option(help="What dvdq calibrate --moments wrote: codes are rounded by it.")
    ] = None,
    config: Annotated[str | None, typer.Option(help="For an original checkpoint, as for dvdq quantize.")] = None,
    device: Annotated[str, typer.Option(help="Where layers are quantized: cpu or cuda.")] = "cpu",
    backend: Backend = "auto",
    restart: Restart = False,
    as_json: AsJson = False,
) -> None:
    """Write a transformer as a file for ComfyUI, tensor by tensor; a run that was killed goes on."""
    del target
    with typed(), as_export():
        check_source(source)
        check_destination("export", destination, file=destination.suffix == ".safetensors")
        check_choice(format, linear_dtype)
        check_device("export", device)
    with byte_progress("exporting", quiet=as_json) as advance:
        report = export_checkpoint(
            source,
            destination,
            format=format,
            linear_dtype=linear_dtype,
            ends=ends,
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
    counts = ", ".join(f"{count} linears {name}" for name, count in report.formats.items())
    sizes = f"weights {megabytes(report.bytes_read)} → {megabytes(report.bytes_written)}"
    say(destination, f": {counts}; {sizes} in {report.seconds:.1f} s")
