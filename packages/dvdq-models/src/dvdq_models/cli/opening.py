"""A pipeline made ready for the commands that run it: its dtype, and where its parts lie meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dvdq_models.checkpoint import load_pipeline
from dvdq_models.families.pipelines import PipelineFolder
from dvdq_models.running.placement import Offload, check_device, check_offload, place


def check_opening(operation: str, folder: Path, device: str, offload: Offload) -> None:
    """A :class:`DvdqError` for a folder that holds no pipeline, a device that is not here, or offloading from a CPU."""
    PipelineFolder.open(operation, folder)
    check_device(operation, device)
    check_offload(operation, device, offload)


def open_pipeline(folder: Path, *, device: str, offload: Offload, backend: str) -> Any:
    """The pipeline in ``folder``, in float32 on a CPU and bfloat16 elsewhere, without diffusers' progress bar.

    Args:
        folder: of a pipeline, quantized or not.
        device: that runs it.
        offload: as :func:`dvdq_models.running.placement.place` takes it.
        backend: which kernels run.

    Raises:
        DvdqError: a folder that cannot be loaded.
    """
    pipeline: Any = load_pipeline(
        folder, backend=backend, dtype=torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
    )
    pipeline.set_progress_bar_config(disable=True)
    place(pipeline, device, offload)
    return pipeline
