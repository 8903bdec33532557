"""The streaming quantizer: one tensor of the source in memory at a time."""

from __future__ import annotations

import shutil
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch

import dvdq_kernels
from dvdq_kernels.call import Call, place_of
from dvdq_kernels.selection import select
from dvdq_models.calibration import Calibration, statistics
from dvdq_models.checkpoint.format import read_quantized_config
from dvdq_models.checkpoint.lazy import open_folder
from dvdq_models.checkpoint.writing import WeightFiles
from dvdq_models.files.atomic import sync
from dvdq_models.files.workspace import Workspace, check_destination
from dvdq_models.inspecting.sizes import ModelReport
from dvdq_models.quantization_config import format_of
from dvdq_models.running.placement import check_device
from dvdq_models.streaming.components import check_components
from dvdq_models.streaming.plan import TransformerPlan, plan_transformer
from dvdq_models.streaming.source import OPERATION, Source, open_source
from dvdq_models.streaming.tasks import Progress, Task, run_tasks, tensor_tasks
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Recipe


@dataclass(frozen=True)
class StreamingReport:
    """What was done.

    Args:
        destination: the folder.
        transformers: a report of each, by its subfolder; a transformer by itself has the empty one.
        bytes_read: of the source's weights.
        bytes_written: of the quantized weights.
        largest_tensor: bytes of the largest that was read.
        resumed_bytes: of the source, done by an earlier run that did not finish.
        seconds: of this run.
    """

    destination: Path
    transformers: dict[str, ModelReport]
    bytes_read: int
    bytes_written: int
    largest_tensor: int
    resumed_bytes: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values; sizes of whole models count what stays as it was in 16 bits, as ``dvdq inspect`` does."""
        before = sum(model.bytes_before for model in self.transformers.values())
        after = sum(model.bytes_after for model in self.transformers.values())
        return {
            **vars(self),
            "destination": str(self.destination),
            "bytes_before": before,
            "bytes_after": after,
            "reduction": before / after,
            "transformers": {name: model.to_dict() for name, model in self.transformers.items()},
        }


def quantize_checkpoint(
    source: str | Path,
    destination: str | Path,
    recipe: Recipe,
    *,
    calibration: Calibration | None = None,
    config: str | Path | None = None,
    device: str = "cpu",
    backend: str = "auto",
    restart: bool = False,
    progress: Progress | None = None,
) -> StreamingReport:
    """Quantize a checkpoint on disk to a checkpoint on disk; memory holds one tensor of it at a time.

    The tensors are those of ``from_pretrained``, :func:`dvdq_models.quantize` and :func:`dvdq_models.save`. Until all
    of them are there the work lies in ``.NAME.part`` beside the destination. A run that was killed goes on there when
    called again with the same source, recipe and versions, and its result is the same to the byte.

    Args:
        source: a pipeline folder, whose other components are copied; a transformer folder; a ``.safetensors`` file in
            the authors' own format; or a hub id.
        destination: the folder to write; must not exist.
        recipe: e.g. ``Recipe.named("dvd-quant", "W4A6")``.
        calibration: for a recipe that smooths by it or rounds with feedback.
        config: of an original checkpoint, as in :func:`~dvdq_models.streaming.source.open_source`.
        device: where layers are rotated and quantized, ``"cpu"`` or ``"cuda"``.
        backend: which kernels run.
        restart: discard what an earlier run left.
        progress: told of each finished part.

    Raises:
        DvdqError: a source or destination that cannot be used, a broken or altered file, a weight with NaN or Inf, a
            full disk; what was done by then is kept for the next call.
    """
    started, place = time.monotonic(), check_destination(OPERATION, Path(destination))
    target = check_device(OPERATION, device)
    opened = open_source(source, config)
    if opened.copies and place.resolve().is_relative_to(opened.root.resolve()):
        raise DvdqError(OPERATION, where=str(place), expected="a folder outside the source", got="one inside")
    plans = [
        plan_transformer(part, recipe, target, backend, **statistics(calibration, recipe, part.subfolder))
        for part in opened.transformers
    ]
    resumed = 0
    with Workspace(OPERATION, place, _identity(opened, recipe, calibration, target, backend), restart=restart) as work:
        if not work.finished:
            with ExitStack() as stack:
                work.check_space(_bytes_to_write(plans, opened))
                files = [stack.enter_context(_weight_files(work, plan)) for plan in plans]
                tasks = tensor_tasks(opened, plans, files) + _copies(opened, work.result)
                resumed = run_tasks(work, tasks, files, progress)
                for plan, weights in zip(plans, files, strict=True):
                    weights.finish(plan.config, recipe)
            _check_result(work.result, plans, opened)
        work.publish()
    read = [step.source.type.nbytes for plan in plans for step in plan.steps]
    return StreamingReport(
        destination=Path(destination),
        transformers={plan.subfolder: plan.report for plan in plans},
        bytes_read=sum(read),
        bytes_written=sum(output.nbytes for plan in plans for output in plan.outputs.values()),
        largest_tensor=max(read),
        resumed_bytes=resumed,
        seconds=time.monotonic() - started,
    )


def _copies(source: Source, target: Path) -> list[Task]:
    return [
        Task(f"copy {file}", (source.root / file).stat().st_size, partial(_copy, source.root / file, target / file))
        for file in source.copies
    ]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    sync(target)


def _weight_files(work: Workspace, plan: TransformerPlan) -> WeightFiles:
    folder = work.result / plan.subfolder
    folder.mkdir(exist_ok=True)
    return WeightFiles(folder, plan.outputs)


def _identity(
    source: Source, recipe: Recipe, calibration: Calibration | None, device: torch.device, backend: str
) -> dict[str, Any]:
    """What must be the same for a run to go on with another's work, JSON-ready."""
    call = Call("quantize_weight", place_of(device), recipe.weight.grid, bits=recipe.weight.bits)
    return {
        "source": source.fingerprint(),
        "recipe": recipe.to_dict(),
        "calibration": None if calibration is None else calibration.digest(),
        "kernels": [device.type, select(call, backend).backend.name],
        "versions": {"format": format_of(recipe), "dvdq": dvdq_kernels.__version__, "torch": torch.__version__}
        | {"diffusers": diffusers.__version__},
    }


def _bytes_to_write(plans: list[TransformerPlan], source: Source) -> int:
    written = sum(output.nbytes for plan in plans for output in plan.outputs.values())
    return written + sum((source.root / file).stat().st_size for file in source.copies)


def _check_result(result: Path, plans: list[TransformerPlan], source: Source) -> None:
    """The folder that is to be published loads: its files open, and each transformer has the tensors of its plan."""
    check_components(OPERATION, result, source.components)
    for plan in plans:
        folder = result / plan.subfolder
        read_quantized_config(folder)
        if {name: tensor.type for name, tensor in open_folder(OPERATION, folder).items()} != plan.outputs:
            raise DvdqError(OPERATION, where=str(folder), expected="the tensors that were planned", got="others")
