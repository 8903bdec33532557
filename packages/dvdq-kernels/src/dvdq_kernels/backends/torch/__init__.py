"""Plain PyTorch, on any device: one file an operator."""

from __future__ import annotations

from functools import partial
from importlib import import_module

from dvdq_kernels.backend import Backend

BACKEND = Backend(
    "torch",
    partial(import_module, f"{__name__}.operators"),
    takes_packed=True,
    describe=lambda place, steps: ["operations of PyTorch"],
)
