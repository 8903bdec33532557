"""Bytes of a transformer and of its passes, and whether several transformers fit on a device at once."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from dvdq_eval.device import dtype_on
from dvdq_eval.passes.running import build_empty
from dvdq_eval.passes.subject import Subject
from dvdq_models.inspecting.memory import forward_peak
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Recipe

WASTE = 1.1
"""What an allocator and kernels' own buffers are taken to need on top of what is counted."""


def weight_bytes(transformer: nn.Module) -> int:
    """Bytes of all parameters."""
    return sum(parameter.nbytes for parameter in transformer.parameters())


def pass_bytes(operation: str, subject: Subject, recipe: Recipe | None, dtype: torch.dtype) -> int:
    """Bytes that a pass needs beside weights and inputs, counted on the meta device.

    :mod:`dvdq_models.inspecting.memory` counts them.

    Raises:
        DvdqError: a transformer that does not run on the example inputs of its family.
    """
    transformer = build_empty(subject, recipe, dtype).to("meta")
    inputs = subject.inputs(transformer, dtype, torch.device("meta"))
    try:
        return forward_peak(transformer, inputs)
    except Exception as error:
        expected = f"a {type(transformer).__name__} that takes {', '.join(inputs)}"
        raise DvdqError(operation, where=subject.name, expected=expected, got=str(error)) from error


def fit_together(operation: str, subject: Subject, recipes: Iterable[Recipe | None], device: torch.device) -> bool:
    """Whether transformers of all ``recipes`` and a pass of any fit into what a GPU has free; on a CPU, taken to.

    Raises:
        DvdqError: as :func:`pass_bytes` does, so that what cannot run is refused before anything is allocated.
    """
    dtype = dtype_on(device)
    needs = [(weight_bytes(build_empty(subject, r, dtype)), pass_bytes(operation, subject, r, dtype)) for r in recipes]
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return WASTE * (sum(weights for weights, _ in needs) + max(beside for _, beside in needs)) < free
