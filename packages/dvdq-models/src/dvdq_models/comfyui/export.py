"""From disk to a file for ComfyUI, one tensor of the source in memory at a time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import dvdq_kernels
from dvdq_models.calibration import Calibration
from dvdq_models.checkpoint.lazy import open_file
from dvdq_models.checkpoint.writing import WeightFiles
from dvdq_models.comfyui.formats import OPERATION, FormatName, LinearDtype, check_choice
from dvdq_models.comfyui.plan import FilePlan, plan_file
from dvdq_models.families import family_of_class
from dvdq_models.files.workspace import Workspace, check_destination
from dvdq_models.running.placement import check_device
from dvdq_models.streaming.source import Source, open_source
from dvdq_models.streaming.tasks import Progress, run_tasks, tensor_tasks
from dvdq_reference.spec.errors import DvdqError

_VERSION = 1
"""Of what is written for one source and one choice: another must not go on with the work of this."""


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes:
        files: one for each transformer.
        formats: how many linears have each format, all files together.
        bytes_read: of the source's weights.
        bytes_written: of the tensors of the files.
        resumed_bytes: of the source, done by an earlier run that did not finish.
        seconds: of this run.
    """

    files: tuple[Path, ...]
    formats: dict[str, int]
    bytes_read: int
    bytes_written: int
    resumed_bytes: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {**vars(self), "files": [str(file) for file in self.files]}


def export_checkpoint(
    source: str | Path,
    destination: str | Path,
    *,
    format: FormatName = "convrot_w4a4",
    linear_dtype: LinearDtype = "int4",
    ends: int = 0,
    calibration: Calibration | None = None,
    config: str | Path | None = None,
    device: str = "cpu",
    backend: str = "auto",
    restart: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Write a transformer as a file that ComfyUI loads, from full precision or from codes of the recipe ``convrot``.

    Linears get the format that their family's table and the arguments give them, and everything else is copied, both
    under the names of the original checkpoint. Until all is there the work lies in ``.NAME.part`` beside the
    destination; a run that was killed goes on there when called again, and its result is the same to the byte.

    Args:
        source: as for :func:`dvdq_models.streaming.quantize_checkpoint`, or a folder that the recipe ``convrot``
            quantized, whose codes are relabelled for ``convrot_w4a4``; its weight-only linears then have activations of
            8 bits.
        destination: a ``.safetensors`` file; a folder, if the source is a pipeline with two transformers. Must not
            exist.
        format: of linears whose activations are quantized, where their width fits; in 8 bits where it does not.
        linear_dtype: activations beside ``convrot_w4a4`` in 4 or 8 bits.
        ends: so many blocks at either end of each stack get 8 bits.
        calibration: with second moments of what the linears read, by which every code is rounded; without, to the
            nearest.
        config: of an original checkpoint.
        device: where weights are rotated and quantized, ``"cpu"`` or ``"cuda"``.
        backend: which kernels run.
        restart: discard what an earlier run left.
        progress: told of each finished part.

    Raises:
        DvdqError: a folder of another recipe, or of any beside a calibration, a calibration without moments, a family
            that is not known there, a source or destination that cannot be used, a broken file, a weight with NaN or
            Inf, a full disk; what was done by then is kept for the next call.
    """
    started, place = time.monotonic(), Path(destination)
    check_choice(format, linear_dtype)
    if isinstance(ends, bool) or not isinstance(ends, int) or ends < 0:
        raise DvdqError(OPERATION, where="ends", expected="a number of blocks, 0 or more", got=ends)
    with as_export():
        target = check_device(OPERATION, device)
        opened = open_source(source, config, quantized=True)
        one = len(opened.transformers) == 1
        if not one and place.suffix == ".safetensors":
            expected = f"a folder, for the files of {len(opened.transformers)} transformers"
            raise DvdqError(OPERATION, where=str(place), expected=expected, got="the name of one file")
        place = check_destination(OPERATION, place, file=one)
        choice = {"linear_dtype": linear_dtype, "ends": ends, "device": target, "backend": backend}
        plans = [
            plan_file(part, format, moments=_moments(calibration, part.subfolder), **choice)  # type: ignore[arg-type]
            for part in opened.transformers
        ]
        stems = [place.stem] if one else [f"{place.name}_{_expert(opened, plan)}" for plan in plans]
        rounded = {} if calibration is None else {"calibration": calibration.digest()}
        identity = _identity(opened, format, choice | rounded | {"device": target.type})
        product = f"{stems[0]}.safetensors" if one else None
        resumed = 0
        with Workspace(OPERATION, place, identity, restart=restart, file=product) as work:
            if not work.finished:
                with ExitStack() as stack:
                    work.check_space(sum(plan.nbytes for plan in plans))
                    files = [
                        stack.enter_context(WeightFiles(work.result, plan.outputs, None, stem=stem))
                        for plan, stem in zip(plans, stems, strict=True)
                    ]
                    resumed = run_tasks(work, tensor_tasks(opened, plans, files), files, progress)
                for plan, stem in zip(plans, stems, strict=True):
                    _check_file(work.result / f"{stem}.safetensors", plan)
            work.publish()
    return ExportReport(
        files=(place,) if one else tuple(place / f"{stem}.safetensors" for stem in stems),
        formats=dict(Counter(name for plan in plans for name in plan.formats.values())),
        bytes_read=sum(step.source.type.nbytes for plan in plans for step in plan.steps),
        bytes_written=sum(plan.nbytes for plan in plans),
        resumed_bytes=resumed,
        seconds=time.monotonic() - started,
    )


def _expert(source: Source, plan: FilePlan) -> str:
    """What its authors call a transformer of several."""
    model_class = next(part.config["_class_name"] for part in source.transformers if part.subfolder == plan.subfolder)
    return family_of_class(OPERATION, model_class).experts.get(plan.subfolder, plan.subfolder)


def _moments(calibration: Calibration | None, subfolder: str) -> dict[str, torch.Tensor] | None:
    return None if calibration is None else calibration.moments_of(subfolder or "transformer")


def _identity(source: Source, wanted: str, choice: dict[str, Any]) -> dict[str, Any]:
    """What must be the same for a run to go on with another's work, JSON-ready."""
    versions = {"export": _VERSION, "dvdq": dvdq_kernels.__version__, "torch": torch.__version__}
    return {"source": source.fingerprint(), "format": wanted, "choice": choice, "versions": versions}


def _check_file(file: Path, plan: FilePlan) -> None:
    if {name: tensor.type for name, tensor in open_file(OPERATION, file).items()} != dict(plan.outputs):
        raise DvdqError(OPERATION, where=str(file), expected="the tensors that were planned", got="others")


@contextmanager
def as_export() -> Iterator[None]:
    """Errors in the block, of parts that ``dvdq quantize`` has too, are about an export."""
    try:
        yield
    except DvdqError as error:
        raise DvdqError(OPERATION, expected=error.expected, got=error.got, where=error.where) from error
