"""What a backend is asked: an operation, where it runs, in which format and at which size."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch


class Place(NamedTuple):
    """Where a call runs, e.g. ``Place("cuda", 90, "NVIDIA H100 80GB HBM3")``.

    Args:
        type: of the device, e.g. ``"cpu"``.
        capability: the compute capability of a GPU, 90 for 9.0.
        gpu: its name, under which its measurements are kept; one of no name is one that nobody measured.
        here: False for a GPU that is only planned for.
    """

    type: str
    capability: int | None = None
    gpu: str | None = None
    here: bool = True


class Call(NamedTuple):
    """One call, e.g. ``Call("quantized_linear", place, x_bits=4, bits=4, shape=(32760, 1536, 1536, 128))``.

    What is not known stays None: a call without a shape is the whole format.

    Args:
        operation: a public function's name.
        place: where.
        grid: of the weight, where one is searched for.
        x_bits: width of activation codes; None for full activations.
        bits: width of weight codes.
        shape: ``(tokens, out, in, block)`` of a linear, ``(tokens, in, block)`` of activations; a block of all input
            channels is one scale a token, or none.
        packed: whether activation codes lie two a byte.
        dtype: of the weight that is quantized, else of the activations and the output.
    """

    operation: str
    place: Place
    grid: str | None = None
    x_bits: int | None = None
    bits: int | None = None
    shape: tuple[int, ...] | None = None
    packed: bool | None = None
    dtype: torch.dtype | None = None


def power_of_two(size: int) -> int:
    """The least that is not below ``size``."""
    return 1 << max(0, size - 1).bit_length()


def capability_of(device: torch.device) -> int | None:
    """The compute capability of a GPU, e.g. 90; None for any other device."""
    if device.type != "cuda":
        return None
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


@cache
def place_of(device: torch.device) -> Place:
    """A device that is here."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return Place(device.type, capability_of(device), name)
