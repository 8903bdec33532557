"""A pipeline made ready for the commands that run it: its dtype, and where its parts lie meanwhile."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

import torch

from dvdq_models.checkpoint import load_pipeline
from dvdq_reference.spec.errors import DvdqError


class Offload(StrEnum):
    """What waits in the computer's memory instead of the device's."""

    NONE = "none"
    MODEL = "model"
    GROUP = "group"


def open_pipeline(operation: str, folder: Path, *, device: str, offload: Offload, backend: str) -> Any:
    """The pipeline in ``folder``, in float32 on a CPU and bfloat16 elsewhere, without diffusers' progress bar.

    Args:
        operation: for errors.
        folder: of a pipeline, quantized or not.
        device: that runs it.
        offload: ``none`` keeps every part on the device; ``model`` the one at work, text encoder, transformer or
            autoencoder; ``group`` a few layers of it, the next ones on their way.
        backend: which kernels run.

    Raises:
        DvdqError: a folder that cannot be loaded, or offloading from a CPU.
    """
    if device == "cpu" and offload is not Offload.NONE:
        raise DvdqError(operation, where="--offload", expected="a device to offload from, as --device cuda", got=device)
    pipeline: Any = load_pipeline(folder, backend=backend, dtype=torch.float32 if device == "cpu" else torch.bfloat16)
    pipeline.set_progress_bar_config(disable=True)
    if offload is Offload.MODEL:
        pipeline.enable_model_cpu_offload(device=device)
    elif offload is Offload.GROUP:
        pipeline.enable_group_offload(torch.device(device), offload_type="leaf_level", use_stream=True)
    else:
        pipeline.to(device)
    return pipeline
