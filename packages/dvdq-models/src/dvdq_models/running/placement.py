"""Where a pipeline's parts lie while it runs."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import torch

from dvdq_models.files.text import one_line
from dvdq_reference.spec.errors import DvdqError


class Offload(StrEnum):
    """What waits in the computer's memory instead of the device's."""

    NONE = "none"
    MODEL = "model"
    GROUP = "group"


def check_device(operation: str, name: str) -> torch.device:
    """The device of this name; one that is unknown or not here is a :class:`DvdqError`."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        got = one_line(error)
        raise DvdqError(operation, where=f"device {name}", expected="a device that is here", got=got) from error
    return device


def check_offload(operation: str, device: str, offload: Offload) -> None:
    """Offloading from a CPU is a :class:`DvdqError`."""
    if torch.device(device).type == "cpu" and offload is not Offload.NONE:
        raise DvdqError(operation, where="--offload", expected="a device to offload from, as --device cuda", got=device)


def place(pipeline: Any, device: str, offload: Offload) -> None:
    """Put a pipeline where it runs.

    Args:
        pipeline: of diffusers.
        device: that runs it.
        offload: ``none`` keeps every part on the device; ``model`` the one at work, text encoder, transformer or
            autoencoder; ``group`` a few layers of it, the next ones on their way.
    """
    if offload is Offload.MODEL:
        pipeline.enable_model_cpu_offload(device=device)
    elif offload is Offload.GROUP:
        pipeline.enable_group_offload(torch.device(device), offload_type="leaf_level", use_stream=True)
    else:
        pipeline.to(device)
