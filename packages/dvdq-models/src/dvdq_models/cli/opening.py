"""A pipeline made ready for the commands that run it: its dtype, and where its parts lie meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dvdq_models.checkpoint import load_pipeline
from dvdq_models.families.configurations import CONFIG, stored_recipe
from dvdq_models.families.pipelines import PipelineFolder, transformers_of
from dvdq_models.running.placement import FinishOn, Offload, check_device, check_offload, offload_finish, place
from dvdq_reference.spec.errors import DvdqError


def check_opening(
    operation: str, folder: Path, device: str, offload: Offload, finish_on: FinishOn = FinishOn.DEVICE
) -> None:
    """A :class:`DvdqError` for a folder that holds no pipeline, a device that is not here, or offloading from a CPU.

    So is one for second sets of codes that are to stay in main memory and that the pipeline has not.
    """
    pipeline = PipelineFolder.open(operation, folder)
    check_device(operation, device)
    check_offload(operation, device, offload)
    if finish_on is FinishOn.DEVICE:
        return
    where = "--finish-on"
    if torch.device(device).type == "cpu":
        raise DvdqError(operation, where=where, expected="a device apart from main memory, as cuda", got=device)
    for name in pipeline.transformers:
        recipe = stored_recipe(folder / name / CONFIG)
        if recipe is None or recipe.finish is None:
            expected = "weights with a second set of codes, as of dvd-quant-finish"
            got = f"{name} in full precision" if recipe is None else f"{name} by {recipe.name}"
            raise DvdqError(operation, where=where, expected=expected, got=got)


def open_pipeline(
    folder: Path, *, device: str, offload: Offload, backend: str, finish_on: FinishOn = FinishOn.DEVICE
) -> Any:
    """The pipeline in ``folder``, in float32 on a CPU and bfloat16 elsewhere, without diffusers' progress bar.

    Args:
        folder: of a pipeline, quantized or not.
        device: that runs it.
        offload: as :func:`dvdq_models.running.placement.place` takes it.
        backend: which kernels run.
        finish_on: where second sets of codes lie; ``host`` is for a pipeline that :func:`check_opening` has passed.

    Raises:
        DvdqError: a folder that cannot be loaded.
    """
    pipeline: Any = load_pipeline(
        folder, backend=backend, dtype=torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
    )
    pipeline.set_progress_bar_config(disable=True)
    if finish_on is FinishOn.HOST:
        for transformer in transformers_of(pipeline).values():
            offload_finish(transformer)
    place(pipeline, device, offload)
    return pipeline
