"""Where a pipeline's parts lie while it runs."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import torch
from diffusers.hooks.group_offloading import _is_group_offload_enabled
from torch import nn

from dvdq_models.files.text import one_line
from dvdq_models.layers.linear import QuantizedLinear
from dvdq_models.layers.prefetching import Prefetcher
from dvdq_reference.spec.errors import DvdqError


class Offload(StrEnum):
    """What waits in the computer's memory instead of the device's."""

    NONE = "none"
    MODEL = "model"
    GROUP = "group"


class FinishOn(StrEnum):
    """Where second sets of codes lie, which only the last steps take."""

    DEVICE = "device"
    HOST = "host"


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


def offload_finish(transformer: nn.Module) -> None:
    """Keep the second sets of codes of a quantized transformer in the computer's memory, pinned where there is a GPU.

    In the steps that finish each layer's is copied to its device while the layer before it computes, on a stream of its
    own; at most two are on the device at a time, or four in blocks that Inductor compiled, which brings those of Q, K
    and V together. Outputs are bit for bit what they were. What moves the model or its layers, ``.to`` and diffusers'
    offloading, leaves these sets where they are; they are saved as ever.

    Raises:
        DvdqError: a transformer without second sets, or whose layers diffusers or accelerate offloads already: that
            comes afterwards.
    """
    operation, where = "offload_finish", type(transformer).__name__
    modules = transformer.modules()
    layers = [layer for layer in modules if isinstance(layer, QuantizedLinear) and layer.finish is not None]
    if not layers:
        raise DvdqError(operation, where=where, expected="layers with a second set of codes", got="none")
    if _is_group_offload_enabled(transformer) or any(layer.finish_qweight.is_meta for layer in layers):
        expected = "a model without offloading of single layers; turn it on afterwards"
        raise DvdqError(operation, where=where, expected=expected, got="group or sequential offloading")
    prefetcher = Prefetcher()
    for layer in layers:
        layer.offload_finish(prefetcher)


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
